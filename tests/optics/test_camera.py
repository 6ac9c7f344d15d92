"""The camera in SI units."""

import math

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.optics import Camera


def formula(f, n, p, focus, depth):
    """FIELD's form: r = f/N * f/(F-f) * |d-F|/d / (2p)."""
    return f / n * f / (focus - f) * abs(depth - focus) / depth / (2 * p)


@pytest.mark.parametrize("depth", [0.3, 1.0, 2.5, 9.0])
@pytest.mark.parametrize("focus", [0.4, 1.0, 6.0])
def test_blur_radius_is_the_thin_lens_formula(camera, depth, focus):
    expected = formula(0.05, 8.0, 1.2e-5, focus, depth)
    assert camera.blur_radius_px(depth, focus) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert camera.blur_radius_px(np.array([depth]), focus)[0] == pytest.approx(expected, abs=1e-12)
    tensor = torch.tensor([depth], dtype=torch.float64)
    assert float(camera.blur_radius_px(tensor, focus)[0]) == pytest.approx(expected, abs=1e-12)


def test_sign_tells_behind_from_before_the_focus(camera):
    assert camera.blur_radius_px(3.0, 2.0, signed=True) > 0 > camera.blur_radius_px(1.5, 2.0, signed=True)
    assert camera.blur_radius_px(2.0, 2.0) == 0
    assert camera.blur_radius_px(focus_distance_m=2.0, depth_m=1.5) == camera.blur_radius_px(1.5, 2.0) > 0


def test_infinite_focus_and_depth_are_limits(camera):
    assert camera.blur_radius_px(2.0, math.inf) == pytest.approx(camera.blur_radius_px(2.0, 1e12), rel=1e-9)
    assert camera.blur_radius_px(math.inf, 2.0) == pytest.approx(camera.blur_radius_px(1e12, 2.0), rel=1e-9)
    assert camera.blur_radius_px(math.inf, math.inf) == 0


def test_resizing_scales_the_blur_with_the_image(camera):
    half = camera.resized(0.5)
    assert half.pixel_pitch_m == pytest.approx(2.4e-5)
    assert half.blur_radius_px(3.0, 1.0) == pytest.approx(camera.blur_radius_px(3.0, 1.0) / 2)
    with pytest.raises(InputError, match="equal scales"):
        camera.resized((0.5, 0.4))


@pytest.mark.parametrize("scale", [0.0, -0.5, math.nan, (0.0, 0.5), (0.5, 0.0), (-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5)])
def test_a_scale_that_is_not_positive_is_refused(camera, scale):
    with pytest.raises(InputError, match="expected positive scales"):
        camera.resized(scale)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, True])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_camera_rejects_values_that_are_not_positive_numbers(bad, position):
    values = [0.05, 8.0, 1e-5]
    values[position] = bad
    with pytest.raises(InputError, match="expected a positive number"):
        Camera(*values)


def test_camera_is_immutable_and_comparable(camera):
    with pytest.raises(AttributeError):
        camera.f_number = 2.0
    assert camera == Camera(0.05, 8, 1.2e-5) and hash(camera) == hash(Camera(0.05, 8, 1.2e-5))


def test_focus_inside_the_focal_length_names_both_and_the_key(camera):
    message = r"focus distance 0.03 m lies inside the focal length 0.05 m.*optics.camera.focal_length_m"
    with pytest.raises(InputError, match=message):
        camera.blur_radius_px(1.0, 0.03)
    with pytest.raises(InputError, match=message):
        camera.blur_radius_px(torch.ones(2), torch.tensor([1.0, 0.03]))
    for depth in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="positive metres"):
            camera.blur_radius_px(torch.tensor([1.0, depth]), 2.0)
