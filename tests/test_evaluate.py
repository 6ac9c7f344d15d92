"""Evaluation as a user runs it."""

import csv
import json
import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from tests.commands import inside, one_line

RGBD = ["data=nyu", "data.split=all", "data.constant_depth_m=null"]
"""An RGB-D folder seen by NYUv2's camera."""


def test_evaluating_a_checkpoint_on_an_rgbd_folder(trained, rgbd_folder, tmp_path):
    done = inside("evaluate", "pictures=0", f"checkpoint='{trained[0] / 'checkpoints/best.ckpt'}'", *RGBD,
               f"data.root='{rgbd_folder}'", "data.renderer.sigma_scale=1.0", "output_dir=e",
               cwd=tmp_path)  # fmt: skip
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["samples"] == 4 and metrics["protocol"]["constant_depth_m"] != 2.5
    assert (metrics["protocol"]["synthesis_sigma_scale"], metrics["protocol"]["model_sigma_scale"]) == (1.0, 0.5)
    assert "differ" in done.stderr and "sigma_scale 1 in the data (the model's is 0.5)" in done.stderr
    with (tmp_path / "e" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    mine = [float(row["depth/abs_rel"]) for row in rows if row["method"] == "network"]
    assert len(mine) == 4 and np.mean(mine) == pytest.approx(metrics["depth/abs_rel"])


def test_baselines_alone_follow_their_closed_forms(rgbd_folder, tmp_path):
    inside("evaluate", "pictures=0", *RGBD, f"data.root='{rgbd_folder}'", "output_dir=e", cwd=tmp_path)
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "depth/abs_rel" not in metrics and metrics["protocol"]["synthesis_sigma_scale"] == 0.5
    depths = [iio.imread(rgbd_folder / "depth" / f"{i}.png") / 1000 for i in range(4)]
    constant = min(
        np.median(depth) for depth in depths[:2]
    )  # the lower middle one of the training split's, as torch has it
    assert metrics["protocol"]["constant_depth_m"] == pytest.approx(constant, abs=0.01)
    constant = metrics["protocol"]["constant_depth_m"]
    expected = np.mean([np.mean(np.abs(constant - depth) / depth) for depth in depths])
    assert metrics["baselines/constant/depth/abs_rel"] == pytest.approx(expected, rel=1e-5)


def test_recorded_stacks_have_stack_metrics_only(photographs_folder, tmp_path):
    inside("evaluate", "pictures=0", "data=recorded", f"data.root='{photographs_folder}'", "output_dir=e", cwd=tmp_path)
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["baselines/classical/stack/psnr"] > 0 and not [key for key in metrics if "depth/" in key]


def test_recorded_stacks_are_blurred_like_photographs(photographs_folder, tmp_path):
    """Disc, linear light, occlusion, after the command line and stack.yaml."""
    import yaml

    from sfdfd.runs.command import CONF_DIR
    from sfdfd.training.checkpoints import NO_RENDERER_SHORTCUTS, PHOTOGRAPH_OPTICS

    default = yaml.safe_load((CONF_DIR / "data" / "base" / "blur.yaml").read_text())
    assert {**default, **NO_RENDERER_SHORTCUTS} == PHOTOGRAPH_OPTICS
    root = tmp_path / "mine"
    shutil.copytree(photographs_folder, root)

    def model(*said):
        inside("evaluate", "pictures=0", "data=recorded", "data.root=mine", *said, "output_dir=e", cwd=tmp_path)
        protocol = json.loads((tmp_path / "e" / "metrics.json").read_text())["protocol"]
        assert {key: protocol["calibration_renderer"][key] for key in default} == {
            key: protocol["model_renderer"][key] for key in default
        }
        return protocol["inverted"]

    photographs = ["disc, occlusion weighting, linear light"]
    assert model() == model("checkpoint=pretrained") == photographs
    with (root / "stack.yaml").open("a") as file:
        file.write("optics: {psf: gaussian, weighting: source}\n")
    assert model() == ["gaussian, source weighting, linear light, sigma_scale 0.5"]
    said = model("optics.psf=disc", "optics.weighting=target", "optics.linear_light=false")
    assert said == ["disc, target weighting, sRGB codes"]


def test_every_method_is_scored_on_left_out_slices(rgbd_folder, tmp_path):
    inside(
        "evaluate",
        "pictures=1",
        *RGBD,
        f"data.root='{rgbd_folder}'",
        "holdout=[1,3]",
        "output_dir=e",
        cwd=tmp_path,
    )
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["protocol"]["holdout"] == [1, 3] and "no method saw" in metrics["protocol"]["left_out"]
    with (tmp_path / "e" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "classical"]
    for key in ("left_out/psnr", "left_out/nearest_psnr", "left_out/blend_psnr"):
        assert metrics[f"baselines/classical/{key}"] == pytest.approx(np.mean([float(row[key]) for row in rows]))
    for key in ("nearest_psnr", "blend_psnr"):  # the inputs' alone
        assert metrics[f"baselines/classical/left_out/{key}"] == metrics[f"baselines/constant/left_out/{key}"]
    assert "Left out: slice 3" in (tmp_path / "e" / "report.html").read_text()


def test_left_out_photographs_do_not_affect_a_recorded_stack(photographs_folder, tmp_path):
    """Neither near and far, nor motion, nor an unknown blur scale."""
    from sfdfd.datasets.datamodule import StacksDataModule
    from sfdfd.datasets.recorded import RecordedDataModule
    from sfdfd.optics import DefocusRenderer

    folder = tmp_path / "one"
    shutil.copytree(photographs_folder, folder)
    (folder / "stack.yaml").write_text("focus_distances_m: [1, 2, 4]\ncamera: {focal_length_m: 0.05, f_number: 8}\n")
    (folder / "2.png").rename(folder / "1_.png")
    found = []
    for spoil in (False, True):
        if spoil:
            iio.imwrite(folder / "1_.png", np.random.default_rng(3).integers(0, 255, (30, 42, 3), dtype=np.uint8))
        module = RecordedDataModule(str(folder), DefocusRenderer(sigma_scale=0.5, method="fast"))
        module.set_holdout([2])
        found.append(module.dataset("all")[0])
    assert found[0].camera == found[1].camera and found[0].far_m == found[1].far_m == pytest.approx(1.7 * 2)
    assert np.array_equal(found[0].images[:, :2], found[1].images[:, :2])
    assert not np.array_equal(found[0].images[:, 2], found[1].images[:, 2])
    camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5}
    module = StacksDataModule(str(folder), camera=camera)
    assert float(module.dataset("all")[0].far_m) == pytest.approx(1.7 * 4)
    module = StacksDataModule(str(folder), camera=camera)
    module.set_holdout([2])
    assert float(module.dataset("all")[0].far_m) == pytest.approx(1.7 * 2)


