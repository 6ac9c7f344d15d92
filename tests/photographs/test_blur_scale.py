"""An unknown camera's one number."""

import numpy as np
import pytest
import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.blur_scale import camera_for, estimate_blur_scale, scale_std
from sfdfd.scenes.example_stack import example_stack

PHOTOGRAPHS = {"psf": "disc", "weighting": "occlusion", "linear_light": True}


@pytest.mark.parametrize(("renderer", "unit_m"), [(PHOTOGRAPHS, 1.0), ({"sigma_scale": 0.5}, 1.0), (PHOTOGRAPHS, 0.37)])
def test_the_blur_scale_is_estimated_within_eight_percent(renderer, unit_m):
    """In metres and in another unit of length, as relative stacks have it."""
    stack = example_stack(0, 144, 192, **renderer)
    focus = stack.focus_distances_m[0] / unit_m
    found = estimate_blur_scale(stack.images[0], focus, 0.5 / unit_m, 10.0 / unit_m, DefocusRenderer(**renderer))
    expected = stack.camera[0].blur_scale_px_m / unit_m
    assert found.value_px_m == pytest.approx(expected, rel=0.08)
    assert 0.01 < found.relative_std < 0.1 and len(found.tiles_px_m) > 4


def test_a_coarse_estimate_has_no_standard_error():
    stack = example_stack(0, 96, 128, **PHOTOGRAPHS)
    arguments = stack.images[0], stack.focus_distances_m[0], 0.5, 10.0, DefocusRenderer(**PHOTOGRAPHS)
    found = estimate_blur_scale(*arguments, fine=False)
    assert found.relative_std == np.inf and found.tiles_px_m == ()
    assert found.value_px_m == pytest.approx(stack.camera[0].blur_scale_px_m, rel=0.35)


def test_uncovered_pixels_do_not_count():
    stack = example_stack(0, 96, 128, **PHOTOGRAPHS)
    covered = torch.ones_like(stack.images[0, :, 0])
    covered[:, :, :30] = 0
    other = torch.where(covered[:, None] > 0, stack.images[0], 0.3)
    arguments = stack.focus_distances_m[0], 0.5, 10.0, DefocusRenderer(**PHOTOGRAPHS)
    found, again = (estimate_blur_scale(images, *arguments, covered=covered) for images in (stack.images[0], other))
    assert again.value_px_m == pytest.approx(found.value_px_m, rel=0.02)


@pytest.mark.parametrize("known", [{}, {"focal_length_m": 0.05}, {"focal_length_m": 0.05, "f_number": 8.0},
                                   {"focal_length_m": 0.05, "pixel_pitch_m": 1.2e-5}, {"f_number": 4.0}])  # fmt: skip
def test_a_camera_of_a_blur_scale_keeps_the_known_values(known):
    camera = camera_for(13.0, 1.0, **known)
    assert camera.blur_scale_px_m == pytest.approx(13.0)
    assert all(getattr(camera, key) == value for key, value in known.items())


def test_uncertain_distances_make_the_blur_scale_uncertain():
    """Against the slope of a regression on inverse distances that err, drawn many times."""
    inverse, std = np.array([5.0, 3.0, 2.0, 0.0]), 0.05
    drawn = inverse + np.random.default_rng(0).normal(0, std, (20000, 4))
    slopes = [np.polyfit(inverse, one, 1)[0] for one in drawn[:4000]]
    found = scale_std([1 / value if value else np.inf for value in inverse], [std] * 4)
    assert found == pytest.approx(np.std(slopes), rel=0.05) and scale_std([1.0, 2.0], None) == 0
