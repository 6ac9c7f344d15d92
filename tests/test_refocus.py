"""Refocusing as a user runs it."""

import imageio.v3 as iio
import numpy as np
import pytest

from tests.commands import inside, one_line


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted")
    inside("predict", "stack=example", "refine.seconds=0", "threads=1", "output_dir=p", cwd=folder)
    return folder


def test_a_wider_aperture_blurs_what_is_not_in_focus(predicted, tmp_path):
    """And the camera's own aperture at a slice's distance gives that slice."""
    from sfdfd.photographs.lookup import example_photographs

    aif = iio.imread(predicted / "p" / "aif.png") / 255
    pictures = {}
    for aperture in (0, 1, 2.0):
        done = inside("refocus", f"prediction='{predicted / 'p'}'", "focus_m=1.5", f"aperture={aperture}",
                      "output_dir=r", cwd=tmp_path)  # fmt: skip
        assert "refocused.png" in done.stdout
        assert (tmp_path / "r" / "refocused.png").read_bytes()[:4] == b"\x89PNG"
        pictures[aperture] = iio.imread(tmp_path / "r" / "refocused.png") / 255
    assert pictures[0].shape == aif.shape == (240, 320, 3) and np.array_equal(pictures[0], aif)
    contrast = [np.abs(np.diff(pictures[one], axis=0)).mean() for one in (0, 1, 2.0)]
    assert contrast[0] > 1.2 * contrast[1] > 1.2 * contrast[2]
    slice_ = example_photographs().images[1] / 255
    assert -10 * np.log10(((pictures[1] - slice_) ** 2).mean()) > 28
    assert not [path.name for path in (tmp_path / "r").iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "prediction=DIR"),
    (["prediction=nowhere", "focus_m=1"], "prediction.json"),
    (["prediction=p"], "focus_m=X"),
    (["prediction=p", "focus=0.5"], "focus_m=X"),
    (["prediction=p", "focus_m=-1"], "focus_m"),
    (["prediction=p", "focus_m=0.02"], "focal length"),
    (["prediction=p", "focus_m=near"], "focus_m"),
    (["prediction=p", "focus_m=1", "aperture=500"], "aperture"),
    (["prediction=p", "focus_m=1", "apertures=2"], "apertures"),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(predicted, arguments, words):
    done = inside("refocus", *arguments, "output_dir=../bad", cwd=predicted, expect=2)
    assert words in one_line(done.stderr)
    assert not list(predicted.parent.glob("bad/*.png"))
