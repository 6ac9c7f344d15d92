"""The page: upload photographs, see what was recognised, predict, refocus, and download the files."""

from __future__ import annotations

import functools
import html
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")

import gradio as gr
import numpy as np
from fastapi import FastAPI

from sfdfd.errors import InputError
from sfdfd.io.depth_maps import DEPTH_MAP_SUFFIXES
from sfdfd.io.images import IMAGE_SUFFIXES, to_bytes, write_image
from sfdfd.optics.depth import SIDES
from sfdfd.refinement.refiner import DEFAULT_SECONDS
from sfdfd.report.refocus import FinishedPrediction
from sfdfd.report.retouch_editor import read_editor_page
from sfdfd.web.jobs import Job
from sfdfd.web.messages import (
    UNITS,
    describe_diagnosis,
    describe_failure,
    describe_left_out,
    describe_prediction,
    settings_from_fields,
)
from sfdfd.web.origins import AllowedHosts
from sfdfd.web.server import RequestFilter
from sfdfd.web.uploads import TEXTS, Limits, store_prior, store_uploads

__all__ = ["Sessions", "application"]

SHOWN_PX = 640
"""Longer side of the refocused picture on the page."""
OUTPUTS = ["exr", "portrait", "glb", "slice_index", "refocus"]
CSS = """
#refocused img, #refocused canvas { cursor: crosshair; }
.gradio-container { max-width: 60rem !important; }
#editor { padding: 0 !important; }
#editor iframe { width: 100%; border: 0; height: 40rem; }
#check { min-width: min(240px, 100%) !important; }
@media (max-width: 600px) {
  #check_result :is(td, th), #recognised :is(td, th) {
    padding: 0.3rem !important; font-size: 0.78rem; word-break: normal !important; }
}
"""
FONTS = ["system-ui", "sans-serif"]
RESULTS = 9
"""Number of values of ``_Handlers._results``."""
STROKES = "() => [document.querySelector('#editor iframe').contentDocument.querySelector('.retouch').retouch()]"
"""Reads the strokes from the editor, in the browser."""
CACHE_S = 3600
"""Gradio removes its uploaded files after this time."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
ONE_STACK: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "stack", **PRIVATE}
ONE_PICTURE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "picture", **PRIVATE}


class Sessions:
    """The jobs of all open pages, one job for each.

    Args:
        root: the folder of all files.
        limits: of uploads.
        longest_s: longest time of a command in seconds.
    """

    def __init__(self, root: Path, limits: Limits, longest_s: float) -> None:
        self.root, self.limits, self.longest_s = root, limits, longest_s
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def new(self, session: str) -> Job:
        """Start a new job in a session; end and remove the previous one."""
        self.leave(session)
        job = Job(self.root, self.longest_s)
        with self._lock:
            self.jobs[session] = job
        return job

    def of(self, session: str) -> Job:
        """Return the job of a session.

        Raises:
            InputError: it has none.
        """
        if session not in self.jobs:
            raise InputError("give photographs first, or choose the example")
        return self.jobs[session]

    def leave(self, session: str) -> None:
        """End and remove a session's job."""
        with self._lock:
            job = self.jobs.pop(session, None)
        if job is not None:
            job.close()

    def close(self) -> None:
        """End and remove all jobs."""
        for session in list(self.jobs):
            self.leave(session)


