"""The dashboard as a workspace on W&B's server."""

from __future__ import annotations

from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.report.dashboard import FRAMES, SCENES, SECTIONS, SUMMARY, SWEPT
from sfdfd.runs.wandb_file import STEP

__all__ = ["dashboard_workspace", "save_workspace"]


def dashboard_workspace(project_path: str, name: str) -> Any:
    """Lay out the dashboard as a workspace that is not saved yet.

    Args:
        project_path: ``ENTITY/PROJECT``.
        name: of the workspace.

    Raises:
        InputError: W&B's package for workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise InputError("workspaces need W&B's package for them: pip install 'sfdfd[dashboard]'") from None
    contents: dict[str, list[Any]] = {}
    for title, layout in SECTIONS.items():
        lines, media = [], []
        for panel in layout:
            if panel.kind == "histograms":
                media.append(panels.MediaBrowser(title=panel.title, media_keys=list(panel.keys)))
            else:
                lines.append(panels.LinePlot(title=panel.title, x=STEP, y=list(panel.keys), log_y=panel.log))
        contents[title] = [*lines, *media]
    scene_keys = [f"{SCENES}{index}" for index in range(2)]
    contents["Scenes"] = [panels.MediaBrowser(title="the same scenes over the steps", media_keys=scene_keys)]
    contents["Test frames, to sort"] = [panels.WeavePanelSummaryTable(table_name=FRAMES)]
    columns = [panels.ParallelCoordinatesPlotColumn(metric=panels.Config(key)) for key in SWEPT]
    columns += [panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(key)) for key in SUMMARY]
    contents["Sweep"] = [
        panels.ParallelCoordinatesPlot(title="parameters that were varied, and results", columns=columns)
    ]
    sections = [workspaces.Section(name=title, panels=content, is_open=True) for title, content in contents.items()]
    entity, _, project = project_path.rpartition("/")
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)


def save_workspace(workspace: Any) -> str:
    """Save a workspace on the server; return its address.

    Raises:
        InputError: it could not be saved.
    """
    try:
        workspace.save()
        return str(workspace.url)
    except Exception as error:  # no key, no network, no such project: W&B raises many types
        raise InputError(f"workspace={workspace.project}: W&B could not save it ({one_line(error)})") from None
