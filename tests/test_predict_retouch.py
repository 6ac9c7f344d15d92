"""Strokes in the command and in Python: a second prediction applies them again."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.inference.predict_photographs import predict_photographs
from sfdfd.io.retouch_file import Retouch
from tests.commands import inside, one_line

QUICK = ["refine.steps=2", "align.mode=false", "align.exposure=false", "threads=1"]
NAMES = ["0.png", "1.png", "2.png"]
BOX = {"points": [[10, 6], [30, 6], [30, 20], [10, 20]], "radius_px": 0.01, "fill": True}
STROKES = [
    {"operation": "distance", "depth": 2.5, **BOX}, {"operation": "slice", "slice": 2, **BOX},
    {"operation": "background", "depth": 1.5},
]  # fmt: skip


def written(path, strokes, **keys):
    path.write_text(json.dumps({"size": [30, 42], "slices": NAMES, "strokes": strokes, **keys}))
    return path


def read(folder):
    facts = json.loads((folder / "prediction.json").read_text())
    return np.load(folder / "depth_m.npy"), iio.imread(folder / "aif.png"), facts


def test_a_second_run_applies_the_strokes_and_a_third_without_them_is_the_first(photographs_folder, tmp_path):
    def predicted(folder, *arguments):
        inside("predict", f"stack='{photographs_folder}'", *QUICK, f"output_dir={folder}", *arguments, cwd=tmp_path)
        return read(tmp_path / folder)

    plain_depth_m, plain_aif, facts = predicted("p")
    assert facts["retouch"] is None and not (tmp_path / "p" / "retouched.png").exists()
    written(tmp_path / "none.json", [])
    depth_m, aif, facts = predicted("n", "retouch=none.json")
    assert (
        np.array_equal(depth_m, plain_depth_m) and np.array_equal(aif, plain_aif) and facts["retouch"]["strokes"] == {}
    )
    written(tmp_path / "retouch.json", STROKES)
    depth_m, aif, facts = predicted("r", "retouch=retouch.json")
    np.testing.assert_allclose(depth_m[6:20, 10:30], 2.5, rtol=1e-6)
    assert np.array_equal(aif[6:20, 10:30], iio.imread(photographs_folder / "2.png")[6:20, 10:30])
    outside = np.ones((30, 42), bool)
    outside[6:20, 10:30] = False
    assert np.array_equal(depth_m[outside], plain_depth_m[outside]) and np.array_equal(aif[outside], plain_aif[outside])
    assert facts["retouch"]["strokes"] == {"distance": 1, "slice": 1, "background": 1}
    assert facts["retouch"]["depth_share"] == pytest.approx(280 / 1260)
    picture = iio.imread(tmp_path / "r" / "retouched.png")
    assert np.array_equal(picture[depth_m <= 1.5], aif[depth_m <= 1.5]) and not np.array_equal(picture, aif)
    kept = Retouch.read(tmp_path / "r" / "retouch.json")
    assert kept == Retouch.read(tmp_path / "retouch.json")
    again = predicted("r", "retouch=r/retouch.json")
    assert np.array_equal(again[0], depth_m) and np.array_equal(again[1], aif)
    last = predicted("r")
    assert np.array_equal(last[0], plain_depth_m) and not (tmp_path / "r" / "retouched.png").exists()
    assert Retouch.read(tmp_path / "r" / "retouch.json") == kept  # a person made it: it stays


def test_python_applies_strokes_at_once_or_afterwards(photographs_folder):
    options = {"refine_steps": 2, "align": False}
    content = {"size": [60, 84], "slices": NAMES, "strokes": [{**STROKES[1], "points": [[40, 20]], "radius_px": 12}]}
    plain = predict_photographs(photographs_folder, **options)
    at_once = predict_photographs(photographs_folder, **options, retouch=content)
    afterwards = plain.retouched(Retouch.parse(content))
    assert torch.equal(at_once.aif, afterwards.aif) and not torch.equal(at_once.aif, plain.aif)
    assert torch.equal(afterwards.retouched({**content, "strokes": []}).aif, plain.aif)
    assert afterwards.picture is None and afterwards.facts["retouch"]["strokes"] == {"slice": 1}
    assert plain.facts["retouch"] is None


RELATIVE = [{"operation": "background", "depth": 0.5}]


@pytest.mark.parametrize(("keys", "words"), [
    ({"strokes": [{"operation": "slice", "slice": 7, **BOX}]}, "strokes[0].slice: expected a whole number from 0 to 2"),
    ({"slices": ["x.png", "1.png", "2.png"], "strokes": [{"operation": "slice", "slice": 0, **BOX}]}, "slice 0 (x.png)"),
    ({"size": [42, 30]}, "retouch: size"), ({"unit": "relative", "strokes": RELATIVE}, "retouch: unit"),
    ({"strokes": [{"operation": "distance", "depth": 0.04, **BOX}]}, "beyond the focal length"),
])  # fmt: skip
def test_strokes_that_do_not_fit_are_one_line_before_any_refinement(photographs_folder, tmp_path, keys, words):
    written(tmp_path / "retouch.json", **{"strokes": [], **keys})
    arguments = [*QUICK, "retouch=retouch.json", "output_dir=p"]
    done = inside("predict", f"stack='{photographs_folder}'", *arguments, cwd=tmp_path, expect=2)
    assert words in one_line(done.stderr) and "refin" not in done.stdout


def test_one_file_is_of_one_stack_and_must_exist(photographs_folder, tmp_path):
    done = inside("predict", f"stacks='{photographs_folder.parent}'", "retouch=x.json", cwd=tmp_path, expect=2)
    assert "one file is of one stack" in one_line(done.stderr)
    with pytest.raises(InputError, match="no such file"):
        predict_photographs(photographs_folder, retouch="x.json")
