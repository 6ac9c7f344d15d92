"""What holds for every published source."""

import sys
import zipfile

import pytest

from sfdfd.datasets import sources
from sfdfd.datasets.sources import FIRST, SOURCES
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import converted


def test_a_module_in_the_sources_package_adds_a_data_set(tmp_path, monkeypatch):
    assert list(SOURCES)[: len(FIRST)] == list(FIRST)
    (tmp_path / "another.py").write_text(
        "from dataclasses import replace\nfrom sfdfd.datasets.sources.nyu import NYU\n"
        "ANOTHER = replace(NYU, name='another')\n"
    )
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    try:
        assert list(sources.discover_sources()) == [*FIRST, *sorted({*SOURCES, "another"} - {*FIRST})]
    finally:
        sys.modules.pop("sfdfd.datasets.sources.another", None)
        vars(sources).pop("another", None)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_foreign_sources_are_refused_and_leave_nothing(name, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "readme.txt").write_text("nothing of the kind")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing of the kind")
    for source in ("foreign", "foreign.zip"):
        with pytest.raises(InputError, match="foreign"):
            converted(name, [tmp_path / source], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.part").exists()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_is_described(name):
    source = SOURCES[name]
    for key in ("title", "citation", "licence", "home", "size", "uncertain"):
        assert getattr(source, key), key
    assert source.files and source.layout in ("rgbd", "stacks") and callable(source.convert)
