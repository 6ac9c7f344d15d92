"""Sensor model: noise, exposure and misalignment of slices."""

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.scenes.sensor import SensorModel


def test_sensor_noise_has_its_variance_and_the_default_does_nothing():
    images = torch.full((2, 3, 64, 64), 0.36)
    assert SensorModel()(images, torch.Generator()) is images
    noisy = SensorModel(read_std=0.01, full_well=900.0)(images, torch.Generator().manual_seed(0))
    assert float(noisy.std()) == pytest.approx((0.01**2 + 0.36 / 900) ** 0.5, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(0.36, abs=1e-3)
    lit = SensorModel(exposure_std=0.05)(images.expand(2, 3, 64, 64), torch.Generator().manual_seed(1))
    assert lit[0].std() < 1e-6 and lit[0, 0, 0, 0] != lit[1, 0, 0, 0]


def test_misalignment_moves_slices_by_its_standard_deviation():
    x = torch.linspace(0, 1, 96)[None, None, None].expand(200, 3, 32, 96)
    moved = SensorModel(shift_px=0.5)(x, torch.Generator().manual_seed(0))
    shift = (moved - x)[:, 0, 16, 48] * 95  # the ramp rises by 1/95 a pixel
    assert float(shift.std()) == pytest.approx(0.5, rel=0.15) and abs(float(shift.mean())) < 0.15


@pytest.mark.parametrize("options", [{"read_std": -1}, {"full_well": 0}, {"shift_px": float("nan")}])
def test_impossible_sensors_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SensorModel(**options)
