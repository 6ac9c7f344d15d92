"""Cameras whose f-number differs from slice to slice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.optics.depth import one_sided_range
from sfdfd.optics.render import defocus_map_px

NUMBERS, FOCUS = (2.0, 11.0, 4.0), torch.tensor([1.5, 1.5, 2.5])
CAMERA = Camera(0.05, NUMBERS, 4e-5)
DEPTH_M = torch.linspace(0.8, 6.0, 20 * 24).reshape(1, 20, 24)
AIF = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("as_array", [torch.Tensor.numpy, lambda value: value])
def test_radii_are_the_thin_lens_formula_with_each_slices_aperture(shape, as_array):
    """f^2 / (2 N p) |1/F - 1/d| / (1 - f/F), the slices along whatever axis the focus distances have."""
    depth = 4.0
    found = CAMERA.blur_radius_px(depth, as_array(FOCUS.double().reshape(shape)))
    f, focus, number = 0.05, FOCUS.double().numpy(), np.array(NUMBERS)
    expected = f**2 / (2 * number * 4e-5) * np.abs(1 / focus - 1 / depth) / (1 - f / focus)
    assert tuple(found.shape) == shape and np.asarray(found).ravel() == pytest.approx(expected, rel=1e-12)


def test_equal_f_numbers_are_one_number():
    assert Camera(0.05, [8.0, 8, 8.0], 1e-5) == Camera(0.05, 8.0, 1e-5)
    assert Camera(0.05, [2, np.float64(8.0)], 1e-5) == Camera(0.05, (2.0, 8.0), 1e-5)
    assert not Camera(0.05, 8.0, 1e-5).brackets_aperture and Camera(0.05, (8, 4), 1e-5).brackets_aperture


def test_a_cameras_slices_can_be_taken_and_written_down():
    assert CAMERA.with_slices([1, 0]).f_number == (11.0, 2.0) and CAMERA.with_slices([2]).f_number == 4.0
    assert [camera.f_number for camera in CAMERA.per_slice(3)] == list(NUMBERS)
    assert Camera(**CAMERA.as_dict()) == CAMERA and CAMERA.as_dict()["f_number"] == list(NUMBERS)
    assert CAMERA.widest().f_number == 2.0 and CAMERA.blur_scale_px_m == CAMERA.per_slice(3)[0].blur_scale_px_m
    assert CAMERA.resized(0.5).blur_scale_px_m == pytest.approx(CAMERA.blur_scale_px_m / 2)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_slices_is_refused(count):
    with pytest.raises(InputError, match=f"expected one number, or {count}, one per slice, got 3"):
        CAMERA.blur_radius_px(2.0, torch.full((count,), 1.5))
    with pytest.raises(InputError, match="one per slice"):
        DefocusRenderer(weighting="occlusion")(AIF, DEPTH_M, torch.full((count,), 1.5), CAMERA)


@pytest.mark.parametrize("numbers", [(2.0, 0.0), (2.0, float("nan")), (), ("a", 2.0)])
def test_each_f_number_is_checked(numbers):
    with pytest.raises(InputError, match=r"camera\.f_number"):
        Camera(0.05, numbers, 4e-5)


OCCLUSION = DefocusRenderer(psf="disc", weighting="occlusion", linear_light=True, level_px=0.2, layers=300)
RENDERERS = {
    "source": DefocusRenderer(sigma_scale=0.5, method="exact"),
    "target": DefocusRenderer(sigma_scale=0.5, weighting="target", method="exact"),
    "disc in linear light": DefocusRenderer(psf="disc", linear_light=True, method="exact"),
    "occlusion": OCCLUSION,
    "occlusion, draft": OCCLUSION.draft(),
}


@pytest.mark.parametrize("name", RENDERERS)
def test_every_slice_is_rendered_as_by_a_camera_of_its_aperture(name):
    """Occlusion's levels depend on the slice that blurs most, so it agrees to their interpolation error."""
    renderer = RENDERERS[name]
    together = renderer(AIF, DEPTH_M, FOCUS, CAMERA)
    apart = [renderer(AIF, DEPTH_M, FOCUS[i : i + 1], lens) for i, lens in enumerate(CAMERA.per_slice(3))]
    tolerance = 0.01 if name.startswith("occlusion") else 1e-5
    assert float((together - torch.cat(apart, 1)).abs().mean()) < tolerance
    wrong = renderer(AIF, DEPTH_M, FOCUS, CAMERA.widest())  # what the tolerance has to tell apart
    assert float((together - wrong).abs()[:, 1].mean()) > 5 * tolerance


@pytest.mark.parametrize("name", RENDERERS)
def test_equal_f_numbers_change_no_bit(name):
    one, three = Camera(0.05, 4.0, 4e-5), Camera(0.05, (4.0, 4.0, 4.0), 4e-5)
    assert torch.equal(RENDERERS[name](AIF, DEPTH_M, FOCUS, one), RENDERERS[name](AIF, DEPTH_M, FOCUS, three))


def test_samples_of_a_batch_have_their_own_apertures():
    other = replace(CAMERA, f_number=5.6)
    depth_m = torch.cat([DEPTH_M, DEPTH_M.flip(-1)])
    maps = defocus_map_px(depth_m, FOCUS, [CAMERA, other])
    assert torch.equal(maps[:1], defocus_map_px(depth_m[:1], FOCUS, CAMERA))
    assert torch.equal(maps[1:], defocus_map_px(depth_m[1:], FOCUS, other))
    assert torch.equal(defocus_map_px(depth_m, FOCUS, CAMERA), defocus_map_px(depth_m, FOCUS, [CAMERA, CAMERA]))


def test_a_range_is_cut_at_the_focus_distance():
    assert one_sided_range(0.5, 8.0, 2.0) == (2.0, 8.0, "behind")
    assert one_sided_range(0.5, 8.0, 2.0, "before") == (0.5, 2.0, "before")
    assert one_sided_range(3.0, 8.0, 2.0) == (3.0, 8.0, "behind") and one_sided_range(0.5, 1.5, 2.0)[2] == "before"
    for arguments in ((3.0, 8.0, 2.0, "before"), (0.5, 1.5, 2.0, "behind")):
        with pytest.raises(InputError, match="does not reach"):
            one_sided_range(*arguments)
    with pytest.raises(InputError, match="side: expected behind or before"):
        one_sided_range(0.5, 8.0, 2.0, "left")
