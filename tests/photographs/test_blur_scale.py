"""An unknown camera's one number."""

import numpy as np
import pytest

from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.blur_scale import camera_for, estimate_blur_scale, scale_std
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def scene():
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=0.5, method="exact"), CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(4, synthesis, seed=0, height=96, width=112)[1]


@pytest.mark.slow
def test_the_blur_scale_is_estimated_within_five_percent(scene):
    found = estimate_blur_scale(
        scene.images[0], scene.focus_distances_m[0], 0.5, 10.0, RENDERER, focal_length_m=0.05, patches=2, patch_px=48
    )
    assert found.value_px_m == pytest.approx(CAMERA.blur_scale_px_m, rel=0.05)
    assert len(found.patches_px_m) == 2


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
