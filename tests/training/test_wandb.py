"""Files of offline W&B runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from lightning.pytorch.utilities import rank_zero_only

from sfdfd.runs.wandb_file import MAGIC, read_wandb, wandb_files
from sfdfd.training.loggers import FaultTolerantWandbLogger, wandb_logger
from tests.commands import QUIET, SMALL

CONFIG = {"optimizer.lr": 1e-3, "data.root": "a folder", "trainer.max_time": None, "module.compile": False}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A logger whose run writes nothing by itself."""
    pytest.importorskip("wandb")
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc" / "files"
    folder.mkdir(parents=True)
    config = {}
    experiment = SimpleNamespace(dir=str(folder), config=config, id="abc")
    logger = wandb_logger(str(tmp_path), mode="offline", project="sfdfd")
    monkeypatch.setattr(FaultTolerantWandbLogger, "experiment", property(lambda self: experiment))
    monkeypatch.setattr(
        "lightning.pytorch.loggers.WandbLogger.log_hyperparams", lambda self, params: config.update(params)
    )
    return logger, folder


def test_the_configuration_is_written_as_soon_as_it_is_logged(offline):
    logger, folder = offline
    logger.log_hyperparams(CONFIG)
    logger.log_hyperparams({"run.git_sha": "0" * 40})
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written == {key: {"value": value} for key, value in {**CONFIG, "run.git_sha": "0" * 40}.items()}
    (folder.parent / "run-abc.wandb").write_bytes(MAGIC + b"\0\0\0")  # as W&B leaves it in its first seconds
    (file,) = wandb_files(folder.parents[2])
    assert read_wandb(file).config == {**CONFIG, "run.git_sha": "0" * 40}


def test_only_the_first_process_writes_the_configuration(offline, monkeypatch):
    logger, folder = offline
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger.log_hyperparams(CONFIG)
    assert not list(folder.iterdir())


def test_a_configuration_that_cannot_be_written_is_a_warning(offline):
    logger, folder = offline
    folder.rmdir()
    folder.write_text("not a folder")
    with pytest.warns(UserWarning, match="W&B: .*the training goes on"):
        logger.log_hyperparams(CONFIG)


@pytest.mark.slow
def test_parallel_jobs_that_are_killed_before_a_step_leave_their_configurations(tmp_path):
    pytest.importorskip("wandb")
    repository = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), repository)))
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "sfdfd.train", "experiment=procedural", "trainer.max_steps=2", "logger=[csv,wandb]",
             "+callbacks.killed._target_=tests.training.killing_callback.KilledBeforeTheFirstStep", f"seed={seed}",
             f"output_dir=job {seed}", *SMALL],
            cwd=tmp_path, env={**os.environ, **QUIET, "WANDB_API_KEY": "", "PYTHONPATH": path}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    for job in jobs:
        _, said = job.communicate()
        assert job.returncode == -signal.SIGKILL, said
    names = set()
    for seed in (1, 2):
        (file,) = wandb_files(tmp_path / f"job {seed}")
        run = read_wandb(file)
        resolved = yaml.safe_load((tmp_path / f"job {seed}" / "config.yaml").read_text())
        assert run.config["seed"] == seed == resolved["seed"] and run.config["trainer.max_steps"] == 2
        assert run.config["optics.camera.f_number"] == resolved["optics"]["camera"]["f_number"]
        assert not run.history
        names.add(file.name)
    assert len(names) == 2
