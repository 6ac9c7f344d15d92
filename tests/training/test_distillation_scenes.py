"""Random scenes of distillation: rendered by any camera, a teacher's prediction is the exact target."""

import numpy as np
import pytest
import torch

from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.scenes.layered_scene import LayeredScene
from sfdfd.training.capture_disturbances import Disturbance
from sfdfd.training.distillation_samples import random_samples
from sfdfd.training.distillation_scenes import (
    SceneSource,
    TeacherPrediction,
    _place_in_front,
    _random_silhouette,
    random_sample_setup,
    signed_radius_px,
    simulate_capture,
)

PLANES = 8


def random_sample(answers, seed, size, planes):
    return random_samples([random_sample_setup(SceneSource(answers), seed, size)], planes)[0]


def test_a_random_sample_depends_only_on_its_seed(prediction):
    one, same, other = (random_sample([prediction], seed, 40, PLANES) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(one.images, same.images) and torch.equal(one.costs, same.costs)
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)


def test_cut_outs_are_nearer_and_have_sharp_edges(prediction):
    """Only nearer, only inside the silhouette; the AIF is one surface's or the other's but for a pixel between them."""
    ground = prediction._replace(inverse_depth_01=torch.full((56, 64), 0.3), aif=torch.zeros(3, 56, 64))
    other = prediction._replace(inverse_depth_01=torch.full((56, 64), 0.9), aif=torch.ones(3, 56, 64))
    covered = []
    for seed in range(20):
        g = np.random.default_rng(seed)
        inside_px = _random_silhouette(48, g)
        scene = _place_in_front(
            TeacherPrediction(*(value[..., :48, :48] for value in ground)), TeacherPrediction(*(value[..., :48, :48] for
            value in other)), inside_px, g,
        )  # fmt: skip
        nearer = scene.inverse_depth_01 > 0.3
        assert bool((scene.inverse_depth_01 >= 0.3).all()) and not bool((nearer & (inside_px <= 0)).any())
        assert bool((scene.aif[0][inside_px < -0.5] == 0).all())
        within = scene.aif[0][(inside_px > 0.5) & nearer]
        assert bool((within == 1).all())
        covered.append(float(nearer.float().mean()))
    assert 0.02 < np.mean(covered) < 0.6


@pytest.mark.parametrize("seed", range(12))
def test_random_samples_have_the_stated_shapes_and_ranges(prediction, seed):
    sample = random_sample([prediction], (7, seed), 40, PLANES)
    slices = len(sample.images)
    assert sample.images.shape == (slices, 3, 40, 40) and sample.costs.shape == (2, PLANES, 20, 20)
    assert 2 <= slices <= 12 and sample.ends_px.shape == (slices, 2)
    span = (sample.ends_px[:, 0] - sample.ends_px[:, 1]).abs()
    assert float(span.min()) > 0.8 and float(span.max()) < 40 and float(sample.near_m) < float(sample.far_m)
    assert float(sample.target.inverse_depth_01.min()) >= 0 and float(sample.target.inverse_depth_01.max()) <= 1
    codes = sample.images * 255
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def plain(setup):
    """Remove misalignment, noise and other disturbances."""
    return setup._replace(misalignment_px=0 * setup.misalignment_px, noise_std=0.0, disturbance=None)


@pytest.mark.parametrize("seed", range(6))
def test_the_simulated_stack_is_the_rendered_prediction(prediction, seed):
    """Away from hidden surfaces and from the border."""
    setup = plain(random_sample_setup(SceneSource([prediction]), (0, seed), 40))._replace(
        hidden=torch.zeros(0, 5, 40, 40)
    )
    inverse_depth_01, aif, _ = setup.scene
    near_m, far_m = (torch.tensor([end]) for end in (setup.near_m, setup.far_m))
    expected = setup.renderer(
        aif[None], depth_from_normalized(inverse_depth_01[None], near_m, far_m), setup.focus_m, setup.camera
    )[0]
    reach = int(signed_radius_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m).abs().max()) + 2
    if reach < 15:
        inside = (..., slice(reach, 40 - reach), slice(reach, 40 - reach))
        difference = (simulate_capture(setup)[inside] - expected.clamp(0, 1)[inside]).abs()
        assert float(difference.mean()) < 2e-3
        assert float(difference.max()) < 0.02  # levels differ where the border is more


@pytest.mark.parametrize(("height", "width"), [(40, 40), (32, 56)])
def test_slices_are_shifted_by_the_stated_number_of_pixels(prediction, height, width):
    """Compared with the unshifted slices, moved by whole pixels and averaged for halves."""
    setup = plain(random_sample_setup(SceneSource([prediction]), (0, 0), 56))
    cut = TeacherPrediction(*(value[..., :height, :width] for value in setup.scene))
    setup = setup._replace(scene=cut, hidden=setup.hidden[..., :height, :width])
    still = simulate_capture(setup)
    misalignment_px = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-1.0, 4.0], [0.0, 0.0]])[torch.arange(len(still)) % 4]
    moved = simulate_capture(setup._replace(misalignment_px=misalignment_px))
    for index, (x, y) in enumerate(misalignment_px.int().tolist()):
        rows, columns = (slice(5 + y, height - 5 + y), slice(5 + x, width - 5 + x))
        torch.testing.assert_close(moved[index, :, 5:-5, 5:-5], still[index, :, rows, columns], atol=2 / 255, rtol=0)
        assert float((moved[index] - still[index]).abs().mean()) > 1e-3 or (x, y) == (0, 0)
    half = simulate_capture(setup._replace(misalignment_px=torch.full_like(misalignment_px, 0.5)))[..., 5:-5, 5:-5]
    four = [still[..., 5 + y : height - 5 + y, 5 + x : width - 5 + x] for y in (0, 1) for x in (0, 1)]
    torch.testing.assert_close(half, sum(four) / 4, atol=2 / 255, rtol=0)


