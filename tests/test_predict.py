"""Prediction of one's own stack as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sfdfd.optics.camera import Camera
from sfdfd.photographs.lookup import example_photographs
from sfdfd.training.checkpoints import PRETRAINED
from tests.commands import inside, process

"""How the example is made; quick, too."""
QUICK = ["refine.steps=2", "align.mode=false", "threads=1"]


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_predicting_writes_every_file(trained, photographs_folder, tmp_path, with_checkpoint):
    arguments = [f"checkpoint='{trained[0] / 'checkpoints/best.ckpt'}'"] if with_checkpoint else []
    inside("predict", f"stack='{photographs_folder}'", *arguments, *QUICK, "output_dir=p", cwd=tmp_path)
    depth = np.load(tmp_path / "p" / "depth_m.npy")
    assert depth.shape == (30, 42) and depth.dtype == np.float32 and 0.8 <= depth.min() <= depth.max() <= 5.0
    millimetres = iio.imread(tmp_path / "p" / "depth_mm.png")
    assert millimetres.dtype == np.uint16 and np.abs(millimetres / 1000 - depth).max() < 6e-4
    assert iio.imread(tmp_path / "p" / "aif.png").shape == (30, 42, 3)
    defocus = np.load(tmp_path / "p" / "defocus_px.npy")
    assert defocus.shape == (3, 30, 42)
    radius = 0.05**2 / (8 * (2 - 0.05)) * (depth - 2) / depth / (2 * 1.2e-5)
    np.testing.assert_allclose(defocus[1], radius, atol=1e-3)
    confidence = np.load(tmp_path / "p" / "confidence.npy")
    assert confidence.shape == (30, 42) and 0 <= confidence.min() <= confidence.max() <= 1 and confidence.std() > 0
    assert np.abs(iio.imread(tmp_path / "p" / "confidence.png") / 255 - confidence).max() < 0.003
    assert (iio.imread(tmp_path / "p" / "valid.png") == 255).all()
    for picture in ("depth.png", "defocus.png"):
        assert iio.imread(tmp_path / "p" / picture).std() > 1
    assert b"element vertex 1260" in (tmp_path / "p" / "pointcloud.ply").read_bytes()[:500]
    assert "https://" not in (tmp_path / "p" / "report.html").read_text()
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text(), parse_constant=pytest.fail)
    assert facts["focus_distances_m"] == [1, 2, 4] and facts["depth_range_m"] == pytest.approx([0.8, 5])
    assert facts["metric"] is True and facts["camera_source"] == "known" and facts["refinement"]["steps"] == 2
    assert facts["refinement"]["objective"] <= facts["refinement"]["objective_start"]
    assert not [path for path in (tmp_path / "p").iterdir() if path.name.startswith(".part")]


EXTRA = {"depth.exr", "portrait.jpg", "scene.glb", "slice_index.png", "refocus.webp"}


def test_outputs_are_added_where_asked_for_and_go_with_the_next_prediction(photographs_folder, tmp_path, monkeypatch):
    """Which slice a pixel came from is the one with the smallest blur; maps above the limit are an output like others."""
    inside("predict", f"stack='{photographs_folder}'", "outputs=all", *QUICK, "output_dir=p", cwd=tmp_path)
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names >= EXTRA | {"defocus_px.npy", "confidence.npy"}
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert {one["file"] for one in facts["outputs"].values()} == EXTRA | {"defocus_px.npy", "confidence.npy"}
    index = iio.imread(tmp_path / "p" / "slice_index.png")
    assert index.dtype == np.uint8 and index.shape == (30, 42)
    np.testing.assert_array_equal(index, np.abs(np.load(tmp_path / "p" / "defocus_px.npy")).argmin(0))
    monkeypatch.setattr("sfdfd.report.outputs.LARGEST_ARRAY_BYTES", 1000)
    (tmp_path / "p" / "refocused.png").write_bytes(b"of the earlier prediction")
    done = inside("predict", f"stack='{photographs_folder}'", *QUICK, "output_dir=p", cwd=tmp_path)
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert (
        not names & (EXTRA | {"confidence.npy", "defocus_px.npy", "refocused.png"})
        and "defocus_px: not written" in done.stdout
    )
    inside("predict", f"stack='{photographs_folder}'", "outputs=[defocus_px]", *QUICK, "output_dir=p", cwd=tmp_path)
    assert np.load(tmp_path / "p" / "defocus_px.npy").shape == (3, 30, 42)


def test_intrinsics_are_those_of_the_point_cloud(photographs_folder, tmp_path):
    """In nerfstudio's words and COLMAP's line; x = (column + 0.5 - cx) z / fx."""
    inside("predict", f"stack='{photographs_folder}'", *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())["intrinsics"]
    assert facts["fl_x"] == facts["fl_y"] == pytest.approx(0.05 / 1.2e-5)
    assert (facts["w"], facts["h"], facts["cx"], facts["cy"]) == (42, 30, 21, 15)
    words = facts["colmap"].split()
    assert words[1] == "PINHOLE" and [float(one) for one in words[2:]] == pytest.approx(
        [42, 30, facts["fl_x"], facts["fl_y"], 21, 15]
    )
    kinds = [(key, "<f4") for key in "xyz"] + [("colour", "u1", 3)]
    points = np.frombuffer((tmp_path / "p" / "pointcloud.ply").read_bytes().split(b"end_header\n", 1)[1], kinds)
    rows, columns = np.mgrid[:30, :42].reshape(2, -1)
    np.testing.assert_allclose(points["x"], (columns + 0.5 - 21) * points["z"] / facts["fl_x"], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(points["y"], (rows + 0.5 - 15) * points["z"] / facts["fl_y"], rtol=1e-4, atol=1e-9)


def test_a_crop_moves_the_principal_point_of_the_intrinsics_and_the_point_cloud(photographs_folder, tmp_path):
    inside("predict", f"stack='{photographs_folder}'", "crop=[10,0,0,4]", *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())["intrinsics"]
    assert (facts["w"], facts["h"], facts["cx"], facts["cy"]) == (32, 26, 11, 15)
    assert facts["colmap"].split()[-2:] == ["11.0", "15.0"]
    kinds = [(key, "<f4") for key in "xyz"] + [("colour", "u1", 3)]
    points = np.frombuffer((tmp_path / "p" / "pointcloud.ply").read_bytes().split(b"end_header\n", 1)[1], kinds)
    rows, columns = np.mgrid[:26, :32].reshape(2, -1)
    np.testing.assert_allclose(points["x"], (columns + 0.5 - 11) * points["z"] / facts["fl_x"], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(points["y"], (rows + 0.5 - 15) * points["z"] / facts["fl_y"], rtol=1e-4, atol=1e-9)


def test_an_unknown_output_is_refused_at_once(photographs_folder, tmp_path):
    done = inside("predict", f"stack='{photographs_folder}'", "outputs=[obj]", "output_dir=p", cwd=tmp_path, expect=2)
    assert "outputs: expected all" in done.stderr and not (tmp_path / "p" / "aif.png").exists()


@pytest.mark.slow
def test_without_distances_no_metric_file_is_written(photographs_folder, tmp_path):
    """And a metric prediction that lay in the folder before goes."""
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "depth_m.npy", np.zeros(3))
    (tmp_path / "photos").mkdir()
    for name in "abc":
        shutil.copy(photographs_folder / "1.png", tmp_path / "photos" / f"{name}.png")
    shutil.copy(photographs_folder / "0.png", tmp_path / "photos" / "b.png")
    done = inside("predict", "stack=photos", "outputs=[exr,glb]", *QUICK, "output_dir=p", cwd=tmp_path)
    relative = np.load(tmp_path / "p" / "relative_depth.npy")
    assert (
        relative.shape == (30, 42) and relative.dtype == np.float32 and -0.3 <= relative.min() <= relative.max() <= 1.3
    )
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert not names & {"depth_m.npy", "depth_mm.png", "pointcloud.ply", "depth.exr", "scene.glb"}
    assert "relative_depth.exr" in names and "glb: not written" in done.stdout
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["metric"] is False and "RELATIVE" in facts["statement"] and "RELATIVE" in done.stdout
    assert facts["focus_distances_m"] is None and "focus_distances_m" in facts["missing"]
    inside("refocus", "prediction=p", "focus=0.5", "output_dir=r", cwd=tmp_path)
    assert iio.imread(tmp_path / "r" / "refocused.png").shape == (30, 42, 3)
    done = inside("refocus", "prediction=p", "focus_m=1", "output_dir=s", cwd=tmp_path, expect=2)
    assert "focus=X" in done.stderr


@pytest.mark.slow
def test_the_blur_scale_of_an_unknown_camera_is_estimated(tmp_path):
    """The example written to a folder, with distances in the names and no camera."""
    photographs = example_photographs(160, 208)
    (tmp_path / "mine").mkdir()
    for image, focus in zip(photographs.images, photographs.focus_distances_m, strict=True):
        iio.imwrite(tmp_path / "mine" / f"slice_{focus}m.png", image)
    done = inside("predict", "stack=mine", "refine.steps=20", "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    known = Camera(**photographs.camera)
    assert facts["camera_source"] == "estimated" and facts["blur_scale_px_m"] == pytest.approx(
        known.blur_scale_px_m, rel=0.15
    )
    assert 0 < facts["blur_scale_relative_std"] < 0.5 and "not known" in done.stdout and "k = f^2" in done.stdout
    assert facts["sources"]["focus_distances_m"] == "file names" and not facts["aligned"]


@pytest.mark.parametrize(("yaml", "said", "expected", "sources"), [
    ("", [], {"psf": "disc", "linear_light": True, "weighting": "occlusion", "sigma_scale": 0.5}, "dddd"),
    ("optics: {psf: gaussian, weighting: source}", ["optics.psf=disc", "optics.sigma_scale=0.7"],
     {"psf": "disc", "linear_light": True, "weighting": "source", "sigma_scale": 0.7}, "cdyc"),
    ("", ["optics.psf=gaussian", "optics.linear_light=false", "optics.weighting=source", "optics.sigma_scale=1.0"],
     {"psf": "gaussian", "linear_light": False, "weighting": "source", "sigma_scale": 1.0}, "cccc"),
])  # fmt: skip
def test_optics_precedence_is_command_line_stack_default_checkpoint(
    photographs_folder, tmp_path, yaml, said, expected, sources
):
    """In this order; the checkpoint is DEReD's in every respect."""
    folder, checkpoint = tmp_path / "mine", tmp_path / "dered.ckpt"
    shutil.copytree(photographs_folder, folder)
    with (folder / "stack.yaml").open("a") as file:
        file.write(f"{yaml}\n")
    content = torch.load(PRETRAINED, weights_only=True)
    renderer = {
        "_target_": "sfdfd.optics.render.DefocusRenderer",
        "sigma_scale": 0.9,
        "window_px": 7,
        "copied_radius_px": 1.0,
    }
    content["sfdfd_config"]["optics"]["renderer"] = renderer
    torch.save(content, checkpoint)
    done = inside("predict", "stack=mine", f"checkpoint='{checkpoint}'", *said, *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["optics"] == expected
    words = {"d": "default for photographs", "c": "command line", "y": "mine/stack.yaml"}
    assert {key: facts["sources"][f"optics.{key}"] for key in expected} == {
        key: words[letter]
        for key, letter in zip(("psf", "linear_light", "weighting", "sigma_scale"), sources, strict=True)
    }
    assert "optics: psf" in done.stdout and "optics.psf" in (tmp_path / "p" / "report.html").read_text()


@pytest.mark.slow
def test_left_out_slices_are_scored_and_not_used(tmp_path):
    """Beside the figures, recomputed from the files; and garbage in a left-out slice changes no bit of the depth."""
    photographs = example_photographs(72, 96)
    for folder in ("mine", "spoilt"):
        (tmp_path / folder).mkdir()
        for image, focus in zip(photographs.images, photographs.focus_distances_m, strict=True):
            spoilt = folder == "spoilt" and focus in (1.5, 4.0)
            image = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8) if spoilt else image
            iio.imwrite(tmp_path / folder / f"slice_{focus}m.png", image)
        lens = ["camera.focal_length_m=0.05", "camera.f_number=8", "camera.pixel_pitch_m=1.2e-5"]
        done = inside("predict", f"stack={folder}", "holdout=[1,3]", "refine.steps=4", "threads=1", *lens,
                      f"output_dir=p_{folder}", cwd=tmp_path)  # fmt: skip
    mine, spoilt = tmp_path / "p_mine", tmp_path / "p_spoilt"
    for name in ("depth_m.npy", "aif.png", "left_out/01_rendered.png"):
        assert (mine / name).read_bytes() == (spoilt / name).read_bytes(), name
    facts, other = (json.loads((one / "prediction.json").read_text()) for one in (mine, spoilt))
    for key in ("depth_m", "camera", "blur_scale_px_m", "depth_range_m", "alignment", "exposure_gains"):
        assert facts[key] == other[key], key
    assert [(one["index"], one["file"], one["focus_distance_m"]) for one in facts["left_out"]] == [
        (1, "slice_1.5m.png", 1.5), (3, "slice_4.0m.png", 4.0)
    ]  # fmt: skip
    for one in facts["left_out"]:
        pictures = [
            iio.imread(mine / "left_out" / f"{one['index']:02d}_{what}.png") for what in ("rendered", "photograph")
        ]
        error = ((pictures[0] / 255 - pictures[1] / 255) ** 2)[3:-3, 3:-3].mean()
        assert one["psnr_db"] == pytest.approx(-10 * np.log10(error), abs=0.1)
        inputs = [iio.imread(tmp_path / "mine" / f"slice_{focus}m.png") / 255 for focus in (1.0, 2.5, 6.0)]
        error = min(((image - pictures[1] / 255) ** 2)[3:-3, 3:-3].mean() for image in inputs)
        assert one["nearest_slice_psnr_db"] <= -10 * np.log10(error) + 0.05 < one["best_blend_psnr_db"] + 0.1
    means = {key: np.mean([one[key] for one in facts["left_out"]]) for key in facts["left_out_mean"]}
    assert facts["left_out_mean"] == pytest.approx(means) and len(means) == 3
    page = (mine / "report.html").read_text()
    assert "Left-out slices" in page and "best blend of two" in page and "left out 1 (slice_1.5m.png)" in done.stdout
    inside("predict", "stack=mine", *QUICK, "output_dir=p_mine", cwd=tmp_path)  # into the same folder
    facts = json.loads((mine / "prediction.json").read_text())
    assert facts["left_out"] == [] and facts["left_out_mean"] is None and not (mine / "left_out").exists()


