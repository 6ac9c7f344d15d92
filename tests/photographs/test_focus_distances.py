"""Which source of focus distances is believed, in which units, and how certain it is."""

import os
import stat

import numpy as np
import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.text_files import numbers_with_units
from sfdfd.photographs.distance_rounding import spread_equal_distances_m, widen_by_rounding
from sfdfd.photographs.read import read_photographs
from tests.io.formats.encoders import write_canon
from tests.io.test_images import DISTANCE, FLAT, save_with_exif

GUESSES = (0.4, 1.0, 3.0)


@pytest.fixture
def guessed(tmp_path):
    """Photographs whose phone guessed a subject distance; ``write`` names them and says what it guessed."""

    def write(*names, distances=GUESSES):
        for name, distance in zip(names, distances, strict=True):
            save_with_exif(tmp_path / f"{name}.jpg", **{DISTANCE: distance})
        return tmp_path

    return write


@pytest.mark.parametrize(("file", "content", "near"), [
    ("focus_distance.txt", "0.5\n1.25\n4\n", "0.41\n1.02\n3.1\n"), ("dioptres.txt", "2\n.8\n.25\n", "2.5\n1.02\n.333\n"),
    ("stack.yaml", "focus_distances_m: [0.5, 1.25, 4]\n", "focus_distances_m: [0.39, 1.02, 3.1]"),
])  # fmt: skip
def test_written_distances_take_precedence_over_exif(guessed, file, content, near):
    folder = guessed("a", "b", "c")
    (folder / file).write_text(content)
    found = read_photographs(folder)
    assert found.focus_distances_m == pytest.approx((0.5, 1.25, 4)) and found.sources["focus_distances_m"].endswith(
        file
    )
    (note,) = (note for note in found.notes if "disagree" in note)
    assert "3 of 3" in note and "EXIF subject distance 3 m" in note and "says 4 m for c.jpg" in note
    assert f"{file} was used" in note
    (folder / file).write_text(near)
    assert not [note for note in read_photographs(folder).notes if "disagree" in note]  # within 5 %


@pytest.mark.parametrize(
    "names", [("0.5m", "1.25m", "4m"), ("2dpt", "0.8_dpt", "0.25 dpt"), ("50_cm", "125 cm", "400cm")]
)
def test_names_with_units_take_precedence_over_exif(guessed, names):
    found = read_photographs(guessed(*sorted(names), distances=GUESSES))
    assert sorted(found.focus_distances_m) == pytest.approx([0.5, 1.25, 4])
    assert found.sources["focus_distances_m"] == "file names"
    assert any("EXIF subject distance" in note and "file names was used" in note for note in found.notes)


def test_decimals_in_names_take_precedence_only_if_exif_confirms_them(guessed):
    """``s_1.25`` may be a version or an exposure; near what EXIF guesses for all slices it is a distance."""
    folder = guessed("s_0.45", "s_1.25", "s_2.50")
    found = read_photographs(folder)
    assert found.focus_distances_m == (0.45, 1.25, 2.5) and found.sources["focus_distances_m"] == "file names"
    assert any("EXIF subject distance" in note for note in found.notes)
    for file in list(folder.iterdir()):
        file.unlink()
    guessed("v_2.1", "v_2.2", "v_2.3")
    found = read_photographs(folder)
    assert found.focus_distances_m == GUESSES and found.sources["focus_distances_m"] == "EXIF subject distance"
    assert any("file names" in note and "EXIF subject distance was used" in note for note in found.notes)
    found = read_photographs(
        folder, {"focus_unit": "dioptre"}
    )  # somebody says that they are distances, and in which unit
    assert found.focus_distances_m == pytest.approx((1 / 2.1, 1 / 2.2, 1 / 2.3))


