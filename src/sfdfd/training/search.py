"""Hyperparameter search: Optuna proposes and prunes, each trial is a training in a process and a run folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sfdfd.errors import InputError, checked_choice, checked_int, checked_number
from sfdfd.io.files import atomic_write
from sfdfd.io.run_record import logged

if TYPE_CHECKING:
    import optuna

__all__ = ["SearchSettings", "hold_study", "run_folder", "run_folders", "search", "write_best"]

RANGE_KEYS = {"low", "high", "log", "whole", "step", "choices"}
FOLDER, ERROR, SEARCHED = "folder", "error", "asked"
"""User attributes: a trial's run folder, why it failed; and of the study, what is searched."""
LOCK_FILE = ".tune.lock"
"""Beside ``study.db``; the process that holds it searches."""
OUTPUT_FILE = "said.txt"
"""What a training printed, in its run folder."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search, explained in ``conf/tune.yaml``.

    Raises:
        InputError: a value is wrong; the message names its key.
    """

    space: Mapping[str, Any]
    train: list[str]
    metric: str
    direction: Literal["minimize", "maximize"]
    trials: int
    jobs: int
    timeout_s: float | None
    prune: bool
    warmup_steps: int
    startup_trials: int
    seed: int

    def __post_init__(self) -> None:
        self.parameters()
        checked_choice(self.direction, "direction", ("minimize", "maximize"))
        for key, least in (("trials", 1), ("jobs", 1), ("warmup_steps", 0), ("startup_trials", 0)):
            checked_int(getattr(self, key), key, least)
        if self.timeout_s is not None:
            checked_number(self.timeout_s, "timeout_s")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SearchSettings:
        """Return the settings that a config has."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Return the range of every key that is varied.

        Raises:
            InputError: one is not a range.
        """
        ranges = _flat_space(self.space) if isinstance(self.space, dict) else {}
        if not ranges:
            raise InputError("space: nothing to vary; give space=NAME or '+space={KEY: {low: 0.1, high: 1}}'")
        for key, range_ in ranges.items():
            _check_range(key, range_)
        return ranges

    def best(self, values: list[float]) -> float:
        return min(values) if self.direction == "minimize" else max(values)


def _flat_space(node: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    ranges: dict[str, dict[str, Any]] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict) or set(value) & RANGE_KEYS:
            ranges[name] = value if isinstance(value, dict) else {"value": value}
        else:
            ranges.update(_flat_space(value, f"{name}."))
    return ranges


def _check_range(key: str, range_: Mapping[str, Any]) -> None:
    is_interval = {"low", "high"} <= set(range_) and "choices" not in range_
    is_choice = set(range_) == {"choices"} and isinstance(range_["choices"], list) and bool(range_["choices"])
    if not set(range_) <= RANGE_KEYS or not (is_interval or is_choice):
        raise InputError(
            f"space.{key}: expected {{low, high}} with log, whole or step, or {{choices: [...]}}, got {range_}"
        )
    if is_choice:
        return
    low, high = range_["low"], range_["high"]
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        raise InputError(f"space.{key}: low and high are numbers, got {range_}")
    if low > high or (range_.get("log") and low <= 0):
        raise InputError(f"space.{key}: expected low <= high, and low > 0 with log, got {range_}")


@contextmanager
def hold_study(folder: Path) -> Iterator[None]:
    """Hold the study's lock in the block; the system releases it if the process dies.

    A second search would mistake the trials at work for those of a killed call.

    Raises:
        InputError: another process holds it.
    """
    from filelock import FileLock, Timeout  # torch depends on it

    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"output_dir={folder}: another tune is at work on this study; wait for it, or give another output_dir "
            "(jobs=N in one call makes several trainings at a time)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def search(settings: SearchSettings, folder: Path, say: Callable[[str], None]) -> optuna.Study:
    """Run the trials that are missing, and return the study in ``folder/study.db``, whose lock the caller holds.

    Raises:
        InputError: Optuna is not installed, or the study is of another search.
    """
    study = _open_study(settings, folder)
    missing = settings.trials - sum(_has_ended(trial) for trial in study.trials)
    if missing > 0:
        study.optimize(
            lambda trial: _run_trial(trial, settings, folder, say),
            n_trials=missing,
            n_jobs=settings.jobs,
            timeout=settings.timeout_s,
            catch=(InputError,),
        )
    return study