def test_the_example_needs_no_photographs(tmp_path):
    done = inside("predict", "stack=example", "refine.seconds=3", "output_dir=p", cwd=tmp_path)
    assert (tmp_path / "p" / "report.html").stat().st_size < 20e6 and "report.html" in done.stdout
    done = inside("diagnose", "stack=example", "output_dir=d", cwd=tmp_path)
    facts = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert facts["verdict"] == "good" and "VERDICT: good" in done.stdout
    assert iio.imread(tmp_path / "d" / "diagnosis.png").std() > 1


@pytest.mark.slow
def test_interrupting_keeps_the_best_so_far(photographs_folder, tmp_path):
    command = [sys.executable, "-u", "-m", "sfdfd.predict", "stack=example", "refine.seconds=300",
               "output_dir=p"]  # fmt: skip
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores Ctrl-C
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        for line in process.stdout:
            if line.startswith("refining:"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 0 and "stopped by you" in rest
    assert json.loads((tmp_path / "p" / "prediction.json").read_text())["refinement"]["interrupted"] is True


def test_the_package_carries_weights(tmp_path):
    inside("predict", "stack=example", "checkpoint=pretrained", "refine.seconds=0", "output_dir=p",
           cwd=tmp_path)  # fmt: skip
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["start"] == "pretrained" and facts["refinement"] is None
    assert PRETRAINED.stat().st_size < 5e6


@pytest.mark.parametrize("name", [b"$x^$ and ${y}", b"ca\xff\xfe"])
def test_folders_of_any_name_are_predicted(photographs_folder, tmp_path, name):
    """Names of files are neither formulas nor always text."""
    folder = os.fsencode(tmp_path) + b"/" + name
    shutil.copytree(os.fsencode(photographs_folder), folder)
    escaped = os.fsdecode(folder).replace("${", "\\${")
    process("predict", f"stack='{escaped}'", *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text(), parse_constant=pytest.fail)
    assert facts["stack"].endswith(name.decode("utf-8", "replace"))
    for file in ("depth_m.npy", "depth.png", "report.html", "aif.png"):
        assert (tmp_path / "p" / file).is_file(), file
    done = inside("diagnose", f"stack='{escaped}'", "output_dir=d", cwd=tmp_path)
    assert "VERDICT" in done.stdout and (tmp_path / "d" / "diagnosis.png").is_file()


def test_arrays_are_kept_when_a_picture_fails(photographs_folder, tmp_path, monkeypatch):
    """Whatever is wrong with a picture, the refinement's answer is not lost for it."""
    monkeypatch.setattr("sfdfd.report.prediction_folder.depth_figure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        inside("predict", f"stack='{photographs_folder}'", *QUICK, "output_dir=p", cwd=tmp_path)
    assert np.load(tmp_path / "p" / "depth_m.npy").shape == (30, 42)
    assert not [path for path in (tmp_path / "p").iterdir() if path.name.startswith(".part")]
