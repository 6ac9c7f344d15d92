"""Which slices of a long stack say most."""

import numpy as np
import pytest

from sfdfd.errors import InputError
from sfdfd.photographs.slice_selection import count_to_use, equal_sharpness_steps, sharpness


def test_count_to_use():
    assert [count_to_use("auto", n) for n in (5, 12, 50)] == [5, 12, 12]
    assert (count_to_use("all", 50), count_to_use(3, 50)) == (50, 3)
    for wrong in (1, 51, "some", None, True, 2.5):
        with pytest.raises(InputError, match="slices"):
            count_to_use(wrong, 50)


def test_blur_lowers_sharpness_and_exposure_does_not():
    image = np.random.default_rng(0).uniform(0.2, 0.8, (64, 96, 3))
    blurred = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / 3
    sharp = sharpness(image)
    assert sharp.shape == (80,) and (sharpness(blurred) < 0.7 * sharp).all()
    np.testing.assert_allclose(sharpness(0.5 * image), sharp, rtol=0.1)


def test_slices_are_selected_in_steps_of_equal_change():
    """Twenty slices, of which the scene's depth takes six: these are chosen, and the ends."""
    place = np.linspace(0, 1, 6)
    sharp = [np.exp(-(((np.clip(index - 7, 0, 5) / 5 - place) / 0.2) ** 2)) for index in range(20)]
    chosen = equal_sharpness_steps(sharp, 6)
    assert np.clip(chosen, 7, 12).tolist() == [7, 8, 9, 10, 11, 12]
    assert equal_sharpness_steps(sharp, 20) == list(range(20))
    assert equal_sharpness_steps([np.ones(4)] * 9, 3) == [0, 4, 8]  # nothing changes: evenly
