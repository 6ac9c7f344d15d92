"""Values in error messages."""

import pytest

from sfdfd.errors import InputError, checked_number, short_repr


def test_long_and_deep_values_are_cut_in_messages():
    nested = [1]
    for _ in range(60):
        nested = [nested] * 9  # as YAML aliases do: small in memory, endless when printed
    assert (
        len(short_repr(nested)) < 220
        and len(short_repr("long" * 1000)) < 220
        and len(short_repr({i: i for i in range(999)})) < 220
    )
    assert short_repr(16**5000) == "a whole number of more than 40 digits"
    assert [short_repr(value) for value in (0.5, "x", [1, None], True)] == ["0.5", "'x'", "[1, None]", "True"]
    with pytest.raises(InputError, match=r"near_m: expected a positive number, got \[\["):
        checked_number(nested, "near_m")
