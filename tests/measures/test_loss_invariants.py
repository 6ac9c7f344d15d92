"""Laws of losses, over inputs that Hypothesis draws."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfdfd.measures.losses import (
    SelfSupervisedLoss,
    aif_blur,
    coarse_aif,
    depth_smoothness,
    photometric_error,
    reconstruction,
    sharpness,
)
from tests.measures.strategies import NAN, both, close, drawn, factors, laws, seeds, turns


@settings(laws, max_examples=10)
@given(seeds, turns, st.floats(0, 1), st.integers(0, 4))
def test_the_photometric_error_is_a_bounded_symmetric_difference(seed, turn, weight, px):
    rand = drawn(seed)
    one, other = rand(2, 3, 14, 15), rand(2, 3, 14, 15)
    options = {"ssim_weight": weight, "border_px": px}
    found = photometric_error(one, other, **options)
    close(photometric_error(one, one, **options), torch.zeros(2).double(), atol=1e-6)
    close(photometric_error(other, one, **options), found, atol=1e-7)
    close(photometric_error(turn(one), turn(other), **options), found, atol=1e-7)
    close(photometric_error(one.flip(0), other.flip(0), **options), found.flip(0))
    ends = [photometric_error(one, other, ssim_weight=w, border_px=px) for w in (0.0, 1.0)]
    close(found, (1 - weight) * ends[0] + weight * ends[1])
    cut = (one - other).abs()[..., px : 14 - px, px : 15 - px]
    close(ends[0], cut.mean((1, 2, 3)))
    assert bool((found >= 0).all()) and bool((found <= 2).all())


@settings(laws, max_examples=10)
@given(seeds, st.permutations(range(3)), st.sampled_from([NAN, 5.0]))
def test_losses_ignore_slice_order_and_padding_slices(seed, order, nonsense):
    rand = drawn(seed)
    rendered, stack = rand(2, 3, 3, 12, 13), rand(2, 3, 3, 12, 13)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    blur = rand(2, 3, 12, 13) - 0.5
    spoilt = torch.where(mask[:, :, None, None, None], rendered, nonsense)
    for loss in (reconstruction, sharpness):
        found = loss(rendered, stack, mask)
        close(loss(rendered[:, order], stack[:, order], mask[:, order]), found)
        close(loss(spoilt, stack, mask), found)
        close(loss(stack, rendered, mask), found, atol=1e-7)
        close(loss(stack, stack, mask), torch.zeros(2).double(), atol=1e-6)
        each = torch.stack([loss(rendered[:, s : s + 1], stack[:, s : s + 1], mask[:, :1]) for s in range(3)], 1)
        close(found, torch.stack([each[0, :2].mean(), each[1].mean()]))
    sharpest = coarse_aif(stack, blur, mask)
    close(coarse_aif(stack[:, order], blur[:, order], mask[:, order]), sharpest)
    close(coarse_aif(stack, 3 * -blur, mask), sharpest)  # the size of the blur, not its side nor its unit
    assert not (sharpest[0] == stack[0, 2]).all(0).any()
    chosen = blur.abs().numpy()[1].argmin(0)
    close(sharpest[1], torch.from_numpy(np.take_along_axis(stack[1].numpy(), chosen[None, None], 0)[0]))


@laws
@given(seeds, turns, st.floats(-3, 3), st.floats(-5, 5))
def test_smoothness_is_a_seminorm_that_edges_of_the_guide_soften(seed, turn, c, offset):
    rand = drawn(seed)
    value, image = rand(2, 7, 9), rand(2, 3, 7, 9)
    found = depth_smoothness(value, image)
    close(depth_smoothness(c * value + offset, image), abs(c) * found, rtol=1e-8)
    close(depth_smoothness(turn(value), turn(image)), found)
    close(depth_smoothness(value, 1 - image), found)
    flat = depth_smoothness(value, torch.full_like(image, 0.3))
    close(flat, value.diff(dim=1).abs().mean((1, 2)) + value.diff(dim=2).abs().mean((1, 2)))
    assert bool((found < flat).all()) and bool((depth_smoothness(value, 0.5 * image) > found).all())


@laws
@given(seeds, turns, st.floats(1.1, 5), st.floats(-0.3, 0.3))
def test_blurriness_ignores_brightness_and_flips(seed, turn, c, offset):
    rand = drawn(seed)
    image = 0.5 + 0.3 * (rand(2, 3, 12, 13) - 0.5)
    for normalisation in ("variance", "released"):
        found = aif_blur(image, normalisation=normalisation)
        close(aif_blur(turn(image), normalisation=normalisation), found)
        assert bool((aif_blur(0.5 + c * (image - 0.5), normalisation=normalisation) < found).all())  # contrast is sharp
    close(aif_blur(image + offset), aif_blur(image), rtol=1e-6)


@settings(laws, max_examples=5)
@given(seeds, st.lists(st.floats(0.01, 3), min_size=5, max_size=5), factors)
def test_the_total_is_linear_in_its_weights(seed, weights, c):
    rand = drawn(seed)
    depth = 1 + 3 * rand(2, 12, 13)
    prediction, stack = both((depth, depth, torch.ones(2, 12, 13, dtype=torch.bool)), rand)
    names = ("reconstruction", "aif_consistency", "aif_blur", "smoothness", "sharpness")
    stack = replace(stack, near_m=stack.near_m.double(), far_m=stack.far_m.double())
    terms = SelfSupervisedLoss(**dict(zip(names, weights, strict=True)))(prediction, stack)
    scaled = SelfSupervisedLoss(**{name: c * w for name, w in zip(names, weights, strict=True)})(prediction, stack)
    close(scaled["total"], c * terms["total"])
    for name, weight in zip(names, weights, strict=True):
        alone = SelfSupervisedLoss(**{**dict.fromkeys(names, 0.0), name: weight})(prediction, stack)
        assert set(alone) == {name, "total"}
        close(alone["total"], weight * terms[name])
    # in inverse depth from far (0) to near (1); as released, in tens of metres
    position = (1 / depth - 0.1) / (1 / stack.near_m - 0.1)[:, None, None]
    close(terms["smoothness"], depth_smoothness(position, prediction.aif), rtol=1e-6)
    released = SelfSupervisedLoss(smoothness=1.0, smoothness_domain="depth", smoothness_factor=2.5)(prediction, stack)
    close(released["smoothness"], 0.25 * depth_smoothness(depth, prediction.aif))
