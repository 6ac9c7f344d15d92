"""Splits: names of training, validation and test samples."""

import pytest

from sfdfd.datasets.splits import evenly_chosen, read_names, read_split_file
from sfdfd.errors import InputError


def test_names_may_contain_spaces(tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("my stack\n  other one \n\nthird\n")
    assert read_split_file(tmp_path, "val") == ["my stack", "other one", "third"]
    assert read_split_file(tmp_path, "test") is None and read_split_file(tmp_path, "all") is None
    with pytest.raises(InputError, match=r"none\.txt"):
        read_names(tmp_path / "none.txt")


def test_limited_names_are_evenly_spread():
    assert evenly_chosen("abcdefghi", 3) == ["a", "e", "i"] and evenly_chosen("ab", 3) == ["a", "b"]
    with pytest.raises(InputError, match=r"data\.limit"):
        evenly_chosen("abc", 0)
