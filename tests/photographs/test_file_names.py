"""Focus distances in file names."""

import numpy as np
import pytest

from sfdfd.photographs.file_names import ambiguous_distances, numbers_in_names


def assert_distances(numbers, metres, with_unit):
    assert [number.metres for number in numbers] == pytest.approx(metres)
    assert any(number.unit is not None for number in numbers) == with_unit


@pytest.mark.parametrize(("names", "expected"), [
    (["image_1_0.35", "image_2_0.50", "image_3_2.21"], ([0.35, 0.5, 2.21], False)),
    (["a 50cm", "b 120cm", "c 3m"], ([0.5, 1.2, 3.0], True)),
    (["f350mm_1", "f900mm_2"], ([0.35, 0.9], True)),
    (["s_0.5", "s_inf"], ([0.5, np.inf], False)),
    (["50mm_0.5m", "50mm_2m"], ([0.5, 2.0], True)),
    (["IMG_0001", "IMG_0002"], None), (["v1.5_1", "v1.5_2"], None), (["0.5", "b"], None),
])  # fmt: skip
def test_numbers_in_names(tmp_path, names, expected):
    found = numbers_in_names([tmp_path / f"{name}.jpg" for name in names])
    if expected is None:
        assert found is None
    else:
        assert_distances(found, *expected)


@pytest.mark.parametrize(("names", "expected"), [
    (["0,35m", "1,2m", "3m"], ([0.35, 1.2, 3.0], True)), (["a_0,35", "b_2,50"], ([0.35, 2.5], False)),
    (["0_35m", "0_50m", "1_20m"], ([0.35, 0.5, 1.2], True)),  # a counter does not stay
    (["0_35m", "1_20m", "inf"], ([0.35, 1.2, np.inf], True)),  # nor leave a file out
    (["01_35cm", "02_70cm"], ([0.35, 0.7], True)), (["1_350mm", "2_900mm"], ([0.35, 0.9], True)),
])  # fmt: skip
def test_decimal_commas_and_underscores(tmp_path, names, expected):
    assert_distances(numbers_in_names([tmp_path / f"{name}.jpg" for name in names]), *expected)


@pytest.mark.parametrize("names", [["0_35m", "1_20m", "2_50m"], ["IMG_3_5m", "IMG_4_7m"], ["0_35m", "1_20m", "2_inf"]])
def test_names_that_may_hold_counters_are_ambiguous(tmp_path, names):
    """0_35m is 0.35 m, or 35 m of file number 0."""
    files = [tmp_path / f"{name}.jpg" for name in names]
    assert numbers_in_names(files) is None and "ambiguous" in ambiguous_distances(files)
    assert ambiguous_distances([tmp_path / "0_35m.jpg", tmp_path / "0_50m.jpg"]) is None
