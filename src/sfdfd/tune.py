"""Search hyperparameters: ``python -m sfdfd.tune space=default trials=20``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs.command import as_plain_dict, command, print_to_stderr

if TYPE_CHECKING:
    from omegaconf import DictConfig


def tune(config: DictConfig) -> None:
    """Search as configured; ``best.yaml`` holds the overrides of the best trial."""
    from pathlib import Path

    from sfdfd.runs.comparison import compare_runs, write_comparison
    from sfdfd.training.search import SearchSettings, hold_study, run_folders, search, write_best

    settings = SearchSettings.of(as_plain_dict(config))
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with hold_study(folder):
        study = search(settings, folder, print_to_stderr)
        rows = compare_runs(run_folders(study, folder))
        if rows:
            write_comparison(rows, folder)
        overrides = write_best(study, folder)
    states = [trial.state.name.lower() for trial in study.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{len(states)} trials ({counts}); best: trial {study.best_trial.number}, {study.best_value:.5g}")
    print(f"again: python -m sfdfd.train {' '.join(overrides)}")


main = command("tune")(tune)

if __name__ == "__main__":
    main()
