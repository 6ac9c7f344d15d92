"""Lists, and paths with spaces, commas, brackets and ``=``, on the command line and in multiruns."""

import csv
import errno
import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sfdfd.runs.command import _user_message, quote_value, unquote_value
from sfdfd.runs.comparison import compare_runs, write_comparison
from tests.commands import SMALL, ended, inside

PATHS = [
    "runs/plain", "a run with spaces", "one, two", "a=b", "run [1]", "run (1)", "it's mine", 'a "quote"', "{x}", "~/runs",
    "C:\\runs\\new", "ends\\", "a\\'b", "two\\\\'", "写真/größe", "x#y", " leading", "tab\there", "null",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_any_path_is_an_output_folder(path):
    parsed = OverridesParser.create().parse_override(f"hydra.run.dir={quote_value(path)}")
    assert parsed.value() == path and not parsed.is_sweep_override()


def test_what_is_quoted_stays_quoted():
    for given in ("'a, b'", '"a, b"'):
        assert quote_value(given) == given and unquote_value(given) == "a, b"
    assert unquote_value("'") == "'" and unquote_value("[1,2]") == "[1,2]"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.root=a (1)", "quote it twice: 'data.root=\"a (1)\"'"),
        ("data.root=a=b", "quote it twice: 'data.root=\"a=b\"'"),
        ("data.root=one, two", "quote it twice: 'data.root=\"one, two\"'"),
        ("data.root=it's", "quote it twice: "),
        ("data.focus_distances_m=1,2,4", "where it is a list, 'data.focus_distances_m=[1,2,4]'; where it is a sweep"),
        ("data.focus_distances_m=[1,2],[3,4]", "give -m for a sweep"),
    ],
)
def test_what_cannot_be_read_says_what_to_write(override, words, tmp_path):
    done = ended("train", "experiment=procedural", override, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.code == 2 and line.startswith(f"sfdfd: {override.split('=')[0]}") and words in line
    assert "hydra.cc" not in line and not list(tmp_path.iterdir())


def test_a_folder_named_after_too_many_overrides_says_how_to_number_the_jobs():
    name = "sweep/" + ",".join(f"key.number{index}=1" for index in range(30))
    words = _user_message(OSError(errno.ENAMETOOLONG, "File name too long", name))
    assert words.endswith("number the jobs instead: hydra.sweep.subdir='${hydra.job.num}'")
    assert "hydra" not in _user_message(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300))


def a_sweep(folder, key, values):
    """What Hydra and two jobs leave that vary one key."""
    (folder / "multirun.yaml").write_text(
        json.dumps({"hydra": {"overrides": {"task": [f"{key}={','.join(values)}", "seed=0"]}}})
    )
    for number, value in enumerate(values):
        run = folder / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(json.dumps([f"{key}={value}", "seed=0"]))
        (run / "metrics.json").write_text(json.dumps({"depth/abs_rel": 0.1 * (number + 1), "samples": 2}))


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("data.root", ['"one folder"', '"two, (2)"'], ["one folder", "two, (2)"]),
        ("+data.cache", ["'a b'", "c"], ["a b", "c"]),
        ("data.focus_distances_m", ["[1,2,4]", "[0.5,3]"], ["[1,2,4]", "[0.5,3]"]),
        ("logger", ["csv", "none"], ["csv", "none"]),
    ],
)
def test_a_comparison_shows_whatever_was_swept(tmp_path, key, values, shown):
    a_sweep(tmp_path, key, values)
    rows = compare_runs([tmp_path])
    write_comparison(rows, tmp_path)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        assert [row[key.lstrip("+")] for row in csv.DictReader(file)] == shown
    assert "seed" not in rows[0]


@pytest.mark.slow
def test_lists_and_paths_with_spaces_are_swept(tmp_path):
    inside(
        "train", "-m", "experiment=procedural", "data.focus_distances_m=[1,2,4],[0.8,1.5,3,6]",
        'data.cache="cache one","cache, (2)"', "trainer.max_steps=1", *SMALL, "output_dir=a sweep, [1]", cwd=tmp_path,
    )  # fmt: skip
    with (tmp_path / "a sweep, [1]" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["data.focus_distances_m"], row["data.cache"]) for row in rows} == {
        (distances, cache) for distances in ("[1,2,4]", "[0.8,1.5,3,6]") for cache in ("cache one", "cache, (2)")
    }
    assert all(float(row["depth/abs_rel"]) > 0 for row in rows)
    assert (tmp_path / "cache one").is_dir() and (tmp_path / "cache, (2)").is_dir()
