"""Atomic writes and strict JSON."""

import json

import pytest

from sfdfd.io.files import atomic_write, readable, write_json


def test_atomic_write_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path) as part:
        part.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "new"


def test_json_is_strict_and_accepts_undecodable_names(tmp_path):
    name = b"ca\xff".decode("utf-8", "surrogateescape")
    write_json(tmp_path / "a.json", {"nan": float("nan"), "inf": float("inf"), "list": [1, (2.5,)], "name": name})
    text = (tmp_path / "a.json").read_bytes().decode()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content == {"nan": None, "inf": "inf", "list": [1, [2.5]], "name": readable(name)}
    readable(name).encode()
