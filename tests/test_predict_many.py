"""Prediction of many stacks, of long ones, of videos, and alignment alone, as a user runs them."""

import json
import re
import shutil

import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from sfdfd.io.images import read_photograph
from sfdfd.photographs.lookup import example_photographs
from tests.commands import inside, one_line
from tests.io.formats.encoders import write_video

P3 = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06]
QUICK = ["refine.steps=2", "threads=1"]


def left(folder):
    """What lies in a run's folder, beside the record that Hydra keeps of the call."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".hydra", "predict.log"))


@pytest.fixture(scope="module")
def roll(tmp_path_factory):
    """Two stacks, one of them of a folder below, and one that is broken."""
    root = tmp_path_factory.mktemp("roll")
    photographs = example_photographs(48, 64)
    for name in ("first", "deep/second", "broken"):
        (root / name).mkdir(parents=True)
        for image, focus in zip(photographs.images, photographs.focus_distances_m, strict=True):
            iio.imwrite(root / name / f"f50mm_{1 / focus:.3f}dpt.png", image)
        (root / name / "stack.yaml").write_text("camera: {f_number: 8, pixel_pitch_m: 1.2e-5}\n")
    broken = root / "broken" / "f50mm_0.250dpt.png"
    broken.write_bytes(broken.read_bytes()[:200])
    return root


def test_many_stacks_are_predicted_and_only_failed_ones_again(roll, tmp_path):
    """One table, one page, exit code 1 for the one that failed; a second call does only that one."""
    arguments = [f"stacks='{roll}'", *QUICK, "output_dir=out"]
    done = inside("predict", *arguments, cwd=tmp_path, expect=1)
    out = tmp_path / "out"
    for name in ("first", "deep/second"):
        facts = json.loads((out / name / "prediction.json").read_text())
        assert facts["focus_distances_m"] == pytest.approx([1, 1.5, 2.5, 4, 6], rel=2e-3) or facts["metric"]
        assert facts["camera"]["focal_length_m"] == 0.05 and facts["sources"]["focal_length_m"] == "file names"
        assert (out / name / "report.html").is_file() and "focus" in (out / name / "said.txt").read_text()
    assert not (out / "broken").exists()
    assert re.search(r"failed: broken: .*0\.250dpt\.png: not a readable image", done.stdout)
    page = (out / "index.html").read_text()
    assert 'href="deep/second/report.html"' in page and page.count("<img") == 4 and "https://" not in page
    before = (out / "first" / "depth_m.npy").stat().st_mtime_ns
    done = inside("predict", *arguments, cwd=tmp_path, expect=1)
    assert (out / "first" / "depth_m.npy").stat().st_mtime_ns == before and done.stdout.count("skipped") == 4
    rows = {row["name"]: row["status"] for row in json.loads((out / "index.json").read_text())["stacks"]}
    assert rows == {"first": "skipped", "deep/second": "skipped", "broken": "failed"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["stacks=none"], "no such folder"), (["stacks=.", "stack=example"], "give one of them"),
    (["stacks=.", "align.save=a.json"], "align.save"), (["stacks=.", "burst_gap_s=-1"], "burst_gap_s"),
    (["stacks=."], "stacks=."),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
    done = inside("predict", *arguments, *QUICK, "output_dir=out", cwd=tmp_path, expect=2)
    assert message in one_line(done.stderr) and not left(tmp_path / "out")


def test_an_alignment_is_saved_and_loaded_without_a_prediction(roll, tmp_path):
    shutil.copytree(roll / "first", tmp_path / "mine")
    done = inside("predict", "stack=mine", "align.only=true", "align.save=a.json", "output_dir=p", cwd=tmp_path)
    assert "aligned slices written" in done.stdout and (tmp_path / "a.json").is_file()
    assert left(tmp_path / "p") == ["aligned", "valid.png"]
    assert len(list((tmp_path / "p" / "aligned").glob("*.png"))) == 5
    inside("predict", "stack=p/aligned", "align.mode=false", *QUICK, "output_dir=q", cwd=tmp_path)
    facts = json.loads((tmp_path / "q" / "prediction.json").read_text())
    assert facts["focus_distances_m"] == pytest.approx([1, 1.5, 2.5, 4, 6], rel=2e-3) or facts["metric"]
    inside("predict", "stack=mine", "align.load=a.json", *QUICK, "output_dir=r", cwd=tmp_path)
    done = inside(
        "predict", "stack=mine", "align.load=a.json", "align.mode=false", "output_dir=s", cwd=tmp_path, expect=2
    )
    assert "align.load" in one_line(done.stderr)


def test_unused_slices_of_a_long_stack_score_the_prediction(roll, tmp_path):
    done = inside("predict", f"stack='{roll / 'first'}'", "slices=3", *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert len(facts["focus_distances_m"]) == 3 and len(facts["left_out"]) == 2 and "slices=3" in done.stdout
    used = {one["file"] for one in facts["alignment"]["slices"]}
    assert not used & {one["file"] for one in facts["left_out"]}
    assert np.isfinite(facts["left_out_mean"]["psnr_db"])


def test_a_video_is_a_stack(tmp_path):
    pytest.importorskip("av")
    images = example_photographs(48, 64).images
    write_video(tmp_path / "sweep.mp4", [image for image in images for _ in range(4)])
    known = [
        "camera.focal_length_m=0.05",
        "camera.f_number=8",
        "camera.pixel_pitch_m=6e-5",
        "focus_distances_m=[1,1.5,2.5,4,6]",
    ]
    inside("predict", "stack=sweep.mp4", *known, *QUICK, "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["metric"] is True and len(facts["alignment"]["slices"]) == 5
    assert any("picked by sharpness" in note for note in facts["notes"])


def test_a_tiff_of_pages_is_a_stack_and_its_colours_are_named(tmp_path):
    """What came in is in the facts and in a note; what is written says that it is sRGB, and whose lens it was."""
    images = np.stack(example_photographs(48, 64).images)
    profile = imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329], primaries=P3, gamma=2.2)
    tifffile.imwrite(tmp_path / "sweep.tif", images, photometric="rgb", metadata=None, iccprofile=profile)
    known = ["camera.focal_length_m=0.05", "camera.f_number=8", "camera.pixel_pitch_m=6e-5"]
    distances = "focus_distances_m=[1,1.5,2.5,4,6]"
    inside("predict", "stack=sweep.tif", *known, distances, *QUICK, "outputs=[portrait]", "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    (space,) = facts["colour_space"]["read"]
    assert (space["source"], space["slices"], facts["colour_space"]["written"]) == ("embedded profile", 5, "sRGB")
    assert any(space["name"] in note and "converted to sRGB" in note for note in facts["notes"])
    assert [one["file"] for one in facts["alignment"]["slices"]] == [f"sweep_page_0{page}.tif" for page in range(1, 6)]
    for name in ("aif.png", "portrait.jpg"):
        said = read_photograph(tmp_path / "p" / name)[1]
        assert said.colour_space == "sRGB" and "assumed" not in said.colour_source
        assert (said.focal_length_m, said.f_number, said.pixel_pitch_m) == pytest.approx((0.05, 8, 6e-5))


def test_uncertain_distances_are_noted(roll, tmp_path):
    inside("predict", f"stack='{roll / 'first'}'", "focus_unit=dioptre", "focus_distances_std=0.05", *QUICK,
           "output_dir=p", cwd=tmp_path)  # fmt: skip
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["focus_distances_std_dpt"] == [0.05] * 5 and any("0.05 dioptres" in note for note in facts["notes"])


def test_changed_stacks_are_predicted_again(roll, tmp_path, monkeypatch):
    """Weights that were trained anew under the same path, a result that is gone, another release; a copy of the weights
    changes nothing."""
    shutil.copytree(roll / "first", tmp_path / "in" / "first")
    shutil.copytree(roll / "deep" / "second", tmp_path / "in" / "second")
    (tmp_path / "mine.ckpt").write_bytes(b"weights")
    facts = {
        "slices": 5,
        "metric": True,
        "depth": dict.fromkeys(("min", "median", "max"), 1.0),
        "left_out_psnr_db": None,
    }

    def predicted(settings, stack, folder, on_share):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "depth_m.npy").touch()
        return facts

    monkeypatch.setattr("sfdfd.runs.predict_stacks.predict_found", predicted)

    def states(*arguments):
        inside("predict", "stacks=in", "checkpoint=mine.ckpt", "output_dir=out", *arguments, cwd=tmp_path)
        return [row["status"] for row in json.loads((tmp_path / "out" / "index.json").read_text())["stacks"]]

    assert states() == ["done", "done"] and states("threads=1", "watch=w") == ["skipped", "skipped"]
    shutil.copyfile(tmp_path / "mine.ckpt", tmp_path / "copy.ckpt")
    (tmp_path / "copy.ckpt").replace(tmp_path / "mine.ckpt")
    shutil.rmtree(tmp_path / "out" / "first")
    assert states() == ["done", "skipped"] and (tmp_path / "out" / "first" / "depth_m.npy").is_file()
    (tmp_path / "mine.ckpt").write_bytes(b"WEIGHTS")
    assert states() == ["done", "done"]
    monkeypatch.setattr("sfdfd.runs.predict_stacks.__version__", "99")
    assert states() == ["done", "done"] and states() == ["skipped", "skipped"]
    (tmp_path / "mine.ckpt").unlink()
    done = inside("predict", "stacks=in", "checkpoint=mine.ckpt", "output_dir=out", cwd=tmp_path, expect=2)
    assert "mine.ckpt: no such file" in one_line(done.stderr)
