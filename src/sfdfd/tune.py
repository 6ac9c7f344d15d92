"""Search hyperparameters: ``python -m sfdfd.tune space=default trials=20``. Each trial is ``python -m sfdfd.train`` in a
process and a run folder of its own; Optuna proposes and prunes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import optuna
    from omegaconf import DictConfig

KINDS = {"low", "high", "log", "whole", "step", "choices"}
FOLDER, ERROR = "folder", "error"
"""What a trial's attributes are called: its run folder, and why it failed."""
LOCK = ".tune.lock"
"""Beside ``study.db``; who holds it searches."""


def tune(config: DictConfig) -> None:
    """Search as configured; ``best.yaml`` holds the overrides of the best trial."""
    from pathlib import Path

    from sfdfd.errors import checked_choice, checked_number, checked_whole

    settings = plain(config)
    space = _checked_space(settings["space"])
    checked_choice(settings["direction"], "direction", ("minimize", "maximize"))
    for key, least in (("trials", 1), ("jobs", 1), ("warmup_steps", 0), ("startup_trials", 0)):
        checked_whole(settings[key], key, least)
    if settings["timeout_s"] is not None:
        checked_number(settings["timeout_s"], "timeout_s")
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _search(settings, space, folder)


def _search(settings: dict[str, Any], space: dict[str, dict[str, Any]], folder: Path) -> None:
    """Make the trials that are missing; compare all of them."""

    from sfdfd.errors import InputError
    from sfdfd.runs.comparison import compare_runs, write_comparison

    study = _study(settings, folder)
    wanted = settings["trials"] - sum(_has_ended(trial) for trial in study.trials)
    if wanted > 0:
        study.optimize(
            lambda trial: _trial(trial, space, settings, folder),
            n_trials=wanted,
            n_jobs=settings["jobs"],
            timeout=settings["timeout_s"],
            catch=(InputError,),
        )
    rows = compare_runs(
        list(dict.fromkeys(_run_of(trial, folder) for trial in study.trials if FOLDER in trial.user_attrs))
    )
    if rows:
        write_comparison(rows, folder)
    _write_best(study, folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the study for this process as long as the block lasts; the system lets go of it when the process dies. A second
    search would take the trials at work for those of one that was killed.

    Raises:
        InputError: another process holds it.
    """
    from filelock import FileLock, Timeout  # torch depends on it

    from sfdfd.errors import InputError

    lock = FileLock(folder / LOCK)
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


def _checked_space(space: Any) -> dict[str, dict[str, Any]]:
    """KEY -> how it is varied.

    Raises:
        InputError: it is none of the forms.
    """
    from sfdfd.errors import InputError

    found = _flattened(space) if isinstance(space, dict) else {}
    if not found:
        raise InputError("space: nothing to vary; give space=NAME or '+space={KEY: {low: 0.1, high: 1}}'")
    for key, how in found.items():
        ranged = {"low", "high"} <= set(how) and "choices" not in how
        chosen = set(how) == {"choices"} and isinstance(how["choices"], list) and how["choices"]
        if not set(how) <= KINDS or not (ranged or chosen):
            raise InputError(
                f"space.{key}: expected {{low, high}} with log, whole or step, or {{choices: [...]}}, got {how}"
            )
        if ranged and not (isinstance(how["low"], (int, float)) and isinstance(how["high"], (int, float))):
            raise InputError(f"space.{key}: low and high are numbers, got {how}")
        if ranged and (how["low"] > how["high"] or (how.get("log") and how["low"] <= 0)):
            raise InputError(f"space.{key}: expected low <= high, and low > 0 with log, got {how}")
    return found


def _flattened(node: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict) or set(value) & KINDS:
            found[name] = value if isinstance(value, dict) else {"value": value}
        else:
            found.update(_flattened(value, f"{name}."))
    return found


def _study(settings: Mapping[str, Any], folder: Path) -> optuna.Study:
    """The study in ``study.db``, new or gone on with: trials that a killed call left are made again, in their
    folders.

    Raises:
        InputError: Optuna is not there, or the study is of another search.
    """
    from sfdfd.errors import InputError

    try:
        import optuna
    except ImportError:
        raise InputError("the search needs Optuna: pip install 'sfdfd[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: Any = optuna.pruners.NopPruner()
    if settings["prune"]:
        pruner = optuna.pruners.MedianPruner(settings["startup_trials"], settings["warmup_steps"])
    storage = f"sqlite:///{folder.resolve() / 'study.db'}"
    names = optuna.get_all_study_names(storage)
    known = (
        len(optuna.load_study(study_name=names[0], storage=storage).trials) if names else 0
    )  # proposals do not begin anew
    study = optuna.create_study(
        storage=storage,
        study_name="sfdfd",
        load_if_exists=True,
        direction=settings["direction"],
        sampler=optuna.samplers.TPESampler(seed=settings["seed"] + known),
        pruner=pruner,
    )
    asked = {key: settings[key] for key in ("space", "train", "metric")}
    before = study.user_attrs.get("asked")
    if before not in (None, asked):
        raise InputError(f"{folder}/study.db: the study of another search ({before}); give another output_dir")
    study.set_user_attr("asked", asked)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    newest = {trial.user_attrs.get(FOLDER): trial for trial in study.trials}
    for run, trial in newest.items():
        if run is not None and trial.state == optuna.trial.TrialState.FAIL and not _has_ended(trial):
            study.enqueue_trial(trial.params, user_attrs={FOLDER: run})
    return study


def _has_ended(trial: optuna.trial.FrozenTrial) -> bool:
    """Well, by pruning, or with an error: not by somebody who killed the search."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or ERROR in trial.user_attrs)


def _trial(
    trial: optuna.Trial, space: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], folder: Path
) -> float:
    """Train once; the metric's best value.

    Raises:
        InputError: the training failed.
        optuna.TrialPruned: it was stopped, being worse than the others.
    """
    import subprocess
    import sys

    import optuna

    from sfdfd.errors import InputError
    from sfdfd.io.run_record import logged

    chosen = {key: _suggested(trial, key, how) for key, how in space.items()}
    run = _run_of(trial, folder)
    if FOLDER not in trial.user_attrs:  # a trial that is made again keeps the name that it is known by
        trial.set_user_attr(FOLDER, str(run))
    overrides = [*settings["train"], *(f"{key}={value}" for key, value in chosen.items())]
    line = [sys.executable, "-m", "sfdfd.train", *overrides, f"output_dir={run}", "resume=last"]
    run.mkdir(parents=True, exist_ok=True)
    best = min if settings["direction"] == "minimize" else max
    reported: set[int] = set()
    with (run / "said.txt").open("a") as said:
        training = subprocess.Popen(line, stdout=said, stderr=said)
        try:
            while True:
                code = _waited(training)
                for step, value in logged(run, settings["metric"]):
                    if int(step) not in reported:
                        reported.add(int(step))
                        trial.report(value, int(step))
                if code is not None:
                    break
                if trial.should_prune():
                    raise optuna.TrialPruned
        finally:
            if training.poll() is None:
                training.terminate()
                training.wait()
    values = [value for _, value in logged(run, settings["metric"])]
    if code or not values:
        told = [one for one in (run / "said.txt").read_text().splitlines() if one.startswith("sfdfd: ")]
        why = told[-1].removeprefix("sfdfd: ") if told else f"exit code {code}, no {settings['metric']} in its log"
        trial.set_user_attr(ERROR, why)
        say(f"trial {trial.number} failed: {why} ({run}/said.txt)")
        raise InputError(why)
    words = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in chosen.items()
    )
    print(f"trial {trial.number}: {settings['metric']} {best(values):.5g} with {words}", flush=True)
    return best(values)


