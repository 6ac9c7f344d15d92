"""The strokes of retouch.json: what is read, what is refused and why, and strokes at another size."""

import json

import pytest

from sfdfd.errors import InputError
from sfdfd.io.retouch_file import Retouch

SLICE = {"operation": "slice", "slice": 1, "points": [[4, 5], [8.5, 5]], "radius_px": 3, "feather_px": 1.5}
PLANE = {"operation": "plane", "points": [[4, 5]], "radius_px": 3, "fill": True, "strength": 0.5}
DISTANCE = {"operation": "distance", "depth": 1.25, "points": [[4, 5]], "radius_px": 3}
BACKGROUND = {"operation": "background", "depth": 2.0, "aperture": 1.5}
FILE = {"size": [30, 40], "slices": ["a.png", "b.png", "c.png"], "strokes": [SLICE, PLANE, DISTANCE, BACKGROUND]}


def test_what_is_written_is_read_again(tmp_path):
    retouch = Retouch.parse(FILE)
    assert [stroke.operation for stroke in retouch.strokes] == ["slice", "plane", "distance", "background"]
    (tmp_path / "retouch.json").write_text(json.dumps(retouch.as_dict()))
    assert Retouch.read(tmp_path / "retouch.json") == retouch == Retouch.of(retouch) == Retouch.of(retouch.as_dict())
    assert Retouch.of(str(tmp_path / "retouch.json")) == retouch
    assert retouch.counts() == {"slice": 1, "plane": 1, "distance": 1, "background": 1}


def with_stroke(stroke, **changes):
    return {**FILE, "strokes": [SLICE, {**stroke, **changes}]}


@pytest.mark.parametrize(("content", "words"), [
    ([1], "expected an object"), ({"strokes": []}, "size is missing"), ({**FILE, "sizes": 1}, "unknown key 'sizes'"),
    ({**FILE, "size": [0, 40]}, "size: expected a whole number from 1"), ({**FILE, "size": 3}, "[height, width]"),
    ({**FILE, "format": "psd"}, "format: expected sfdfd-retouch"), ({**FILE, "version": 2}, "update sfdfd"),
    ({**FILE, "unit": "cm"}, "unit: expected m or relative"), ({**FILE, "slices": [1]}, "slices: expected file names"),
    ({**FILE, "strokes": {}}, "strokes: expected a list"), ({**FILE, "strokes": ["x"]}, "strokes[0]: expected an object"),
    (with_stroke(SLICE, operation="erase"), "strokes[1].operation: expected slice, plane, distance or background"),
    (with_stroke(SLICE, operation=None), "strokes[1].operation"),
    (with_stroke(SLICE, slice=3), "strokes[1].slice: expected a whole number from 0 to 2"),
    (with_stroke(SLICE, slice=None), "strokes[1]: slice is missing"),
    (with_stroke(SLICE, slice=True), "strokes[1].slice"),
    (with_stroke(SLICE, radius_px=0), "strokes[1].radius_px: expected a positive number"),
    (with_stroke(SLICE, radius_px=float("nan")), "strokes[1].radius_px"),
    (with_stroke(SLICE, feather_px=-1), "strokes[1].feather_px"), (with_stroke(SLICE, fill=1), "strokes[1].fill"),
    (with_stroke(SLICE, depth=1), "strokes[1]: unknown key 'depth'"),
    (with_stroke(SLICE, points=[]), "strokes[1].points: expected one point or more"),
    (with_stroke(SLICE, points=[[1, 2], [3]]), "strokes[1].points[1]: expected [x, y]"),
    (with_stroke(SLICE, points=[[1, float("inf")]]), "strokes[1].points[0]"),
    (with_stroke(PLANE, strength=1.5), "strokes[1].strength: expected a number of 0 or more, 1 at most"),
    (with_stroke(DISTANCE, depth=None), "strokes[1]: depth is missing"),
    (with_stroke(DISTANCE, depth=-2), "strokes[1].depth: expected a positive number"),
    ({**with_stroke(DISTANCE, depth=2), "unit": "relative"}, "strokes[1].depth: expected a number of 0 or more, 1 at most"),
    (with_stroke(BACKGROUND, aperture=0), "strokes[1].aperture"),
    ({**FILE, "strokes": [BACKGROUND, BACKGROUND]}, "one background at most"),
    (with_stroke(SLICE, points=[[1, 2]] * 9), "strokes: expected 10 points at most"),
])  # fmt: skip
def test_what_is_wrong_is_named_with_its_key(content, words, monkeypatch):
    monkeypatch.setattr("sfdfd.io.retouch_file.MOST_POINTS", 10)
    with pytest.raises(InputError) as caught:
        Retouch.parse(content)
    assert words in str(caught.value) and str(caught.value).startswith("retouch.json: ")


@pytest.mark.parametrize(
    ("text", "words"), [(None, "no such file"), ("{", "not readable as JSON"), ("[" * 99_999, "JSON")]
)
def test_a_file_that_is_none_is_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "retouch.json").write_text(text)
    with pytest.raises(InputError, match=words):
        Retouch.read(tmp_path / "retouch.json")


def test_strokes_scale_with_the_picture_and_only_with_the_same_picture():
    retouch = Retouch.parse(FILE)
    twice = retouch.scaled((60, 80))
    assert twice.strokes[0].points == ((8, 10), (17, 10)) and twice.strokes[0].radius_px == 6
    assert twice.strokes[0].feather_px == 3 and twice.strokes[2].depth == 1.25
    assert twice.scaled((30, 40)) == retouch and retouch.scaled((30, 40)) is retouch
    assert retouch.scaled((2 * 30, 2 * 40 + 1)).size == (60, 81)  # rounding to whole pixels
    with pytest.raises(InputError, match="painted on a picture of 40 x 30 pixels, but this one has 30 x 40"):
        retouch.scaled((40, 30))


def test_slices_are_found_by_name():
    retouch = Retouch.parse(FILE)
    assert retouch.for_slices(["b.png", "c.png"]).strokes[0].slice == 0
    assert retouch.for_slices(["a.png", "b.png", "c.png"]) == retouch
    with pytest.raises(InputError, match=r"strokes\[0\].slice: slice 1 \(b.png\) is not among the 2 slices"):
        retouch.for_slices(["a.png", "c.png"])
    unnamed = Retouch.parse({**FILE, "slices": []})
    assert unnamed.for_slices(["x", "y"]).strokes[0].slice == 1
    same = Retouch.parse({**FILE, "slices": ["a", "a", "a"]})
    assert same.for_slices(["a", "a", "a"]).strokes[0].slice == 1
    with pytest.raises(InputError, match="not among the 1 slices"):
        unnamed.for_slices(["x"])


def test_the_unit_matters_only_with_a_depth():
    Retouch.parse({**FILE, "strokes": [SLICE, PLANE]}).check_unit(relative=True)
    Retouch.parse(FILE).check_unit(relative=False)
    with pytest.raises(InputError, match="retouch: unit: the strokes have depths in 'm'"):
        Retouch.parse(FILE).check_unit(relative=True)
