"""A stack at work, from outside."""

import json
import zipfile

import pytest
from PIL import Image

from sfdfd.errors import InputError
from sfdfd.io.retouch_file import Retouch
from sfdfd.photographs.lookup import example_photographs
from sfdfd.web.jobs import Job, Progress
from sfdfd.web.uploads import Limits


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


STROKE = {"operation": "slice", "slice": 0, "points": [[3, 4]], "radius_px": 2}


def test_strokes_are_kept_as_they_were_understood(tmp_path):
    job = Job(tmp_path, 60.0)
    assert not job.is_retouched
    job.retouch(json.dumps({"size": [9, 9], "strokes": [STROKE]}))
    assert job.is_retouched and Retouch.read(job.folder / "retouch.json").strokes[0].radius_px == 2
    for bad in ("", "[" * 99_999, "{}", json.dumps({"size": [9, 9], "strokes": [{**STROKE, "path": "/etc/passwd"}]})):
        with pytest.raises(InputError, match=r"^retouch: "):
            job.retouch(bad)
    assert job.is_retouched
    job.retouch(None)
    job.retouch(None)
    assert not job.is_retouched
    job.close()
    with pytest.raises(InputError, match="no longer on the server"):
        job.retouch(json.dumps({"size": [9, 9], "strokes": []}))


def test_settings_that_the_strokes_do_not_fit_leave_them_out(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from sfdfd.web import page

    class Fake(Job):
        def predict(self, settings):
            if self.is_retouched:
                raise InputError("retouch: slice 0 (a.jpg) is not among the 4 slices of this run")
            yield Progress(0.5, "a line", None)

    job = Fake(tmp_path, 60.0)
    job.retouch(json.dumps({"size": [9, 9], "strokes": [STROKE]}))
    sessions = page.Sessions(tmp_path, Limits(files=3, file_mb=1, total_mb=3, megapixels=1), 60.0)
    sessions.jobs["s"], handlers = job, page._Handlers(sessions)
    monkeypatch.setattr(handlers, "_results", lambda job: ("result",) * page.RESULTS)
    fields = ("", "m", None, None, None, None, 2, True)
    shown = list(handlers.predict(*fields, None, page.gr.Request(session_hash="s")))
    assert any("leave the strokes out: retouch: slice 0" in line[0] for line in shown) and not job.is_retouched
    assert shown[-1][0] == "Done." and {len(line) for line in shown} == {3 + page.RESULTS}


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
