"""Regions of judgement, each against a NumPy twin."""

import numpy as np
import torch

from sfdfd.measures.metrics import depth_metrics, image_metrics
from sfdfd.measures.regions import REGIONS, border, near_depth_edges, plain, regions
from sfdfd.optics import Camera
from sfdfd.stack import FocalStack, Prediction

H, W = 37, 45


def scene(seed=0):
    rng = np.random.default_rng(seed)
    depth_m = np.tile(np.linspace(1, 1.3, W), (H, 1))  # a slant is no jump
    depth_m[10:20, 5:12] = 0.9
    depth_m[30:, 20:] *= 1.02  # below the threshold
    aif = 0.5 + 0.001 * rng.standard_normal((3, H, W))
    aif[:, :, 25:] = rng.random((3, H, W - 25))
    return depth_m, aif.clip(0, 1)


def twin_jumps(depth_m, reach):
    found = np.zeros((H, W), bool)
    for i in range(H):
        for j in range(W):
            for a, b in ((i + 1, j), (i, j + 1)):
                if a < H and b < W:
                    z, other = depth_m[i, j], depth_m[a, b]
                    if abs(1 / z - 1 / other) > 0.03 / min(z, other):
                        for p, q in ((i, j), (a, b)):
                            found[max(p - reach, 0) : p + reach + 1, max(q - reach, 0) : q + reach + 1] = True
    return found


def test_regions_match_their_numpy_twins():
    depth_m, aif = scene()
    jumps = near_depth_edges(torch.from_numpy(depth_m)[None])[0].numpy()
    np.testing.assert_array_equal(jumps, twin_jumps(depth_m, 8))
    assert 0 < jumps.mean() < 0.8
    grey, flat = aif.mean(0), np.zeros((H, W), bool)
    for i in range(H):
        for j in range(W):
            flat[i, j] = grey[max(i - 4, 0) : i + 5, max(j - 4, 0) : j + 5].std() < 0.02
    np.testing.assert_array_equal(plain(torch.from_numpy(aif)[None])[0].numpy(), flat)
    assert border(H, W, 3).sum() == H * W - (H - 6) * (W - 6) and bool(border(H, W, 40).all())
    unknown = depth_m.copy()
    unknown[10:20, 5:12] = 0
    assert not near_depth_edges(torch.from_numpy(unknown)[None]).any()


def test_metrics_by_region_are_metrics_over_their_pixels():
    depth_m, aif = (torch.from_numpy(value).float() for value in scene())
    stack = FocalStack.single(
        aif.expand(2, 3, H, W), [1.0, 2.0], Camera(0.05, 4.0, 1e-4), 0.5, 3.0, depth_m=depth_m,
        valid=torch.rand(H, W, generator=torch.Generator().manual_seed(0)) > 0.2, aif=aif,
    )  # fmt: skip
    guess = depth_m * torch.linspace(0.8, 1.4, H)[:, None]
    prediction = Prediction(guess[None], aif[None], torch.zeros(1, 2, H, W), None)
    row = image_metrics(prediction, stack).as_dicts()[0]
    for name, mask in regions(stack.depth_m, stack.aif).items():
        expected = depth_metrics(guess[None], depth_m[None], mask & stack.valid)["abs_rel"]
        assert row[f"depth/abs_rel_{name}"] == float(expected[0])
    assert set(regions(stack.depth_m, stack.aif)) == set(REGIONS) and "plain" not in regions(stack.depth_m, None)


def test_plain_is_a_grey_value_that_varies_by_less_than_a_fiftieth():
    """A chessboard's standard deviation is its amplitude; colours that cancel are no texture."""
    board = (-1.0) ** torch.add(*torch.meshgrid(torch.arange(20), torch.arange(24), indexing="ij"))
    for amplitude, expected in ((0.0195, True), (0.0206, False)):
        assert bool((plain((0.5 + amplitude * board).expand(1, 3, 20, 24)) == expected).all())
    assert bool(plain(0.5 + 0.3 * torch.stack([board, -board, 0 * board])[None]).all())