def test_every_fifth_stack_is_misaligned_by_eight_tenths_of_a_pixel(prediction):
    misalignment_px = [
        random_sample_setup(SceneSource([prediction]), (9, seed), 16).misalignment_px for seed in range(300)
    ]
    misaligned = [one for one in misalignment_px if bool(one.any())]
    assert 0.15 < len(misaligned) / 300 < 0.25
    assert float(torch.cat(misaligned).std()) == pytest.approx(0.8, abs=0.06)


def test_a_hidden_background_shows_through_a_blurred_occluder(prediction):
    """A black bar before a white wall, far out of focus: with the wall behind it given, no more light is lost."""
    bar = torch.zeros(40, 40)
    bar[:, 18:22] = 1
    seen = TeacherPrediction(0.1 + 0.8 * bar, (1 - bar).expand(3, -1, -1), torch.ones(40, 40))
    wall = torch.cat([torch.ones(3, 40, 40), torch.full((1, 40, 40), 0.1), bar[None]])[None]
    setup = next(
        setup
        for seed in range(200)
        if (setup := plain(random_sample_setup(SceneSource([prediction]), (4, seed), 40))).renderer.options["linear_light"]
        and setup.renderer.options["psf"] == "disc" and len(setup.hidden)
        and 5 < float(signed_radius_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m).abs().max()) < 12
    )  # fmt: skip
    light = [simulate_capture(setup._replace(scene=seen, hidden=behind)) ** 2.2 for behind in (wall, wall[:0])]
    dark = (1 - light[0][:, 0, 20]).sum(-1)  # what the bar takes away is its width, however blurred
    torch.testing.assert_close(dark, torch.full_like(dark, 4.0), atol=0.4, rtol=0)
    assert float((light[0] - light[1]).abs().max()) > 0.1


def test_samples_without_planes_have_no_sweep(prediction):
    sample = random_sample([prediction], (0, 1), 40, 0)
    assert sample.costs.shape == (2, 0, 20, 20)
    assert torch.equal(sample.images, random_sample([prediction], (0, 1), 40, PLANES).images)


def bank_scene(size=80):
    """A board before a wall, and what it hides."""
    inverse_depth = np.full((3, size, size), 0.25, np.float32)
    inverse_depth[0, 20:50, 20:50] = 1.0
    is_present = np.zeros((3, size, size), bool)
    is_present[0] = True
    is_present[1] = inverse_depth[0] == 1
    colours = np.full((3, size, size, 3), 60, np.uint8)
    colours[0, 20:50, 20:50] = 200
    return LayeredScene(colours, np.where(is_present, inverse_depth, 0).astype(np.float32), is_present)


@pytest.mark.parametrize("seed", range(8))
def test_a_bank_scene_keeps_its_surfaces_and_has_more_beyond_the_border(seed):
    """Depth is one surface's or the other's, hidden layers are farther, and the target is as large as the images."""
    setup = plain(random_sample_setup(SceneSource((), [bank_scene()]), (1, seed), 40))
    side = 40 + 2 * setup.margin_px
    assert setup.scene.aif.shape == (3, side, side) and setup.target.aif.shape == (3, 40, 40)
    assert setup.renderer.models_occlusion == (setup.margin_px > 0)
    for layer in setup.hidden:
        assert bool((layer[3] < setup.scene.inverse_depth_01)[layer[4] > 0].all())
    assert simulate_capture(setup).shape[-2:] == (40, 40)


def test_a_source_mixes_predictions_and_bank_by_its_share(prediction):
    g = np.random.default_rng(0)
    both, scene = SceneSource([prediction], [bank_scene()], 0.3), [bank_scene()]
    assert np.mean([both.is_of_bank(g) for _ in range(500)]) == pytest.approx(0.3, abs=0.06)
    assert SceneSource((), scene).is_of_bank(g) and not SceneSource([prediction]).is_of_bank(g)


def test_a_wrong_camera_is_told_and_rounded_distances_too(prediction):
    setup = random_sample_setup(SceneSource([prediction]), (0, 0), 40)
    rounded = setup._replace(disturbance=Disturbance.none(len(setup.focus_m))._replace(rounded_focus=True),
                             focus_m=torch.tensor([0.234, 0.567]), camera=Camera(0.01, 2.0, 1e-5))  # fmt: skip
    assert rounded.told_focus_m.tolist() == pytest.approx([0.23, 0.57])