@pytest.mark.slow
def test_several_processes_write_the_same_results_as_one(trained, tmp_path):
    """Three images on two processes, one of each with pictures and a report: bit for bit what one process writes."""
    common = [f"checkpoint='{trained[0]}/checkpoints/best.ckpt'", "data.test_length=3", "data.height=32", "data.width=40",
              "data.split=test", "pictures=2", "threads=1", "refine.steps=2", "holdout=1"]  # fmt: skip
    for number in (1, 2):
        inside("evaluate", *common, f"processes={number}", f"output_dir=by{number}", cwd=tmp_path)
    one, two = (json.loads((tmp_path / f"by{number}" / "metrics.json").read_text()) for number in (1, 2))
    assert two["protocol"].pop("processes") == 2 and one == two
    rows = [(tmp_path / f"by{number}" / "metrics.csv").read_text() for number in (1, 2)]
    assert rows[0] == rows[1] and len(rows[0].splitlines()) == 1 + 3 * 4
    pictures = [sorted(path.name for path in (tmp_path / f"by{number}" / "pictures").iterdir()) for number in (1, 2)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 2 * 3
    pages = [(tmp_path / f"by{number}" / "report.html").read_text() for number in (1, 2)]
    assert pages[0].count("best by") == pages[1].count("best by") > 0 and pages[0].count("<img") == pages[1].count(
        "<img"
    )


def test_errors_with_several_processes_are_one_line(trained, tmp_path):
    done = inside("evaluate", "data=nyu", "data.root=nowhere", "processes=2", "output_dir=e", expect=2, cwd=tmp_path)
    assert "nowhere" in one_line(done.stderr)
    done = inside("evaluate", "processes=0", "output_dir=e", expect=2, cwd=tmp_path)
    assert "processes: expected a whole number of 1 or more" in one_line(done.stderr)
