"""Completing partial camera settings."""

import pytest

from sfdfd.scenes.raytraced.camera_setups import PRESETS, CameraSetup


def test_missing_settings_are_completed():
    dslr = PRESETS["dslr"]
    bare = CameraSetup.of({}, 320)
    assert bare.camera.pixel_pitch_m == 0.0001125 and bare.focus_distances_m == dslr.focus_distances_m
    ranged = CameraSetup.of({"near_m": 0.3, "far_m": 4.0}, 320)
    assert (
        ranged.focus_distances_m[0] == 0.4
        and ranged.focus_distances_m[-1] == 3.0
        and len(ranged.focus_distances_m) == 5
    )
    assert len(CameraSetup.of({}, 320, slices=3).focus_distances_m) == 3
    focused = CameraSetup.of({"focus_distances_m": [1.0, 2.0]}, 320)
    assert (focused.near_m, focused.far_m) == pytest.approx((0.6, 3.4))