def _open_study(settings: SearchSettings, folder: Path) -> optuna.Study:
    """Create the study or continue it; trials that a killed call left run again, in their folders."""
    try:
        import optuna
    except ImportError:
        raise InputError("the search needs Optuna: pip install 'sfdfd[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: Any = optuna.pruners.NopPruner()
    if settings.prune:
        pruner = optuna.pruners.MedianPruner(settings.startup_trials, settings.warmup_steps)
    storage = f"sqlite:///{folder.resolve() / 'study.db'}"
    names = optuna.get_all_study_names(storage)
    earlier_trials = len(optuna.load_study(study_name=names[0], storage=storage).trials) if names else 0
    study = optuna.create_study(
        storage=storage,
        study_name="sfdfd",
        load_if_exists=True,
        direction=settings.direction,
        sampler=optuna.samplers.TPESampler(seed=settings.seed + earlier_trials),  # proposals do not repeat
        pruner=pruner,
    )
    searched = {"space": settings.space, "train": settings.train, "metric": settings.metric}
    earlier = study.user_attrs.get(SEARCHED)
    if earlier not in (None, searched):
        raise InputError(f"{folder}/study.db: the study of another search ({earlier}); give another output_dir")
    study.set_user_attr(SEARCHED, searched)
    _enqueue_interrupted(study)
    return study


def _enqueue_interrupted(study: optuna.Study) -> None:
    """Queue the trials of killed calls again, each with its run folder."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    newest = {trial.user_attrs.get(FOLDER): trial for trial in study.trials}
    for run, trial in newest.items():
        if run is not None and trial.state == TrialState.FAIL and not _has_ended(trial):
            study.enqueue_trial(trial.params, user_attrs={FOLDER: run})


def _has_ended(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether a trial completed, was pruned or failed with an error; not if its search was killed."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or ERROR in trial.user_attrs)


def _run_trial(trial: optuna.Trial, settings: SearchSettings, folder: Path, say: Callable[[str], None]) -> float:
    """Train once; return the metric's best value.

    Raises:
        InputError: the training failed.
        optuna.TrialPruned: it was stopped because it was worse than the others.
    """
    chosen = {key: _suggest(trial, key, range_) for key, range_ in settings.parameters().items()}
    run = run_folder(trial, folder)
    if FOLDER not in trial.user_attrs:  # a trial that runs again keeps its folder
        trial.set_user_attr(FOLDER, str(run))
    overrides = [*settings.train, *(f"{key}={value}" for key, value in chosen.items())]
    code = _train(trial, overrides, settings.metric, run)
    values = [value for _, value in logged(run, settings.metric)]
    if code or not values:
        reason = _failure(run) or f"exit code {code}, no {settings.metric} in its log"
        trial.set_user_attr(ERROR, reason)
        say(f"trial {trial.number} failed: {reason} ({run / OUTPUT_FILE})")
        raise InputError(reason)
    best = settings.best(values)
    shown = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in chosen.items()
    )
    print(f"trial {trial.number}: {settings.metric} {best:.5g} with {shown}", flush=True)
    return best


def _train(trial: optuna.Trial, overrides: list[str], metric: str, run: Path) -> int:
    """Run the training, report its metric to the trial meanwhile, and return its exit code.

    Raises:
        optuna.TrialPruned: the trial is to be stopped.
    """
    import optuna

    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sfdfd.train", *overrides, f"output_dir={run}", "resume=last"]
    reported: set[int] = set()
    with (run / OUTPUT_FILE).open("a") as output:
        training = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while True:
                code = _exit_code(training)
                for step, value in logged(run, metric):
                    if int(step) not in reported:
                        reported.add(int(step))
                        trial.report(value, int(step))
                if code is not None:
                    return code
                if trial.should_prune():
                    raise optuna.TrialPruned
        finally:
            if training.poll() is None:
                training.terminate()
                training.wait()


def _exit_code(training: subprocess.Popen[bytes], wait_s: float = 1.0) -> int | None:
    """Return the exit code, or None if the process still runs after a wait."""
    try:
        return training.wait(wait_s)
    except subprocess.TimeoutExpired:
        return None


def _failure(run: Path) -> str | None:
    """Return the last message for the user in what a training printed."""
    lines = [line for line in (run / OUTPUT_FILE).read_text().splitlines() if line.startswith("sfdfd: ")]
    return lines[-1].removeprefix("sfdfd: ") if lines else None


def run_folder(trial: Any, folder: Path) -> Path:
    """Return the run folder of a trial, also if the study was moved since the trial began."""
    return folder / Path(trial.user_attrs.get(FOLDER) or f"{trial.number}").name


def run_folders(study: optuna.Study, folder: Path) -> list[Path]:
    """Return the run folders of all trials that have begun, each once."""
    return list(dict.fromkeys(run_folder(trial, folder) for trial in study.trials if FOLDER in trial.user_attrs))


def _suggest(trial: optuna.Trial, key: str, range_: Mapping[str, Any]) -> Any:
    if "choices" in range_:
        return trial.suggest_categorical(key, range_["choices"])
    options = {name: range_[name] for name in ("log", "step") if range_.get(name)}
    suggest = trial.suggest_int if range_.get("whole") else trial.suggest_float
    return suggest(key, range_["low"], range_["high"], **options)


def write_best(study: optuna.Study, folder: Path) -> list[str]:
    """Write ``best.yaml``; return the overrides of the best trial.

    Raises:
        InputError: no trial has completed.
    """
    import yaml

    try:
        best = study.best_trial
    except ValueError:
        errors = [trial.user_attrs[ERROR] for trial in study.trials if ERROR in trial.user_attrs]
        raise InputError(f"no trial has ended: {errors[-1] if errors else 'all were stopped'}") from None
    overrides = [*study.user_attrs[SEARCHED]["train"], *(f"{key}={value}" for key, value in best.params.items())]
    content = {"trial": best.number, "value": best.value, "overrides": overrides, "run": str(run_folder(best, folder))}
    with atomic_write(folder / "best.yaml") as part:
        part.write_text(yaml.safe_dump(content, sort_keys=False))
    return overrides
