"""A stack at work, from outside."""

import zipfile

import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.photographs.lookup import example_photographs
from sfdfd.web.jobs import Job


def test_errors_of_a_command_are_raised_and_close_removes_everything(tmp_path):
    job = Job(tmp_path, 60.0)
    (job.photographs / "a.jpg").write_bytes(b"no picture")
    (job.photographs / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a readable image"):
        job.diagnose({})
    job.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no longer on the server"):
        job.diagnose({})


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    job = Job(tmp_path, 0.1)
    job.example = True
    with pytest.raises(InputError, match="longest_s"):
        job.diagnose({})
    job.close()


@pytest.mark.slow
def test_stopping_keeps_the_best_and_everything_is_in_the_archive(tmp_path):
    job = Job(tmp_path, 300.0)
    for image, focus in zip(example_photographs(72, 96).images, (1.0, 1.5, 2.5, 4.0, 6.0), strict=True):
        Image.fromarray(image).save(job.photographs / f"{focus}m.png")
    known = {"camera.focal_length_m": 0.05, "camera.f_number": 8.0, "camera.pixel_pitch_m": 4e-5}
    assert job.diagnose(known)["facts"]["focus_distances_m"] == [1.0, 1.5, 2.5, 4.0, 6.0]
    shares, depth = [], None
    for progress in job.predict({**known, "refine.seconds": 250.0, "outputs": ["exr"]}):
        if progress.share is not None and progress.depth is not None:
            shares.append(progress.share)
            depth = depth or Image.open(progress.depth).convert("RGB").size
            if progress.share > 0:
                job.stop()
    assert 0 <= shares[0] <= shares[-1] < 0.9 and shares[-1] > 0 and depth is not None
    assert job.facts()["refinement"]["interrupted"] is True
    with zipfile.ZipFile(job.archive()) as archive:
        names = set(archive.namelist())
    assert {"depth.exr", "depth_m.npy", "report.html", "aif.png", "prediction.json"} <= names
    assert not [name for name in names if ".hydra" in name or name.startswith("/")]
    job.close()
    assert not list(tmp_path.iterdir())
