"""Focus distances in maker notes."""

import os
import shutil
import stat

import numpy as np
import pytest

from sfdfd.io.formats.maker_notes import maker_note_distances
from sfdfd.photographs.read import read_photographs
from tests.io.formats.encoders import write_canon

IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for index, centimetres in enumerate((35, 120, 65535)):
        write_canon(tmp_path / f"{index}.jpg", IMAGE, centimetres)
    return tmp_path


@pytest.mark.skipif(shutil.which("exiftool") is not None, reason="exiftool comes before exifread")
def test_exifread_reads_canon_distances(folder):
    pytest.importorskip("exifread")
    photographs = read_photographs(folder)
    assert photographs.focus_distances_m == pytest.approx((0.35, 1.2, np.inf))
    assert photographs.sources["focus_distances_m"] == "the maker's notes, by exifread"


def test_other_sources_take_precedence_over_maker_notes(folder):
    (folder / "dioptres.txt").write_text("4\n2\n1\n")
    assert read_photographs(folder).focus_distances_m == (0.25, 0.5, 1)


def test_exiftool_bounds_become_a_distance_and_its_std(folder, tmp_path, monkeypatch):
    """A stand-in program prints what exiftool's manual describes: JSON, metres, "inf"."""
    pytest.importorskip("exifread")
    program = tmp_path / "bin" / "exiftool"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nprintf \'[{"FocusDistanceLower": 0.4, "FocusDistanceUpper": 0.5}, {"FocusDistance": 1.5}, '
        '{"FocusDistanceLower": 4, "FocusDistanceUpper": "inf"}]\'\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    photographs = read_photographs(folder)
    assert photographs.focus_distances_m == pytest.approx((1 / 2.25, 1.5, 8))
    assert photographs.focus_std_dpt == pytest.approx((0.5 / 12**0.5, 0, 0.25 / 12**0.5))
    assert "exiftool" in photographs.sources["focus_distances_m"]
    program.write_text("#!/bin/sh\necho broken\n")
    assert maker_note_distances([folder / "0.jpg"]) is None