def _show_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show an ``InputError`` on the page as one line."""

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    return wrapped


class _Handlers:
    """The functions that the page's controls call."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def upload(self, files: Sequence[dict[str, Any]] | None, request: gr.Request) -> tuple[str, Any, Any]:
        """Store photographs, and describe what is recognised.

        ``files`` are as Gradio stores them: names in their paths lose characters, but it keeps the user's name
        in ``orig_name``.
        """
        session = str(request.session_hash)
        if not files:
            self.sessions.leave(session)
            return "", gr.update(interactive=False), gr.update(visible=False)
        job = self.sessions.new(session)
        try:
            paths = [Path(file["path"]) for file in files]
            names = [file.get("orig_name") or path.name for file, path in zip(files, paths, strict=True)]
            store_uploads(paths, job.photographs, self.sessions.limits, names)
        except InputError:
            self.sessions.leave(session)
            raise
        try:
            text = describe_diagnosis(job.diagnose({}))
        except (
            InputError
        ) as error:  # such as distances in a wrong unit: the photographs stay, the fields can correct it
            text = describe_failure(error)
        return text, gr.update(interactive=job.folder.is_dir()), gr.update(visible=False)

    def example(self, request: gr.Request) -> tuple[Any, str, Any, Any]:
        """Use the example in place of photographs."""
        job = self.sessions.new(str(request.session_hash))
        job.example = True
        text = describe_diagnosis(job.diagnose({}))
        return None, text, gr.update(interactive=True), gr.update(visible=False)

    def predict(self, distances: str, unit: str, focal_mm: Any, f_number: Any, pitch_um: Any, side: str | None,
                seconds: float, check: bool, prior: str | None,
                request: gr.Request) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Predict; yield values for the status line, the current depth, and the results in the order of ``_Results``."""
        try:
            job = self.sessions.of(str(request.session_hash))
            settings = settings_from_fields(distances, unit, focal_mm, f_number, pitch_um, side)
            settings |= {"refine.seconds": float(seconds), "outputs": OUTPUTS, "holdout": 1 if check else None}
            if prior:
                settings["prior"] = store_prior(Path(prior), job.folder, self.sessions.limits)
            try:
                yield from self._progress(job, settings)
            except InputError as error:
                if not job.is_retouched or not str(error).startswith("retouch"):
                    raise
                job.retouch(None)
                yield f"These settings leave the strokes out: {error}", *self._nothing_yet()
                yield from self._progress(job, settings)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    def retouch(self, strokes: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Predict again with the strokes of the editor; yield values as :meth:`predict` does."""
        try:
            job = self.sessions.of(str(request.session_hash))
            job.retouch(strokes)
            yield from self._progress(job, job.settings)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    @staticmethod
    def _nothing_yet() -> tuple[Any, ...]:
        """Return values for everything but the status line while there is no result."""
        return None, gr.update(visible=False), *[gr.skip()] * RESULTS

    def _progress(self, job: Job, settings: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        yield "Started.", *self._nothing_yet()
        for progress in job.predict(settings):
            share = "" if progress.share is None else f"**Refining: {progress.share:.0%}.** "
            depth = gr.skip() if progress.depth is None else np.asarray(_read_rgb(progress.depth))
            line = f"`{progress.last_line.replace('`', '')[:160]}`"
            yield share + line, depth, gr.skip(), *[gr.skip()] * RESULTS
        yield "Done.", gr.skip(), gr.update(visible=True), *self._results(job)

    def _results(self, job: Job) -> tuple[Any, ...]:
        facts = job.facts()
        pictures = [
            (str(file), f"{'predicted' if 'rendered' in file.name else 'the photograph'} ({file.stem[:2]})")
            for file in sorted((job.prediction / "left_out").glob("*.png"), reverse=True)
        ]
        files = [str(file) for file in job.files() if file.parent == job.prediction]
        return (
            *self._focused(job, None, 1.0), describe_prediction(facts), describe_left_out(facts),
            gr.update(value=pictures, visible=bool(pictures)), str(job.prediction / "depth.png"), files,
            str(job.archive()), _editor_frame(job.prediction / "report.html"),
        )  # fmt: skip

    def stop(self, request: gr.Request) -> str:
        """End the refinement."""
        self.sessions.of(str(request.session_hash)).stop()
        return "Stopping; the best result so far is kept."

    def refocus(self, aperture: float, point: list[float] | None, request: gr.Request) -> tuple[Any, str]:
        """Render the picture with another aperture."""
        return self._focused(self.sessions.of(str(request.session_hash)), point, aperture)

    def click(self, aperture: float, request: gr.Request, event: gr.SelectData) -> tuple[Any, str, list[float]]:
        """Focus on the clicked point."""
        point = [float(coordinate) for coordinate in event.index]
        return *self._focused(self.sessions.of(str(request.session_hash)), point, aperture), point

    def full_size(self, aperture: float, point: list[float] | None, request: gr.Request) -> str:
        """Render the picture at full size; return its path."""
        job = self.sessions.of(str(request.session_hash))
        finished = FinishedPrediction.read(job.prediction)
        picture = finished.refocused(_focus_at(finished, point), aperture)
        path = job.folder / "refocused.png"
        write_image(path, picture)
        return str(path)

    def leave(self, request: gr.Request) -> None:
        """End the session of a page that was closed."""
        self.sessions.leave(str(request.session_hash))

    def _focused(self, job: Job, point: list[float] | None, aperture: float) -> tuple[np.ndarray, str]:
        finished = FinishedPrediction.read(job.prediction)
        focus = _focus_at(finished, point)
        picture = to_bytes(finished.refocused(focus, aperture, SHOWN_PX)).permute(1, 2, 0).numpy()
        if aperture == 0:
            return picture, "Everything in focus."
        distance = "at the clicked point" if finished.relative else f"at {focus:.3g} m"
        return picture, f"Focused {distance}, {aperture:g} times the camera's aperture."


def _editor_frame(report: Path) -> str:
    """Return the editor of a report in a frame of its own, so that neither page's styles reach the other."""
    page = read_editor_page(report)
    if page is None:
        return "This prediction cannot be retouched."
    return f'<iframe title="Retouch" srcdoc="{html.escape(page)}"></iframe>'


def _read_rgb(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _focus_at(finished: FinishedPrediction, point: list[float] | None) -> float:
    """Return the depth at a point of the shown picture; the median depth before the first click."""
    depth = finished.depth
    if point is None:
        return float(depth.flatten()[:: 1 + depth.numel() // 1_000_000].median())
    scale = max(1.0, max(depth.shape) / SHOWN_PX)
    column, row = (
        min(side - 1, max(0, int((coordinate + 0.5) * scale)))
        for coordinate, side in zip(point, depth.shape[::-1], strict=True)
    )
    return float(depth[row, column])


@dataclass(frozen=True)
class _Inputs:
    """The controls before a prediction."""

    files: gr.File
    example: gr.Button
    recognised: gr.Markdown
    fields: list[Any]
    predict: gr.Button
    stop: gr.Button


@dataclass(frozen=True)
class _Results:
    """The controls after a prediction."""

    column: gr.Column
    picture: gr.Image
    focused: gr.Markdown
    summary: gr.Markdown
    check_result: gr.Markdown
    left_out: gr.Gallery
    depth: gr.Image
    files: gr.File
    archive: gr.DownloadButton
    editor: gr.HTML
    apply: gr.Button
    strokes: gr.Textbox
    aperture: gr.Slider
    render_full: gr.Button
    save_full: gr.DownloadButton


def _inputs() -> _Inputs:
    gr.Markdown(
        "# Photographs that refocus\nUpload two or more photographs of **one scene**, each **focused at a different "
        "distance** or taken **at another aperture**. Depth and an all-in-focus picture are estimated from their blur. Your "
        "photographs stay on this computer. One stack is processed at a time; yours waits in line if others came first."
    )
    kinds = [*IMAGE_SUFFIXES, *(f".{text.rsplit('.', 1)[1]}" for text in TEXTS[:1])]
    files = gr.File(label="Photographs", file_count="multiple", file_types=kinds, elem_id="files", height=150)
    example = gr.Button("No photographs yet? Try the example", elem_id="example")
    recognised = gr.Markdown(elem_id="recognised")
    with gr.Accordion("What the photographs do not say", open=False):
        with gr.Row():
            distances = gr.Textbox(
                label="Focus distances", placeholder="0.5 1 2", info="one per photograph, in the order above",
                elem_id="distances", min_width=240,
            )  # fmt: skip
            unit = gr.Dropdown(list(UNITS), value="m", label="Unit", min_width=140)
        with gr.Row():
            focal = gr.Number(label="Focal length, mm", value=None, min_width=140)
            f_number = gr.Textbox(
                label="f-number", placeholder="2 11", info="one, or one each", elem_id="f_number", min_width=140
            )
            pitch = gr.Number(label="Pixel pitch, µm", value=None, min_width=140)
            side = gr.Dropdown(
                list(SIDES), value=None, label="The scene lies", elem_id="side", min_width=140,
                info="behind or before the focus distance: for photographs that differ in aperture alone",
            )  # fmt: skip
        prior = gr.File(
            label="A depth map of the same view from another program: it decides where the blur says little",
            file_types=list(DEPTH_MAP_SUFFIXES), elem_id="prior", height=110,
        )  # fmt: skip
    with gr.Row():
        seconds = gr.Slider(
            2, 120, DEFAULT_SECONDS, step=1, label="Seconds for refinement", min_width=240, elem_id="seconds"
        )
        check = gr.Checkbox(
            label="Keep one photograph aside", info="to check the result with it; not advised with few photographs",
            elem_id="check", min_width=240,
        )  # fmt: skip
    with gr.Row():
        predict = gr.Button("Go", variant="primary", interactive=False, elem_id="go", min_width=140)
        stop = gr.Button("Stop here and keep this result", elem_id="stop", min_width=140)
    fields = [distances, unit, focal, f_number, pitch, side, seconds, check, prior]
    return _Inputs(files, example, recognised, fields, predict, stop)


def _results() -> _Results:
    with gr.Column(visible=False, elem_id="results") as column:
        gr.Markdown("## Click to refocus")
        picture = gr.Image(label="", show_label=False, interactive=False, buttons=[], elem_id="refocused")
        focused = gr.Markdown(elem_id="focused")
        aperture = gr.Slider(0, 3, 1, step=0.25, label="Aperture, relative to the camera's", elem_id="aperture")
        with gr.Row():
            render_full = gr.Button("Render this at full size", elem_id="full", min_width=200)
            save_full = gr.DownloadButton("Save it", elem_id="save_full", min_width=140)
        gr.Markdown("## Result")
        summary = gr.Markdown(elem_id="about")
        depth = gr.Image(label="Depth", interactive=False, buttons=[])
        gr.Markdown("## Check")
        check_result = gr.Markdown(elem_id="check_result")
        left_out = gr.Gallery(label="The photograph that was kept aside", columns=2, interactive=False, buttons=[])
        with gr.Accordion("Retouch the picture or the depth", open=False, elem_id="retouch"):
            editor = gr.HTML(elem_id="editor")
            apply = gr.Button("Apply these strokes at full size", variant="primary", elem_id="apply")
            strokes = gr.Textbox(visible=False)
        gr.Markdown("## Download")
        archive = gr.DownloadButton("Download everything", variant="primary", elem_id="archive")
        files = gr.File(label="Single files", file_count="multiple", interactive=False, elem_id="parts")
    return _Results(
        column,
        picture,
        focused,
        summary,
        check_result,
        left_out,
        depth,
        files,
        archive,
        editor,
        apply,
        strokes,
        aperture,
        render_full,
        save_full,
    )


def _connect(
    handlers: _Handlers, inputs: _Inputs, status: gr.Markdown, current_depth: gr.Image, results: _Results
) -> None:
    """Connect the controls to their functions."""
    point = gr.State(None)
    outputs = [inputs.recognised, inputs.predict, results.column]
    by_user = [
        inputs.files.upload,
        inputs.files.clear,
        inputs.files.delete,
    ]  # not ``change``: the example clears the files
    gr.on(by_user, _show_errors(handlers.upload), [inputs.files], outputs, preprocess=False, **ONE_STACK)
    inputs.example.click(_show_errors(handlers.example), [], [inputs.files, *outputs], **ONE_STACK)
    shown = [
        status, current_depth, results.column, results.picture, results.focused, results.summary, results.check_result,
        results.left_out, results.depth, results.files, results.archive, results.editor,
    ]  # fmt: skip
    line: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": [status], **ONE_STACK}
    inputs.predict.click(handlers.predict, inputs.fields, shown, **line)
    inputs.stop.click(_show_errors(handlers.stop), [], [status], concurrency_limit=None, **PRIVATE)
    view, aperture = [results.picture, results.focused], results.aperture
    results.picture.select(_show_errors(handlers.click), [aperture], [*view, point], **ONE_PICTURE)
    aperture.release(_show_errors(handlers.refocus), [aperture, point], view, **ONE_PICTURE)
    results.apply.click(handlers.retouch, [results.strokes], shown, js=STROKES, **line)
    results.render_full.click(_show_errors(handlers.full_size), [aperture, point], [results.save_full], **ONE_PICTURE)


def _page(sessions: Sessions) -> gr.Blocks:
    handlers = _Handlers(sessions)
    with gr.Blocks(title="sfdfd", analytics_enabled=False, delete_cache=(CACHE_S, CACHE_S)) as page:
        inputs = _inputs()
        status = gr.Markdown(elem_id="status")
        current_depth = gr.Image(
            label="Current depth: bright is near", interactive=False, buttons=[], height=240, elem_id="depth"
        )
        _connect(handlers, inputs, status, current_depth, _results())
        page.unload(handlers.leave)
    page.queue(max_size=32, api_open=False)
    return page


def application(sessions: Sessions, host: str, port: int, hosts: AllowedHosts) -> Any:
    """Return the ASGI application: the page behind the request filter.

    Args:
        sessions: the jobs of the page.
        host, port: where it will listen.
        hosts: allowed values of the headers ``Host`` and ``Origin``.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(sessions.root)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, _page(sessions), "/", server_name=host, server_port=port, footer_links=[], ssr_mode=False, pwa=False,
        enable_monitoring=False, mcp_server=False, show_error=True, css=CSS,
        theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
        max_file_size=int(1e6 * sessions.limits.file_mb),
    )  # fmt: skip
    return RequestFilter(app, hosts, sessions.root, int(1e6 * sessions.limits.total_mb))
