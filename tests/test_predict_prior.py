"""``predict prior=FILE``: what the command prints, writes and refuses."""

import json

import numpy as np
import pytest

from tests.commands import ended, inside, one_line


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished prediction of the example, without refinement."""
    folder = tmp_path_factory.mktemp("first")
    inside("predict", "stack=example", "refine.seconds=0", "output_dir=p", cwd=folder)
    return folder / "p"


def predicted(prior, folder, *overrides):
    done = inside(
        "predict", "stack=example", f"prior='{prior}'", "refine.seconds=0", "output_dir=q", *overrides, cwd=folder
    )
    return done, json.loads((folder / "q" / "prediction.json").read_text())["prior"]


def test_a_finished_prediction_is_a_prior(first, tmp_path):
    done, facts = predicted(first, tmp_path)
    assert "prior: " in done.stdout and "explains" in done.stdout
    assert facts["kind"] == "depth" and facts["explained_share"] > 0.9


def test_a_map_of_noise_changes_nothing(first, tmp_path):
    depth_m = np.load(first / "depth_m.npy")
    noise = np.random.default_rng(0).uniform(1, 10, depth_m.shape).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    done, facts = predicted(tmp_path / "noise.npy", tmp_path)
    assert "not used" in done.stdout and not facts["used"]
    np.testing.assert_array_equal(np.load(tmp_path / "q" / "depth_m.npy"), depth_m)


@pytest.mark.parametrize(("name", "content"), [("none.npy", None), ("broken.npy", b"no array")])
def test_a_map_that_cannot_be_read_is_refused_in_one_line(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = ended("predict", "stack=example", f"prior={name}", "refine.seconds=0", "output_dir=q", cwd=tmp_path)
    assert done.code != 0 and name in one_line(done.stderr)
    assert not (tmp_path / "q").exists() or not list((tmp_path / "q").glob("*.npy"))
