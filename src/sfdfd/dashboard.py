"""The dashboard of a run: ``python -m sfdfd.dashboard run=DIR``, or as a W&B workspace: ``workspace=ENTITY/PROJECT``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.report.dashboard import RunLog


def dashboard(config: DictConfig) -> None:
    """Draw a run's panels, or lay them out on W&B's server."""
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.evaluation.tables import worst_first_table
    from sfdfd.report.dashboard import write_dashboard

    settings = as_plain_dict(config)
    if (settings["run"] is None) == (settings["workspace"] is None):
        raise InputError("give run=DIR to draw its panels, or workspace=ENTITY/PROJECT to lay them out there")
    if settings["workspace"] is not None:
        from sfdfd.runs.wandb_workspace import dashboard_workspace, save_workspace

        workspace = dashboard_workspace(str(settings["workspace"]), str(settings["name"]))
        print(f"workspace: {save_workspace(workspace)}")
        return
    run = Path(str(settings["run"]))
    test_frames = worst_first_table(run / "metrics.csv")
    page, image = write_dashboard(run, _read_log(run), Path(settings["output_dir"]), test_frames)
    print(f"page:    {page}\npicture: {image}")


def _read_log(run: Path) -> RunLog:
    """Read what a run logged, from W&B's files or else from ``csv/metrics.csv``.

    Raises:
        InputError: the run holds neither.
    """
    from functools import cache

    from sfdfd.errors import InputError
    from sfdfd.io.run_record import logged
    from sfdfd.report.dashboard import RunLog
    from sfdfd.runs.wandb_file import read_wandb, wandb_files

    parts = [read_wandb(file) for file in wandb_files(run)]
    if not parts and not (run / "csv" / "metrics.csv").is_file():
        raise InputError(f"run={run}: no log below; train with logger=[csv,wandb]")

    @cache
    def curves(key: str) -> list[tuple[float, float]]:
        points = [point for part in parts for point in part.logged(key)] if parts else logged(run, key)
        return sorted(dict(points).items())  # the later value of a step that was repeated

    @cache
    def histograms(key: str) -> list[tuple[float, Any]]:
        return sorted(dict(point for part in parts for point in part.media(key)).items())

    if not parts:
        return RunLog(run.name, curves, histograms, "csv/metrics.csv")
    name = next((f"{part.name} ({part.id})" for part in parts if part.name), run.name)
    return RunLog(name, curves, histograms, "the files of W&B's logger, drawn without its server", parts[-1].config)


main = command("dashboard")(dashboard)

if __name__ == "__main__":
    main()