def test_disagreeing_text_files_are_noted_and_unused_broken_ones_ignored(guessed):
    folder = guessed("a", "b", "c")
    (folder / "focus_distance.txt").write_text("0.4\n1\n3\n")
    (folder / "dioptres.txt").write_text("5\n1\n.3333\n")
    (note,) = read_photographs(folder).notes
    assert (
        "1 of 3 slices" in note and "0.2 m" in note and "dioptres.txt" in note and "focus_distance.txt was used" in note
    )
    (folder / "dioptres.txt").write_text("5\n1\n")
    assert read_photographs(folder).notes == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_files_in_encodings_of_windows_are_read(guessed, encoding):
    folder = guessed("a", "b", "c")
    (folder / "focus_distance.txt").write_bytes("0,5 m\r\n1,25 m\r\n∞\r\n".encode(encoding))
    (folder / "stack.yaml").write_bytes("# Höhe\r\ncamera: {f_number: 4}\r\n".encode(encoding))
    found = read_photographs(folder)
    assert found.focus_distances_m == (0.5, 1.25, np.inf) and found.camera["f_number"] == 4
    (folder / "focus_distance.txt").write_bytes(b"\xff1\n2\n3\n")
    with pytest.raises(InputError, match=r"focus_distance\.txt: not readable as text"):
        read_photographs(folder)


@pytest.mark.parametrize(("text", "expected"), [
    ("0.5 m\n50 cm\n2 dpt\n", [("0.5", "m"), ("50", "cm"), ("2", "dpt")]),
    ("0,5 m\n1,25m\ninf\n", [("0.5", "m"), ("1.25", "m"), ("inf", None)]),
    ("0.5 m, 50 cm, 2 dpt", [("0.5", "m"), ("50", "cm"), ("2", "dpt")]),
    ("# focus\n500mm # near\n\n1 metre\n2 1/m", [("500", "mm"), ("1", "metre"), ("2", "1/m")]),
    ("0.5,1,2", [("0.5", None), ("1", None), ("2", None)]), ("0,5 1,25 3", [("0.5", None), ("1.25", None), ("3", None)]),
    ("0,5; 1,25; 3", [("0.5", None), ("1.25", None), ("3", None)]),
    ("1,\n2,\n3,\n", [("1", None), ("2", None), ("3", None)]),
    ("1\n2 parsecs\n3", [("1", None), ("2 parsecs", None), ("3", None)]),
])  # fmt: skip
def test_numbers_with_units(text, expected):
    assert numbers_with_units(text, 3) == expected


def test_each_line_may_have_its_own_unit(guessed):
    folder = guessed("a", "b", "c")
    (folder / "focus_distance.txt").write_text("0.5 m\n120 cm\n0.25 dpt\n")
    assert read_photographs(folder).focus_distances_m == pytest.approx((0.5, 1.2, 4))
    (folder / "focus_distance.txt").write_text("20\n40\n2 m\n")
    found = read_photographs(folder, {"focus_distance_unit_m": 0.0254})
    assert found.focus_distances_m == pytest.approx((0.508, 1.016, 2))


@pytest.mark.parametrize(("names", "content", "given", "expected"), [
    (("a", "b"), ("dioptres.txt", "2\n1\n"), 0.05, (0.05, 0.05)),
    (("a", "b"), ("focus_distance.txt", "2 dpt\n1 dpt\n"), 0.05, (0.05, 0.05)),
    (("a", "b"), ("focus_distance.txt", "50 cm\n100 cm\n"), 1, (0.04, 0.01)),
    (("a", "b"), ("focus_distance.txt", "0.5\n1\n"), 0.01, (0.04, 0.01)),
    (("1dpt", "2dpt"), None, [0.1, 0.2], (0.1, 0.2)), (("100cm", "50 cm"), None, 2, (0.02, 0.08)),
    (("0.5m", "1m"), None, 0.01, (0.04, 0.01)),
])  # fmt: skip
def test_the_std_has_the_unit_of_the_distances(tmp_path, names, content, given, expected):
    """d(1/F) = dF / F^2 of lengths; of dioptres it is what was said."""
    for name in names:
        Image.fromarray(FLAT).save(tmp_path / f"{name}.png")
    if content is not None:
        (tmp_path / content[0]).write_text(content[1])
    found = read_photographs(tmp_path, {"focus_distances_std": given})
    by_name = dict(zip((file.stem for file in found.files), found.focus_std_dpt, strict=True))
    assert [by_name[name] for name in names] == pytest.approx(expected)


def test_rounded_distances_get_a_std_and_equal_neighbours_are_spread(tmp_path):
    pytest.importorskip("exifread")
    told = (6, 6, 6, 7, 7, 9, 65535)
    for index, centimetres in enumerate(told):
        write_canon(tmp_path / f"{index}.jpg", FLAT + np.uint8(index), centimetres)
    found = read_photographs(tmp_path)
    focus = np.array(found.focus_distances_m)
    assert (np.diff(focus) > 0).all() and np.isinf(focus[-1])
    assert (np.abs(focus[:-1] - np.array(told[:-1]) / 100) < 0.005).all() and focus[5] == pytest.approx(0.09)
    expected = [(1 / (value - 0.005) - 1 / (value + 0.005)) / np.sqrt(12) for value in np.array(told[:-1]) / 100]
    assert found.focus_std_dpt == pytest.approx([*expected, 0])
    assert any(note.startswith("5 slices") for note in found.notes)