def _run_of(trial: Any, folder: Path) -> Path:
    """The run folder of a trial, wherever the study has been moved to since it began."""
    from pathlib import Path

    return folder / Path(trial.user_attrs.get(FOLDER) or f"{trial.number}").name


def _waited(training: Any, seconds: float = 1.0) -> int | None:
    """The exit code, or None while it runs."""
    import subprocess

    try:
        return training.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _suggested(trial: optuna.Trial, key: str, how: Mapping[str, Any]) -> Any:
    if "choices" in how:
        return trial.suggest_categorical(key, how["choices"])
    options = {name: how[name] for name in ("log", "step") if how.get(name)}
    if how.get("whole"):
        return trial.suggest_int(key, how["low"], how["high"], **options)
    return trial.suggest_float(key, how["low"], how["high"], **options)


def _write_best(study: optuna.Study, folder: Path) -> None:
    """``best.yaml``, and the command that trains so again.

    Raises:
        InputError: no trial has ended well.
    """
    import yaml

    from sfdfd.errors import InputError
    from sfdfd.io.files import atomic_write

    try:
        best = study.best_trial
    except ValueError:
        errors = [trial.user_attrs[ERROR] for trial in study.trials if ERROR in trial.user_attrs]
        raise InputError(f"no trial has ended: {errors[-1] if errors else 'all were stopped'}") from None
    overrides = [*study.user_attrs["asked"]["train"], *(f"{key}={value}" for key, value in best.params.items())]
    told = {"trial": best.number, "value": best.value, "overrides": overrides, "run": str(_run_of(best, folder))}
    with atomic_write(folder / "best.yaml") as part:
        part.write_text(yaml.safe_dump(told, sort_keys=False))
    states = [trial.state.name.lower() for trial in study.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{len(states)} trials ({counted}); best: trial {best.number}, {best.value:.5g}")
    print(f"again: python -m sfdfd.train {' '.join(overrides)}")


main = command("tune")(tune)

if __name__ == "__main__":
    main()
