"""What a run tells W&B and TensorBoard, read back from what they wrote; and that no dashboard stops a training."""

import csv
import json
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sfdfd.errors import InputError
from sfdfd.runs.wandb_file import read_wandb, wandb_files
from sfdfd.training import wandb_artifacts as artifacts
from sfdfd.training.checkpoints import load_run
from sfdfd.training.logger_output import log_alert, log_checkpoint, log_histogram, log_pictures, log_table
from sfdfd.training.loggers import wandb_logger
from tests.commands import SMALL, inside

RUN = [
    "experiment=procedural", *SMALL, "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "pictures=1",
    "callbacks.pictures.every_n_epochs=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run of four steps, then continued to six, told to all three loggers."""
    folder = tmp_path_factory.mktemp("told")
    run = [*RUN, "logger=[csv,wandb,tensorboard]", "output_dir=run"]
    inside("train", *run, "trainer.max_steps=4", cwd=folder)
    inside("train", *run, "trainer.max_steps=6", "resume=last", cwd=folder)
    return folder / "run"


def written(file):
    """What lies in a run's file once W&B's process has written all of it."""
    deadline = time.monotonic() + 30
    while not (run := read_wandb(file)).ended and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.ended, file
    return run


def test_wandb_has_everything(told):
    first, second = (written(file) for file in wandb_files(told))
    assert first.id == second.id, "a continued run is the same run"
    assert first.project == "sfdfd" and first.name.startswith("procedural train_length=4 ")
    assert first.tags == ["procedural", "focus_attention", "default"]
    assert first.config["optics.camera.f_number"] == 8.0 and len(first.config["run.git_sha"]) == 40
    for key in (
        "train/reconstruction", "val/reconstruction", "truth/depth_abs_rel", "truth/depth_rmse", "truth/constant_abs_rel",
        "truth/classical_rmse", "gradient/norm", "lr-AdamW", "time/step_s", "time/share_renderer", "time/share_data",
        "throughput/stacks_per_s", "memory/peak_gib", "health/depth_std", "health/no_signal_share",
        "health/blur_radius_p95_px", "test/depth/abs_rel", "test/baselines/classical/depth/rmse",
    ):  # fmt: skip
        assert first.logged(key), key
    assert dict(first.logged("truth/constant_abs_rel")).keys() == dict(first.logged("truth/depth_abs_rel")).keys()
    assert ("model-" + first.id, "model", {"latest", "best"}) in [(n, t, set(a)) for n, t, a in first.artifacts]
    for run, steps in ((first, {2, 4}), (second, {6})):  # media of both parts are there
        pictures = run.media("scenes/0")
        assert {step for step, _ in pictures} == steps
        for _, one in pictures:
            assert all((run.folder / name).is_file() for name in one["filenames"])
        ((_, table),) = run.media("test/frames")
        content = json.loads((run.folder / table["path"]).read_text())
        assert content["columns"][:2] == ["name", "method"] and content["columns"][-1] == "picture"
        assert len(content["data"]) == 2 * 4, "two frames, four methods"
        assert sum(row[-1] is not None for row in content["data"]) == 2, "the frame that was drawn, by two methods"
    _, histogram = first.media("health/blur_radius_px")[-1]
    assert len(histogram["bins"]) == 65 and sum(histogram["values"]) == 5 * 32 * 40


def test_tensorboard_has_the_same(told):
    first = written(wandb_files(told)[0])
    events = EventAccumulator(str(told / "tensorboard"), size_guidance={"images": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {key for row in first.history for key, value in row.items() if isinstance(value, (int, float))}
    scalars -= {"_runtime", "_step", "_timestamp", "trainer/global_step"}
    assert scalars <= set(tags["scalars"])
    assert {"scenes/0", "test/frames/scene2000000"} <= set(tags["images"]) and "health/blur_radius_px" in tags[
        "histograms"
    ]
    assert "test/frames/text_summary" in tags["tensors"]
    last = events.Histograms("health/blur_radius_px")[-1].histogram_value
    assert last.num == 5 * 32 * 40


def test_the_csv_file_has_the_numbers(told):
    with (told / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    spent = [float(row["time/step_s"]) for row in rows if row["time/step_s"]]
    shares = [sum(float(value) for key, value in row.items() if key.startswith("time/share_")) for row in rows
              if row["time/step_s"]]  # fmt: skip
    assert spent and all(0 < one < 60 for one in spent) and np.allclose(shares, 1)
    assert len({row["truth/classical_abs_rel"] for row in rows if row["truth/classical_abs_rel"]}) == 1


def test_logged_baselines_equal_those_of_evaluate(told):
    """The classical figure beside validation is evaluate's of the same frames."""
    with (told / "csv" / "metrics.csv").open() as file:
        logged = {
            key: float(row[key]) for row in csv.DictReader(file) for key in row if row[key] and key[:5] == "truth"
        }
    folder = told.parent
    data = [a for a in SMALL if a.startswith(("data.train", "data.val", "data.test", "data.height", "data.width"))]
    inside("evaluate", f"checkpoint='{told}/checkpoints/last.ckpt'", "data=procedural", "data.split=val", *data,
           "pictures=0", "output_dir=val", cwd=folder)  # fmt: skip
    result = json.loads((folder / "val" / "metrics.json").read_text())
    for name in ("classical", "constant"):
        for key in ("abs_rel", "rmse"):
            assert logged[f"truth/{name}_{key}"] == pytest.approx(result[f"baselines/{name}/depth/{key}"], rel=1e-4)
    assert logged["truth/depth_rmse"] == pytest.approx(result["depth/rmse"], rel=1e-4)


def test_the_dashboard_is_drawn_without_a_server(told):
    inside("dashboard", f"run='{told}'", "output_dir=board", cwd=told.parent)
    page = (told.parent / "board" / "dashboard.html").read_text()
    for words in ("AbsRel", "shares of a step", "predicted blur radius in pixels", "scene scene1000000", "scene2000001",
                  "without its server"):  # fmt: skip
        assert words in page, words
    assert (told.parent / "board" / "dashboard.png").stat().st_size > 10_000


def test_a_run_without_wandb_has_a_dashboard(trained, tmp_path):
    inside("dashboard", f"run='{trained[0]}'", "output_dir=b", cwd=tmp_path)
    page = (tmp_path / "b" / "dashboard.html").read_text()
    assert "csv/metrics.csv" in page and "AbsRel" in page


def test_a_sweep_is_a_group_and_names_say_what_was_varied(tmp_path):
    inside("train", "-m", "experiment=procedural", "optics.sigma_scale=0.5,1.0", "trainer.max_steps=1", "output_dir=sw",
           "logger=wandb", *SMALL, cwd=tmp_path)  # fmt: skip
    runs = [written(wandb_files(tmp_path / "sw" / str(job))[0]) for job in range(2)]
    assert [run.name for run in runs] == ["procedural sigma_scale=0.5", "procedural sigma_scale=1.0"]
    assert {run.group for run in runs} == {"sw"} and runs[0].id != runs[1].id


def test_collapse_and_nan_are_alerts(tmp_path):
    with pytest.warns(UserWarning, match="depth has collapsed"):
        inside("train", *RUN, "trainer.max_steps=2", "logger=wandb", "callbacks.collapse.smallest_std=9", "output_dir=r",
               cwd=tmp_path)  # fmt: skip
    (title, text), *_ = written(wandb_files(tmp_path / "r")[0]).alerts
    assert title == "depth has collapsed" and "after step 2" in text
    inside("train", *RUN, "trainer.max_steps=4", "logger=wandb", "optimizer.lr=1e30", "output_dir=n", expect=2,
           cwd=tmp_path)  # fmt: skip
    alerts = written(wandb_files(tmp_path / "n")[0]).alerts
    assert "the loss is not finite" in [title for title, _ in alerts]


def test_no_dashboard_stops_a_training(tmp_path, monkeypatch):
    """No network: the run goes on offline. Nothing works at all: it goes on without."""
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    real = wandb.init

    def no_network(**options):
        if options.get("mode") == "online":
            raise wandb.errors.CommError("cannot reach the server")
        return real(**options)

    monkeypatch.setattr(wandb, "init", no_network)
    logger = wandb_logger(str(tmp_path / "a"), mode="online", project="p")
    with pytest.warns(UserWarning, match="cannot reach the server; the run goes on offline"):
        logger.log_metrics({"a": 1.0}, step=3)
    wandb.finish()
    (file,) = wandb_files(tmp_path / "a")
    assert written(file).logged("a") == [(3.0, 1.0)]

    def nothing(**options):
        if options.get("mode") != "disabled":
            raise OSError(28, "No space left on device")
        return real(**options)

    monkeypatch.setattr(wandb, "init", nothing)
    logger = wandb_logger(str(tmp_path / "b"), mode="offline", project="p")
    with pytest.warns(UserWarning, match="nothing is logged there"):
        logger.log_metrics({"a": 1.0}, step=3)
    logger.log_hyperparams({"b": 2})
    log_pictures([logger], "p", np.zeros((4, 4, 3), np.uint8), 1)
    wandb.finish()


def test_training_continues_when_a_logger_breaks(tmp_path, monkeypatch):
    class Broken:
        id = "x"

        def __getattr__(self, name):
            raise OSError(28, "No space left on device")

    logger = wandb_logger(str(tmp_path), mode="offline")
    logger._experiment = Broken()
    calls = [
        lambda: logger.log_metrics({"a": 1.0}, step=1),
        lambda: logger.log_hyperparams({"a": 1.0}),
        lambda: log_pictures([logger], "p", np.zeros((4, 4, 3), np.uint8), 1),
        lambda: log_histogram([logger], "h", np.ones(3), np.arange(4.0), 1),
        lambda: log_table([logger], "t", [{"name": "a", "method": "b"}], {}, 1),
        lambda: log_alert([logger], "a", "b", 1),
        lambda: log_checkpoint([logger], __file__, {}),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="No space left on device; the training goes on"):
            call()


def test_a_checkpoint_comes_from_wandb(trained, tmp_path, monkeypatch):
    import wandb

    asked = []

    class Artifact:
        id = "abc"

        def download(self, root):
            from shutil import copyfile

            (tmp_path / "cache" / "abc").mkdir(parents=True)
            copyfile(trained[0] / "checkpoints" / "best.ckpt", f"{root}/best.ckpt")
            return root

    class Api:
        def __init__(self, timeout):
            pass

        def artifact(self, name):
            asked.append(name)
            if "missing" in name:
                raise ValueError("no such artifact")
            return Artifact()

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("SFDFD_CACHE", str(tmp_path / "cache"))
    module = load_run("wandb:me/sfdfd/model-1")
    assert asked == ["me/sfdfd/model-1:best"]
    for key, value in load_run(trained[0] / "checkpoints" / "best.ckpt").state_dict().items():
        assert torch.equal(module.state_dict()[key], value)
    with pytest.raises(InputError, match=r"W&B did not give it \(no such artifact"):
        load_run("wandb:me/sfdfd/missing:best")
    with pytest.raises(InputError, match="expected wandb:ENTITY/PROJECT/NAME:VERSION"):
        artifacts.downloaded("wandb:nonsense")


def test_a_broken_wandb_file_is_read_as_far_as_it_goes(told, tmp_path):
    file = wandb_files(told)[0]
    whole = written(file)
    (tmp_path / "cut.wandb").write_bytes(file.read_bytes()[:-7])
    assert 0 < len(read_wandb(tmp_path / "cut.wandb").history) <= len(whole.history)
    (tmp_path / "no.wandb").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no file of W&B"):
        read_wandb(tmp_path / "no.wandb")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # W&B's package, on pydantic 2
def test_the_workspace_has_every_panel():
    pytest.importorskip("wandb_workspaces")
    from sfdfd.report.dashboard import SECTIONS
    from sfdfd.runs.wandb_workspace import dashboard_workspace

    workspace = dashboard_workspace("me/project", "mine")
    assert (workspace.entity, workspace.project, workspace.name) == ("me", "project", "mine")
    titles = {panel.title for section in workspace.sections for panel in section.panels if hasattr(panel, "title")}
    assert {panel.title for row in SECTIONS.values() for panel in row} <= titles
    assert "parameters that were varied, and results" in titles