@pytest.mark.parametrize("told", [
    [0.06, 0.06, 0.07], [0.07, 0.06, 0.06], [0.06, 0.07, 0.07, 0.06], [0.05, 0.05, 0.04, 0.04, 0.04], [1.5, 1.5, np.inf],
])  # fmt: skip
def test_spreading_is_monotone_and_stays_within_the_rounding(told):
    bounds = widen_by_rounding([(value, value) for value in told])
    spread = np.array(spread_equal_distances_m(told, bounds))
    for value, (near, far) in zip(spread, bounds, strict=True):
        assert near <= value <= far
    assert len(set(spread)) >= len(told) - (
        told == [0.06, 0.07, 0.07, 0.06]
    )  # equal but apart: two times the same plane
    turns = (np.diff(np.sign(np.diff([value for value in spread if np.isfinite(value)]))) != 0).sum()
    assert turns <= (np.diff(np.sign(np.diff(told))[np.diff(told) != 0]) != 0).sum()


def test_rounding_needs_two_multiples_of_a_step():
    assert widen_by_rounding([(0.4, 0.5), (1.5, 1.5)]) == [(0.4, 0.5), (1.5, 1.5)]
    assert widen_by_rounding([(0.7112, 0.7112), (1.5, 1.5)]) == [(0.7112, 0.7112), (1.5, 1.5)]
    assert widen_by_rounding([(0.711, 0.711), (1.5, 1.5)]) == [
        pytest.approx((0.7105, 0.7115)),
        pytest.approx((1.4995, 1.5005)),
    ]


@pytest.fixture
def exiftool(tmp_path, monkeypatch):
    """A program of that name that answers with the rows it was given."""

    def answer(*rows):
        folder = tmp_path / "photographs"
        folder.mkdir(exist_ok=True)
        for index in range(len(rows)):
            write_canon(folder / f"{index}.jpg", FLAT, 100)
        program = tmp_path / "bin" / "exiftool"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\ncat <<'END'\n[" + ", ".join(rows) + "]\nEND\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return read_photographs(folder)

    return answer


def test_the_largest_distance_of_canon_is_infinity(exiftool):
    found = exiftool(
        '{"FocusDistanceLower": 0.4, "FocusDistanceUpper": 0.5}', '{"FocusDistanceLower": 4, "FocusDistanceUpper": 655.35}',
        '{"FocusDistanceLower": 655.35, "FocusDistanceUpper": 655.35}',
    )  # fmt: skip
    assert found.focus_distances_m == pytest.approx((1 / 2.25, 8, np.inf))
    assert found.focus_std_dpt == pytest.approx((0.5 / 12**0.5, 0.25 / 12**0.5, 0))


def test_equal_intervals_of_canon_are_spread(exiftool):
    row = '{"FocusDistanceLower": 0.4, "FocusDistanceUpper": 0.5}'
    found = exiftool(row, row, '{"FocusDistanceLower": 0.5, "FocusDistanceUpper": 0.6}')
    assert 0.4 < found.focus_distances_m[0] < 1 / 2.25 < found.focus_distances_m[1] < 0.5


def test_the_second_distance_of_sony_is_marked_as_a_guess(exiftool):
    found = exiftool('{"FocusDistance2": 0.5}', '{"FocusDistance2": 2.0}', '{"FocusDistance2": "inf"}')
    assert found.focus_distances_m == (0.5, 2.0, np.inf) and "a guess" in found.sources["focus_distances_m"]
    assert found.focus_std_dpt == pytest.approx((0.6, 0.15, 0.1)) and any(
        "FocusDistance2" in note for note in found.notes
    )


@pytest.mark.parametrize("names", [("DSC_0012_M", "DSC_0013_M"), ("1_m", "2_m")])
def test_counters_before_m_are_not_distances(guessed, names):
    found = read_photographs(guessed(*names, distances=(1.0, 1.0)))
    assert found.focus_distances_m is None and "focus_distances_m" in found.missing
