"""W&B that cannot be reached, answers nonsense or cannot write: said once, and the training goes on."""

from types import SimpleNamespace

import lightning.pytorch.loggers
import numpy as np
import pytest

from sfdfd.training.dashboards import tell_alert, tell_histogram, tell_model, tell_pictures, tell_table
from sfdfd.training.loggers import wandb_logger

wandb = pytest.importorskip("wandb")
FAILURES = [
    ConnectionError("no route to host"),
    ValueError("Expecting value: line 1 column 1 (char 0)"),  # a server that answers nonsense
    PermissionError("API key must be 40 characters long"),
    OSError(28, "No space left on device"),
]


@pytest.fixture
def started(monkeypatch):
    """Each start of a run by its mode; those that are asked to fail do."""
    modes, broken = [], {}

    def begin(self):
        mode = self._wandb_init["mode"]
        modes.append(mode)
        if mode in broken:
            raise broken[mode]
        return SimpleNamespace(mode=mode, config={}, dir=str(self.save_dir), id="abc")

    monkeypatch.setattr(lightning.pytorch.loggers.WandbLogger, "experiment", property(begin))
    monkeypatch.setattr(wandb, "init", lambda mode: SimpleNamespace(mode=mode))
    return modes, broken


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_run_that_cannot_be_begun_online_goes_on_offline(tmp_path, started, error):
    modes, broken = started
    broken["online"] = error
    logger = wandb_logger(str(tmp_path), mode="online")
    with pytest.warns(UserWarning, match="W&B: .*; the run goes on offline; `wandb sync` sends it later") as said:
        run = logger.experiment
    assert run.mode == "offline" and modes == ["online", "offline"] and len(said) == 1
    assert logger.experiment is run and len(modes) == 2


def test_a_run_that_cannot_be_written_either_drops_everything(tmp_path, started):
    modes, broken = started
    broken["online"], broken["offline"] = FAILURES[0], FAILURES[3]
    logger = wandb_logger(str(tmp_path), mode="online")
    with pytest.warns(UserWarning, match="W&B: ") as said:
        assert logger.experiment.mode == "disabled"
    assert [str(one.message).rsplit("; ", 1)[1] for one in said][1] == "nothing is logged there"
    assert modes == ["online", "offline"]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_what_fails_later_is_said_and_stops_nothing(tmp_path, monkeypatch, error):
    logger = wandb_logger(str(tmp_path), mode="offline")

    def fails(*args, **kwargs):
        raise error

    for name in ("log_metrics", "log_hyperparams", "log_image", "log_table", "save", "finalize"):
        monkeypatch.setattr(lightning.pytorch.loggers.WandbLogger, name, fails)
    monkeypatch.setattr(type(logger), "experiment", property(fails))
    picture, checkpoint = np.zeros((2, 2, 3), np.uint8), tmp_path / "best.ckpt"
    for call in (
        lambda: logger.log_metrics({"loss": 1.0}, 1),
        lambda: logger.log_hyperparams({"seed": 1}),
        logger.save,
        lambda: logger.finalize("success"),
        lambda: tell_pictures([logger], "scenes/0", picture, 1),
        lambda: tell_histogram([logger], "health/x", np.ones(2), np.arange(3.0), 1),
        lambda: tell_table([logger], "test/frames", [{"name": "a", "x": 1.0}], {}, 1),
        lambda: tell_alert([logger], "title", "text", 1),
        lambda: tell_model([logger], checkpoint, {}),
    ):
        with pytest.warns(UserWarning, match="W&B: .*; the training goes on"):
            call()


def test_without_a_key_the_run_is_offline_and_the_environment_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    assert wandb_logger(str(tmp_path))._wandb_init["mode"] == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_logger(str(tmp_path))._wandb_init["mode"] == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(str(tmp_path))._wandb_init["mode"] == "disabled"
