"""The dashboard of a run: ``python -m sfdfd.dashboard run=DIR``, or as a W&B workspace: ``workspace=ENTITY/PROJECT``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


def dashboard(config: DictConfig) -> None:
    """Draw a run's panels, or lay them out on W&B's server."""
    from pathlib import Path

    from sfdfd.errors import InputError

    settings = plain(config)
    if (settings["run"] is None) == (settings["workspace"] is None):
        raise InputError("give run=DIR, whose panels are drawn, or workspace=ENTITY/PROJECT, which gets them")
    if settings["workspace"] is not None:
        print(f"workspace: {_saved(_workspace(str(settings['workspace']), str(settings['name'])))}")
        return
    run, output_dir = Path(str(settings["run"])), Path(settings["output_dir"])
    page, picture = _drawn(run, output_dir)
    print(f"page:    {page}\npicture: {picture}")


def _drawn(run: Path, output_dir: Path) -> tuple[Path, Path]:
    """``dashboard.html`` and ``dashboard.png`` of a run folder.

    Raises:
        InputError: it holds no log.
    """
    from functools import cache

    import imageio.v3 as iio

    from sfdfd.errors import InputError
    from sfdfd.io.files import atomic_write
    from sfdfd.io.run_record import logged
    from sfdfd.report.dashboard import FRAMES, SCENES, SECTIONS, dashboard_figure, panel_figure
    from sfdfd.report.html import Section, picture, write_page
    from sfdfd.report.pictures import to_rgb
    from sfdfd.runs.wandb_file import read_wandb, wandb_files

    told = [read_wandb(file) for file in wandb_files(run)]
    if not told and not (run / "csv" / "metrics.csv").is_file():
        raise InputError(f"run={run}: no log below; train with logger=[csv,wandb]")

    @cache
    def curves(key: str) -> list[tuple[float, float]]:
        points = [point for one in told for point in one.logged(key)] if told else logged(run, key)
        return sorted(dict(points).items())  # of a step that was made twice, the later

    @cache
    def histograms(key: str) -> list[tuple[float, Any]]:
        return sorted(dict(point for one in told for point in one.media(key)).items())

    name = next((f"{one.name} ({one.id})" for one in told if one.name), run.name)
    sections: list[Section] = []
    for title, panels in SECTIONS.items():
        drawn = {p.title: panel_figure(p, curves, histograms) for p in panels}
        shown = [picture(key, to_rgb(figure)) for key, figure in drawn.items() if figure is not None]
        if shown:
            sections.append(Section(title=title, rows=[{"title": "", "pictures": shown}]))
    if scenes := _scenes(run):
        sections.append(Section(title=f"The same scenes over the steps ({SCENES}*)", rows=scenes))
    if table := _frames(run):
        sections.append(Section(title=f"Test frames, worst first ({FRAMES})", table=table))
    facts = [(key, str(value)) for one in told[-1:] for key, value in one.config.items() if key[0] != "_"]
    source = "what the run wrote for W&B, drawn here without its server" if told else "csv/metrics.csv"
    sections.append(Section(title="Configuration", text=[f"Source: {source}."], facts=facts))
    output_dir.mkdir(parents=True, exist_ok=True)
    page, file = output_dir / "dashboard.html", output_dir / "dashboard.png"
    write_page(page, f"sfdfd: {name}", sections)
    with atomic_write(file) as part:
        iio.imwrite(part, to_rgb(dashboard_figure(name, curves, histograms)), extension=".png")
    return page, file


def _scenes(run: Path) -> list[dict[str, Any]]:
    """The first, a middle and the last picture of each fixed scene."""
    from sfdfd.report.html import picture_file

    found: dict[str, list[Path]] = {}
    for file in sorted((run / "pictures").glob("step_*_*.png")):
        found.setdefault(file.stem.split("_", 2)[2], []).append(file)
    rows = []
    for scene, files in found.items():
        chosen = [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})]
        titles = [f"step {file.stem.split('_')[1].lstrip('0') or 0}" for file in chosen]
        shown = [
            one for title, file in zip(titles, chosen, strict=True) for one in picture_file(title, file, largest_px=900)
        ]
        if shown:
            rows.append({"title": f"scene {scene}", "pictures": shown})
    return rows


def _frames(run: Path) -> dict[str, Any] | None:
    """The network's test frames, by their error."""
    from sfdfd.evaluation.evaluator import MAIN, SHOWN, read_rows

    file = run / "metrics.csv"
    if not file.is_file():
        return None
    rows = [row for row in read_rows(file) if row["method"] == MAIN]
    keys = [key for key in SHOWN if any(row.get(key) is not None for row in rows)]
    rows.sort(key=lambda row: -(row.get(keys[0]) or 0.0))
    lines = [[row["name"], *("-" if row.get(k) is None else f"{row[k]:.4g}" for k in keys)] for row in rows]
    return {"header": ["frame", *keys], "rows": lines}


def _workspace(place: str, name: str) -> Any:
    """The layout as a W&B workspace that is not saved yet.

    Raises:
        InputError: the package for it is not there.
    """
    from sfdfd.errors import InputError
    from sfdfd.report.dashboard import FRAMES, SCENES, SECTIONS, SUMMARY, SWEPT
    from sfdfd.runs.wandb_file import STEP

    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise InputError("workspaces need W&B's package for them: pip install 'sfdfd[dashboard]'") from None
    entity, _, project = place.rpartition("/")
    sections = []
    for title, layout in SECTIONS.items():
        lines = [
            panels.LinePlot(title=one.title, x=STEP, y=list(one.keys), log_y=one.log)
            for one in layout
            if one.kind != "histograms"
        ]
        media = [
            panels.MediaBrowser(title=one.title, media_keys=list(one.keys))
            for one in layout
            if one.kind == "histograms"
        ]
        sections.append(workspaces.Section(name=title, panels=[*lines, *media], is_open=True))
    scenes = panels.MediaBrowser(title="the same scenes over the steps", media_keys=[f"{SCENES}{i}" for i in range(2)])
    sections.append(workspaces.Section(name="Scenes", panels=[scenes], is_open=True))
    frames = panels.WeavePanelSummaryTable(table_name=FRAMES)
    sections.append(workspaces.Section(name="Test frames, to sort", panels=[frames], is_open=True))
    columns = [panels.ParallelCoordinatesPlotColumn(metric=panels.Config(key)) for key in SWEPT]
    columns += [panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(key)) for key in SUMMARY]
    plot = panels.ParallelCoordinatesPlot(title="what was varied, and what came of it", columns=columns)
    sections.append(workspaces.Section(name="Sweep", panels=[plot], is_open=True))
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)


def _saved(workspace: Any) -> str:
    """The address of the workspace, once it is on the server.

    Raises:
        InputError: it could not be saved.
    """
    from sfdfd.errors import InputError, one_line

    try:
        workspace.save()
        return str(workspace.url)
    except Exception as error:  # no key, no network, no such project: whatever W&B raises
        raise InputError(f"workspace={workspace.project}: W&B did not take it ({one_line(error)})") from None


main = command("dashboard")(dashboard)

if __name__ == "__main__":
    main()
