"""Left-out slices: figures against their NumPy twin, and laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.measures.left_out import judge, mean_left_out_psnr, neighbours, render_slice, score_left_out_slices
from sfdfd.optics import DefocusRenderer, Renderer
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import Prediction
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="exact")


@pytest.fixture(scope="module")
def scene():
    synthesis = StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(2, synthesis, seed=1, height=61, width=83)[0]


def twin(photograph, image, covered):
    """PSNR without 3 % of the border, over what the photograph covers."""
    y, x = (math.ceil(0.03 * side) for side in covered.shape)
    error = ((photograph - image) ** 2)[:, y:-y, x:-x][:, covered[y:-y, x:-x]].mean()
    return -10 * np.log10(error)


def test_left_out_figures_match_their_numpy_twin():
    rng = np.random.default_rng(0)
    photograph, rendered, first, second = (rng.uniform(0.2, 0.6, (3, 40, 70)).astype(np.float32) for _ in range(4))
    first, second = (0.5 * photograph + 0.5 * image for image in (first, second))
    covered = rng.uniform(size=(40, 70)) > 0.3
    pair = (torch.from_numpy(first), torch.from_numpy(second))
    tensors = [torch.from_numpy(image) for image in (photograph, rendered)]
    found = judge(*tensors, pair[1], pair, torch.from_numpy(covered), exposure=False).figures
    assert found.psnr_db == pytest.approx(twin(photograph, rendered, covered), abs=1e-4)
    assert found.nearest_slice_psnr_db == pytest.approx(twin(photograph, second, covered), abs=1e-4)
    blends = [twin(photograph, w * first + (1 - w) * second, covered) for w in np.linspace(0, 1, 1001)]
    assert found.best_blend_psnr_db == pytest.approx(max(blends), abs=1e-4)
    assert found.best_blend_psnr_db >= found.nearest_slice_psnr_db
    assert judge(*tensors, pair[1], pair, exposure=False).gain == (1.0, 1.0, 1.0)


def test_the_best_blend_stays_between_its_slices():
    """The photograph lies beyond the first slice: the weight is 1, not more."""
    ramp = torch.linspace(0.2, 0.4, 50).expand(3, 40, 50).contiguous()
    photograph, first, second = ramp + 0.2, ramp + 0.1, ramp
    found = judge(photograph, photograph, first, (first, second), exposure=False).figures
    assert found.best_blend_psnr_db == pytest.approx(20.0, abs=1e-4) and found.psnr_db == 100
    same = judge(photograph, photograph, first, (first, first), exposure=False).figures
    assert same.best_blend_psnr_db == same.nearest_slice_psnr_db


def test_exposure_is_equalized_and_uncovered_photographs_have_no_figure():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(0.3).add(0.2)
    gain = torch.tensor([0.8, 0.9, 1.1])[:, None, None]
    found = judge(gain * image, image, image, (image, image))
    assert found.figures.psnr_db > 60 and found.gain == pytest.approx((1.25, 1 / 0.9, 1 / 1.1), rel=1e-3)
    nothing = judge(image, image, image, (image, image), torch.zeros(64, 64, dtype=torch.bool))
    assert math.isnan(nothing.figures.psnr_db)


@pytest.mark.parametrize(("focus", "expected"), [
    (2.0, (2, (0, 2))), (1.2, (1, (0, 1))), (3.0, (2, (0, 2))), (0.5, (1, (0, 1))),
    (math.inf, (2, (0, 2))), (1.5, (0, (0, 1))),
])  # fmt: skip
def test_neighbours_are_those_in_inverse_focus(focus, expected):
    """Inputs focused at 1.5, 1.1 and 2.2 m; beyond the ends, the two at that end."""
    nearest, pair = neighbours(focus, [1.5, 1.1, 2.2])
    assert (nearest, tuple(sorted(pair))) == expected


@pytest.mark.parametrize(
    "options", [{}, {"psf": "disc", "linear_light": True}, {"weighting": "target", "sigma_scale": 1.0}]
)
def test_tiles_agree_with_the_whole_slice(scene, options):
    renderer = DefocusRenderer(**{"sigma_scale": 0.5, "method": "exact", **options})
    arguments = (renderer, scene.aif[0], scene.depth_m[0], 0.8, CAMERA)
    torch.testing.assert_close(render_slice(*arguments, tile_px=24), render_slice(*arguments), atol=2e-5, rtol=0)


def test_other_renderers_are_tiled_too(scene):
    class Other(Renderer):
        options, differentiable = {}, True

        def __call__(self, *arguments, **options):
            return RENDERER(*arguments, **options)

    arguments = (scene.aif[0], scene.depth_m[0], 0.8, CAMERA)
    torch.testing.assert_close(
        render_slice(Other(), *arguments, tile_px=20), render_slice(RENDERER, *arguments), atol=2e-5, rtol=0
    )


def test_tiles_and_margins_have_the_expected_sizes(scene):
    """Memory does not grow with the photograph; margins are the reach of the blur, and no pixel is rendered twice."""
    seen = []

    class Watched(DefocusRenderer):
        def forward(self, aif, depth_m, focus, camera, **options):
            seen.append(tuple(depth_m.shape[-2:]))
            return super().forward(aif, depth_m, focus, camera, **options)

    depth_m = torch.full((200, 150), 2.0)
    radius = CAMERA.blur_radius_px(2.0, 1.9)
    margin = math.ceil(4.5 * 0.5 * radius) + 8  # the Gaussian's reach, and a little
    arguments = torch.rand(3, 200, 150), depth_m, 1.9, CAMERA
    render_slice(Watched(sigma_scale=0.5), *arguments, tile_px=50)
    ends = [(50 + margin, 50 + 2 * margin, 50 + 2 * margin, 50 + margin), (50 + margin, 50 + 2 * margin, 50 + margin)]
    assert seen == [(height, width) for height in ends[0] for width in ends[1]]
    seen.clear()
    render_slice(Watched(sigma_scale=0.5), *arguments, tile_px=1)  # tiles are no smaller than their margins together
    assert len(seen) == math.ceil(200 / (2 * margin)) * math.ceil(150 / (2 * margin))


@pytest.mark.parametrize("device", [None, "cpu", "meta"])
def test_tiles_are_rendered_on_the_chosen_device(device):
    class Noting(Renderer):
        options, differentiable = {}, False

        def __call__(self, aif, depth_m, focus_distances_m, camera, *, blur_factor=1.0):
            seen.update((aif.device.type, depth_m.device.type, focus_distances_m.device.type))
            return torch.full((1, 1, *aif.shape[1:]), 2.0)

    seen = set()
    rendered = render_slice(Noting(), torch.rand(3, 20, 30), torch.full((20, 30), 2.0), 1.9, CAMERA, device=device)
    assert seen == {device or "cpu"} and torch.equal(rendered, torch.ones(3, 20, 30))  # in [0, 1], where the AIF is


def test_the_truth_predicts_left_out_slices(scene):
    kept, aside = scene.with_slices([0, 2, 4]), scene.with_slices([1, 3])
    truth = Prediction(scene.depth_m, scene.aif, torch.zeros(1, 3, 61, 83), None)
    judged = score_left_out_slices(kept, truth, RENDERER, aside)
    wrong = score_left_out_slices(
        kept, Prediction(torch.full_like(scene.depth_m, 0.6), *list(vars(truth).values())[1:4]), RENDERER, aside
    )
    for good, bad in zip(judged, wrong, strict=True):
        assert good.figures.psnr_db > 50 and good.figures.psnr_db > 10 + max(
            bad.figures.psnr_db, good.figures.nearest_slice_psnr_db
        )
        assert good.figures.best_blend_psnr_db >= good.figures.nearest_slice_psnr_db
        assert bad.figures.nearest_slice_psnr_db == good.figures.nearest_slice_psnr_db  # the inputs' alone
    covered = torch.ones(1, 2, 61, 83)
    covered[..., :30] = 0.0
    spoilt = torch.where(covered[:, :, None] > 0.5, aside.images, 0.5)
    in_part = score_left_out_slices(kept, truth, RENDERER, replace(aside, images=spoilt, covered=covered))
    assert all(one.figures.psnr_db > 50 for one in in_part)  # where a slice shows nothing it is not compared
    means = mean_left_out_psnr([one.figures for one in judged])
    assert means["psnr_db"] == pytest.approx(np.mean([one.figures.psnr_db for one in judged]))
