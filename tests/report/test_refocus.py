"""Refocusing of what lies in a folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.images import write_image
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.report import refocus
from sfdfd.report.refocus import FinishedPrediction, write_focus_pull
from sfdfd.scenes.procedural import make_scene

CAMERA = Camera(0.05, 8.0, 1.2e-5)
OPTICS = {"psf": "disc", "linear_light": True, "weighting": "occlusion", "sigma_scale": 0.5}


@pytest.fixture
def folder(tmp_path):
    """A finished prediction of a procedural scene, its depth true."""
    aif, depth_m = make_scene(0, 7, 72, 96, 0.5, 10.0)
    write_image(tmp_path / "aif.png", torch.from_numpy(aif).permute(2, 0, 1))
    np.save(tmp_path / "depth_m.npy", depth_m)
    facts = {
        "metric": True, "optics": OPTICS,
        "model": {"camera": CAMERA.as_dict(), "focus_distances": [1.0, 2.0, "inf"], "unit": "m"},
    }  # fmt: skip
    (tmp_path / "prediction.json").write_text(json.dumps(facts))
    return tmp_path


def test_refocusing_in_tiles_equals_the_renderer(folder, monkeypatch):
    finished = FinishedPrediction.read(folder)
    renderer = DefocusRenderer(method="fast", **OPTICS)
    focus = torch.tensor([1.2])
    whole = renderer(finished.aif[None], finished.depth[None], focus, CAMERA, blur_factor=2.0)[0, 0].clamp(0, 1)
    torch.testing.assert_close(finished.refocused(1.2, 2.0), whole)
    monkeypatch.setattr(refocus, "TILE_PX", 32)
    tiles = finished.refocused(1.2, 2.0)
    assert (tiles - whole).abs().mean() < 2e-3 and (tiles - finished.aif).abs().mean() > 0.02
    assert torch.equal(finished.refocused(1.2, 0.0), finished.aif)
    assert finished.refocused(float("inf"), 0.5, longer_px=48).shape == (3, 36, 48)


def test_relative_predictions_can_be_refocused(folder):
    facts = json.loads((folder / "prediction.json").read_text())
    facts["metric"], facts["model"]["focus_distances"] = False, [1.0, 1.5, 5.0]
    (folder / "prediction.json").write_text(json.dumps(facts))
    np.save(folder / "relative_depth.npy", np.linspace(0, 1, 72 * 96, dtype=np.float32).reshape(72, 96))
    finished = FinishedPrediction.read(folder)
    assert [finished.distance_at(one) for one in (0.0, 1.0)] == pytest.approx([1.0, 5.0])
    assert float(finished.depth.min()) == pytest.approx(1.0) and float(finished.depth.max()) == pytest.approx(5.0)


def cut_header(content):
    """An array whose header is no expression that ends."""
    return content.replace(b")", b"(", 1)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda one: (one / "prediction.json").unlink(), "no prediction.json"),
    (lambda one: (one / "prediction.json").write_text("{"), "not readable"),
    (lambda one: (one / "prediction.json").write_text('{"metric": true}'), "predict the stack again"),
    (lambda one: (one / "prediction.json").write_text("[]"), "predict the stack again"),
    (lambda one: (one / "depth_m.npy").unlink(), "no such file"),
    (lambda one: (one / "depth_m.npy").write_bytes(b"no array"), "not a NumPy array"),
    (lambda one: (one / "depth_m.npy").write_bytes(cut_header((one / "depth_m.npy").read_bytes())), "not a NumPy array"),
    (lambda one: np.savez(one / "x.npz", np.zeros(3)) or (one / "x.npz").rename(one / "depth_m.npy"), "finite numbers"),
    (lambda one: np.save(one / "depth_m.npy", np.ones((3, 4), np.float32)), "differ in size"),
    (lambda one: np.save(one / "depth_m.npy", np.full((72, 96), np.nan)), "finite"),
    (lambda one: (one / "aif.png").unlink(), "no such file"),
])  # fmt: skip
def test_incomplete_predictions_are_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(InputError, match=words):
        FinishedPrediction.read(folder)


@pytest.mark.parametrize(("focus", "aperture", "key"), [
    (-1, 1.0, "focus_m"), (0.01, 1.0, "focus"), (1.0, -1.0, "aperture"), (1.0, 1e4, "aperture"),
    (1.0, float("nan"), "aperture"),
])  # fmt: skip
def test_values_out_of_range_are_refused(folder, focus, aperture, key):
    with pytest.raises(InputError, match=key):
        FinishedPrediction.read(folder).refocused(focus, aperture)


def test_a_focus_pull_goes_from_near_to_far_and_back(folder, tmp_path):
    """Its sharpest pictures, at the place of the nearest and of the farthest, are its ends."""
    aif, depth_m = torch.rand(1, 3, 40, 60), torch.full((1, 40, 60), 1.0)
    depth_m[..., 30:] = 4.0
    count = write_focus_pull(tmp_path / "r.webp", aif, depth_m, CAMERA, DefocusRenderer(sigma_scale=0.5), planes=5)
    with Image.open(tmp_path / "r.webp") as movie:
        assert movie.format == "WEBP" and movie.is_animated and movie.n_frames == count == 8 and movie.size == (60, 40)
        frames = []
        for index in range(count):
            movie.seek(index)
            frames.append(np.asarray(movie.convert("L"), float))
    left, right = (np.array([frame[5:-5, part].std() for frame in frames]) for part in (slice(5, 20), slice(40, 55)))
    assert left.argmax() == 0 and right.argmax() == 4
    assert (np.diff(left[:5]) < 0).all() and (np.diff(right[:5]) > 0).all()
