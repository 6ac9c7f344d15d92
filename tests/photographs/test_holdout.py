"""Which slices are kept aside."""

import pytest

from sfdfd.errors import InputError
from sfdfd.photographs.holdout import parse_holdout, remaining


@pytest.mark.parametrize(("holdout", "number", "expected"), [
    (None, 5, ()), (0, 5, ()), ([], 5, ()), ([3, 1], 5, (1, 3)), ([0, 4], 5, (0, 4)),
    (1, 5, (2,)), (2, 5, (1, 3)), (3, 5, (1, 2, 3)), (1, 3, (1,)), (4, 10, (1, 3, 5, 7)),
])  # fmt: skip
def test_holdout_takes_indices_and_spreads_a_count(holdout, number, expected):
    assert parse_holdout(holdout, number) == expected
    assert sorted((*expected, *remaining(expected, number))) == list(range(number))


def test_a_count_never_leaves_out_the_first_or_last_in_focus():
    """In the order of focus, which need not be that of the names."""
    assert parse_holdout(2, 4, [2.0, float("inf"), 0.5, 1.0]) == (0, 3)
    for number in range(3, 12):
        for count in range(number - 1):
            found = parse_holdout(count, number)
            assert len(found) == count and 0 not in found and number - 1 not in found


@pytest.mark.parametrize(("holdout", "message"), [
    ([5], "from 0 to 4"), ([-1], "from 0 to 4"), ([1, 1], "twice"), ([0, 1, 2, 3], "at least two"), (4, "at least two"),
    (-1, "0 to 3"), (["a"], "'a'"), ("ab", "'ab'"), ([1.5], "1.5"), (True, "True"), ([True], "True"), (1.5, "1.5"),
    ({"a": 1}, "indices"),
])  # fmt: skip
def test_invalid_holdouts_are_refused(holdout, message):
    with pytest.raises(InputError, match=f"^holdout: .*{message}"):
        parse_holdout(holdout, 5)


def test_two_focus_distances_must_remain():
    with pytest.raises(InputError, match="focus distance 1 m"):
        parse_holdout([1], 3, [1.0, 2.0, 1.0])
