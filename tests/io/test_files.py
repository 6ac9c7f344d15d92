"""Files that are whole or not there."""

import json

import pytest

from sfdfd.io.files import atomic_write, readable, write_json


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path) as part:
        part.write_text("new")
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "new"


def test_json_is_strict_and_takes_names_that_are_no_text(tmp_path):
    name = b"ca\xff".decode("utf-8", "surrogateescape")
    write_json(tmp_path / "a.json", {"nan": float("nan"), "inf": float("inf"), "list": [1, (2.5,)], "name": name})
    text = (tmp_path / "a.json").read_bytes().decode()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == {"nan": None, "inf": "inf", "list": [1, [2.5]], "name": readable(name)}
    readable(name).encode()
