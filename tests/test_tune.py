"""The search: trials are trainings, worse ones are pruned, killed ones run again."""

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest
import yaml

from sfdfd.training.search import hold_study, run_folder
from tests.commands import SMALL, inside, one_line

TRAIN = ["experiment=procedural", *SMALL, "trainer.max_steps=4", "trainer.val_check_interval=2", "pictures=0"]
CALL = [f"train={json.dumps(TRAIN)}", "space=default", "output_dir=found", "prune=false"]


@pytest.mark.slow
def test_a_search_finds_the_best_trial_and_continues(tmp_path):
    done = inside("tune", *CALL, "trials=2", cwd=tmp_path)
    assert "2 trials (2 complete)" in done.stdout
    inside("tune", *CALL, "trials=3", cwd=tmp_path)  # one more
    study = optuna.load_study(study_name="sfdfd", storage=f"sqlite:///{tmp_path}/found/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert len({json.dumps(trial.params) for trial in study.trials}) == 3, "the search began anew"
    best = yaml.safe_load((tmp_path / "found" / "best.yaml").read_text())
    values = {}
    for trial in study.trials:
        with (tmp_path / "found" / str(trial.number) / "csv" / "metrics.csv").open() as file:
            values[trial.number] = min(
                float(row["val/reconstruction"]) for row in csv.DictReader(file) if row["val/reconstruction"]
            )
        assert trial.value == values[trial.number]
    assert best["trial"] == min(values, key=values.get) and best["overrides"][: len(TRAIN)] == TRAIN
    assert 1e-4 <= float(best["overrides"][-3].removeprefix("optimizer.lr=")) <= 5e-3
    with (tmp_path / "found" / "comparison.csv").open() as file:
        assert len({row["optimizer.lr"] for row in csv.DictReader(file)}) == 3
    done = inside("tune", 'train=["experiment=procedural"]', "output_dir=found", "trials=4", expect=2, cwd=tmp_path)
    assert "the study of another search" in one_line(done.stderr)


@pytest.mark.slow
def test_a_killed_trial_runs_again_in_its_folder(tmp_path):
    inside("tune", *CALL, "trials=1", cwd=tmp_path)
    storage = f"sqlite:///{tmp_path}/found/study.db"
    study = optuna.load_study(study_name="sfdfd", storage=storage)
    left = study.ask()  # as a call that was killed leaves it
    left.suggest_float("optimizer.lr", 1e-4, 5e-3, log=True)
    left.suggest_float("loss.smoothness", 1e-3, 1e-1, log=True)
    left.suggest_float("loss.aif_consistency", 1e-2, 1.0, log=True)
    left.set_user_attr("folder", "found/1")
    inside("tune", *CALL, "trials=2", cwd=tmp_path)
    again = optuna.load_study(study_name="sfdfd", storage=storage).trials
    assert [trial.state.name for trial in again] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert again[2].params == left.params and again[2].user_attrs["folder"] == "found/1"
    assert (tmp_path / "found" / "1" / "metrics.json").is_file() and not (tmp_path / "found" / "2").exists()


@pytest.mark.slow
def test_a_failed_trial_is_reported_and_the_others_continue(tmp_path):
    done = inside("tune", f"train={json.dumps(TRAIN)}", "~space", "+space={network.width: {choices: [-1]}}", "output_dir=f",
                  "trials=2", expect=2, cwd=tmp_path)  # fmt: skip
    assert done.stderr.count("failed: width (network.width)") == 2
    assert "no trial has ended: width (network.width)" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("space", "words"), [
    ("{optimizer.lr: {low: 1}}", "space.optimizer.lr: expected {low, high}"),
    ("{optimizer.lr: {low: 2, high: 1}}", "expected low <= high"),
    ("{optimizer.lr: {low: 0, high: 1, log: true}}", "low > 0 with log"),
    ("{optimizer.lr: {low: a, high: 1}}", "low and high are numbers"),
    ("{optimizer.lr: {choices: []}}", "expected {low, high}"),
    ("{optimizer.lr: 3}", "expected {low, high}"),
    ("{}", "nothing to vary"),
])  # fmt: skip
def test_an_invalid_space_ends_with_one_line(space, words, tmp_path):
    done = inside("tune", "~space", f"+space={space}", "output_dir=o", expect=2, cwd=tmp_path)
    assert words in one_line(done.stderr)


def test_a_second_search_in_the_same_folder_is_refused(tmp_path):
    """It ends in one line, touches no trial, and can begin when the first has ended."""
    folder = tmp_path / "found"
    folder.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", study_name="sfdfd")
    study.ask()  # the trial at work
    first = "from pathlib import Path; from sfdfd.training.search import hold_study\n"
    first += f"with hold_study(Path({str(folder)!r})): print(1); input()"
    holding = subprocess.Popen([sys.executable, "-c", first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holding.stdout.readline() == "1\n"
    done = inside("tune", *CALL, "trials=1", cwd=tmp_path, expect=2)
    assert "another tune is at work on this study" in one_line(done.stderr)
    assert [trial.state.name for trial in study.trials] == ["RUNNING"]
    holding.kill()  # leaves no lock behind
    holding.communicate()
    with hold_study(folder):
        pass


def test_a_moved_study_finds_its_trials(tmp_path):
    """A trial records the folder where the study was when the trial began."""
    trial = SimpleNamespace(number=3, user_attrs={"folder": "/was/here/once/3"})
    assert run_folder(trial, tmp_path) == tmp_path / "3"
    assert run_folder(SimpleNamespace(number=4, user_attrs={}), tmp_path) == tmp_path / "4"
