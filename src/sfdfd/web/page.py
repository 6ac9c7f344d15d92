"""The page: photographs in, what was recognised, progress, a picture that refocuses, files out."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")

import gradio as gr
import numpy as np
from fastapi import FastAPI

from sfdfd.errors import InputError
from sfdfd.io.images import IMAGE_SUFFIXES, to_bytes, write_image
from sfdfd.refinement.refiner import DEFAULT_SECONDS
from sfdfd.report.refocus import FinishedPrediction
from sfdfd.web.jobs import Job
from sfdfd.web.messages import UNITS, judged, recognised, settings_of, summary, unrecognised
from sfdfd.web.origins import AllowedHosts
from sfdfd.web.server import Guard
from sfdfd.web.uploads import TEXTS, Limits, received

__all__ = ["Desk", "application"]

SHOWN_PX = 640
"""Longer side of the picture that is refocused on the page."""
OUTPUTS = ["exr", "portrait", "glb", "slice_index", "refocus"]
CSS = """
#refocused img, #refocused canvas { cursor: crosshair; }
.gradio-container { max-width: 60rem !important; }
#check { min-width: min(240px, 100%) !important; }
@media (max-width: 600px) {
  #judged :is(td, th), #found :is(td, th) { padding: 0.3rem !important; font-size: 0.78rem; word-break: normal !important; }
}
"""
FONTS = ["system-ui", "sans-serif"]
BUSY = "One stack is worked on at a time; yours waits in line if others are before it."


class Desk:
    """Whoever has the page open has one job.

    Args:
        root: a folder; all that is written lies in it.
        limits: of uploads.
        longest_s: of one command.
    """

    def __init__(self, root: Path, limits: Limits, longest_s: float) -> None:
        self.root, self.limits, self.longest_s = root, limits, longest_s
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def new(self, session: str) -> Job:
        """A fresh job; the one before it is ended and removed."""
        self.leave(session)
        job = Job(self.root, self.longest_s)
        with self._lock:
            self.jobs[session] = job
        return job

    def of(self, session: str) -> Job:
        """The job of a session.

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
        for session in list(self.jobs):
            self.leave(session)


def _in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the user can mend is shown as one line."""

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    return wrapped


class _Handlers:
    """What happens when something is pressed."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def take(self, files: Sequence[dict[str, Any]] | None, request: gr.Request) -> tuple[str, Any, Any]:
        """Photographs came; what is recognised of them.

        ``files`` are as Gradio stores them: it drops some characters from the names in their paths, but not from
        ``orig_name``, which is what the user calls them.
        """
        session = str(request.session_hash)
        if not files:
            self.desk.leave(session)
            return "", gr.update(interactive=False), gr.update(visible=False)
        job = self.desk.new(session)
        try:
            paths = [Path(file["path"]) for file in files]
            names = [file.get("orig_name") or path.name for file, path in zip(files, paths, strict=True)]
            received(paths, job.photographs, self.desk.limits, names)
        except InputError:
            self.desk.leave(session)
            raise
        try:
            found = recognised(job.check({}))
        except InputError as error:  # distances in a wrong unit, say: the fields mend that, so the photographs stay
            found = unrecognised(error)
        return found, gr.update(interactive=job.folder.is_dir()), gr.update(visible=False)

    def example(self, request: gr.Request) -> tuple[Any, str, Any, Any]:
        job = self.desk.new(str(request.session_hash))
        job.example = True
        return None, recognised(job.check({})), gr.update(interactive=True), gr.update(visible=False)

    def go(self, distances: str, unit: str, focal_mm: Any, f_number: Any, pitch_um: Any, seconds: float, check: bool,
           request: gr.Request) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Predict; progress line, depth so far, results, the picture, where it is focused, what was found, check, its
        pictures, depth, files, archive."""
        nothing = [gr.skip()] * 8
        try:
            job = self.desk.of(str(request.session_hash))
            said = settings_of(distances, unit, focal_mm, f_number, pitch_um)
            said |= {"refine.seconds": float(seconds), "outputs": OUTPUTS, "holdout": 1 if check else None}
            yield "Started.", None, gr.update(visible=False), *nothing
            for progress in job.predict(said):
                share = "" if progress.share is None else f"**Refining: {progress.share:.0%}.** "
                depth = gr.skip() if progress.depth is None else np.asarray(_opened(progress.depth))
                yield share + f"`{progress.said.replace('`', '')[:160]}`", depth, gr.skip(), *nothing
            facts = job.facts()
            pictures = [
                (str(file), f"{'predicted' if 'rendered' in file.name else 'the photograph'} ({file.stem[:2]})")
                for file in sorted((job.prediction / "left_out").glob("*.png"), reverse=True)
            ]
            files = [str(file) for file in job.files() if file.parent == job.prediction]
            yield (
                "Done.", gr.skip(), gr.update(visible=True), *self._focused(job, None, 1.0), summary(facts),
                judged(facts), gr.update(value=pictures, visible=bool(pictures)), str(job.prediction / "depth.png"),
                files, str(job.archive()),
            )  # fmt: skip
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    def stop(self, request: gr.Request) -> str:
        self.desk.of(str(request.session_hash)).stop()
        return "Stopping: the best so far is kept."

    def refocus(self, aperture: float, place: list[float] | None, request: gr.Request) -> tuple[Any, str]:
        return self._focused(self.desk.of(str(request.session_hash)), place, aperture)

    def click(self, aperture: float, request: gr.Request, event: gr.SelectData) -> tuple[Any, str, list[float]]:
        place = [float(one) for one in event.index]
        return *self._focused(self.desk.of(str(request.session_hash)), place, aperture), place

    def full_size(self, aperture: float, place: list[float] | None, request: gr.Request) -> str:
        job = self.desk.of(str(request.session_hash))
        finished = FinishedPrediction.read(job.prediction)
        picture = finished.refocused(_focus_at(finished, place), aperture)
        path = job.folder / "refocused.png"
        write_image(path, picture)
        return str(path)

    def leave(self, request: gr.Request) -> None:
        self.desk.leave(str(request.session_hash))

    def _focused(self, job: Job, place: list[float] | None, aperture: float) -> tuple[np.ndarray, str]:
        finished = FinishedPrediction.read(job.prediction)
        focus = _focus_at(finished, place)
        picture = to_bytes(finished.refocused(focus, aperture, SHOWN_PX)).permute(1, 2, 0).numpy()
        words = "in the clicked place" if finished.relative else f"at {focus:.3g} m"
        return (
            picture,
            "Everything in focus." if aperture == 0 else f"Focused {words}, {aperture:g} times the camera's aperture.",
        )


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _focus_at(finished: FinishedPrediction, place: list[float] | None) -> float:
    """The depth at a place of the shown picture; the middle of the scene where nothing was clicked."""
    depth = finished.depth
    if place is None:
        return float(depth.flatten()[:: 1 + depth.numel() // 1_000_000].median())
    scale = max(1.0, max(depth.shape) / SHOWN_PX)
    column, row = (
        min(side - 1, max(0, int((one + 0.5) * scale))) for one, side in zip(place, depth.shape[::-1], strict=True)
    )
    return float(depth[row, column])


def _blocks(desk: Desk) -> gr.Blocks:
    handlers = _Handlers(desk)
    hours = 3600
    with gr.Blocks(title="sfdfd", analytics_enabled=False, delete_cache=(hours, hours)) as blocks:
        gr.Markdown(
            "# Photographs that refocus\nGive two or more photographs of **one scene**, each **focused elsewhere**. "
            f"Depth and an all-in-focus picture are found from their blur. Everything stays on this computer. {BUSY}"
        )
        kinds = [*IMAGE_SUFFIXES, *(f".{text.rsplit('.', 1)[1]}" for text in TEXTS[:1])]
        files = gr.File(label="Photographs", file_count="multiple", file_types=kinds, elem_id="files", height=150)
        example = gr.Button("No photographs yet? Take the example", elem_id="example")
        found = gr.Markdown(elem_id="found")
        with gr.Accordion("What the photographs do not say", open=False):
            with gr.Row():
                distances = gr.Textbox(
                    label="Focus distances", placeholder="0.5 1 2", info="one per photograph, in the order above",
                    elem_id="distances", min_width=240,
                )  # fmt: skip
                unit = gr.Dropdown(list(UNITS), value="m", label="Unit", min_width=140)
            with gr.Row():
                focal = gr.Number(label="Focal length, mm", value=None, min_width=140)
                f_number = gr.Number(label="f-number", value=None, min_width=140)
                pitch = gr.Number(label="Pixel pitch, µm", value=None, min_width=140)
        with gr.Row():
            seconds = gr.Slider(
                2, 120, DEFAULT_SECONDS, step=1, label="Seconds for refinement", min_width=240, elem_id="seconds"
            )
            check = gr.Checkbox(
                label="Keep one photograph aside", info="to check the answer by; better without where there are few",
                elem_id="check", min_width=240,
            )  # fmt: skip
        with gr.Row():
            go = gr.Button("Go", variant="primary", interactive=False, elem_id="go", min_width=140)
            stop = gr.Button("Good enough: stop", elem_id="stop", min_width=140)
        said = gr.Markdown(elem_id="said")
        depth_so_far = gr.Image(
            label="Depth so far: bright is near", interactive=False, buttons=[], height=240, elem_id="depth"
        )
        with gr.Column(visible=False, elem_id="results") as results:
            gr.Markdown("## Click to refocus")
            picture = gr.Image(label="", show_label=False, interactive=False, buttons=[], elem_id="refocused")
            focused = gr.Markdown(elem_id="focused")
            aperture = gr.Slider(0, 3, 1, step=0.25, label="Aperture, of the camera's own", elem_id="aperture")
            with gr.Row():
                make = gr.Button("Render this at full size", elem_id="full", min_width=200)
                full = gr.DownloadButton("Save it", elem_id="save_full", min_width=140)
            gr.Markdown("## What was found")
            about = gr.Markdown(elem_id="about")
            depth = gr.Image(label="Depth", interactive=False, buttons=[])
            gr.Markdown("## The check")
            verdict = gr.Markdown(elem_id="judged")
            pictures = gr.Gallery(label="Kept aside", columns=2, interactive=False, buttons=[])
            gr.Markdown("## Take it with you")
            archive = gr.DownloadButton("Download everything", variant="primary", elem_id="archive")
            parts = gr.File(label="Or one by one", file_count="multiple", interactive=False, elem_id="parts")
        place = gr.State(None)

        quiet: dict[str, Any] = {"api_visibility": "private"}
        one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "work"}
        drawing: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "draw"}
        by_hand = [files.upload, files.clear, files.delete]  # not change: the example empties the field, too
        gr.on(by_hand, _in_words(handlers.take), [files], [found, go, results], preprocess=False, **one, **quiet)
        example.click(_in_words(handlers.example), [], [files, found, go, results], **one, **quiet)
        go.click(
            handlers.go,
            [distances, unit, focal, f_number, pitch, seconds, check],
            [said, depth_so_far, results, picture, focused, about, verdict, pictures, depth, parts, archive],
            show_progress="minimal", show_progress_on=[said], **one, **quiet,
        )  # fmt: skip
        stop.click(_in_words(handlers.stop), [], [said], concurrency_limit=None, **quiet)
        picture.select(_in_words(handlers.click), [aperture], [picture, focused, place], **drawing, **quiet)
        aperture.release(_in_words(handlers.refocus), [aperture, place], [picture, focused], **drawing, **quiet)
        make.click(_in_words(handlers.full_size), [aperture, place], [full], **drawing, **quiet)
        blocks.unload(handlers.leave)
    blocks.queue(max_size=32, api_open=False)
    return blocks


def application(desk: Desk, host: str, port: int, hosts: AllowedHosts) -> Any:
    """The ASGI application: the page, guarded.

    Args:
        desk: its jobs.
        host, port: where it will listen.
        hosts: what requests may be for, and where they may come from.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(desk.root)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, _blocks(desk), "/", server_name=host, server_port=port, footer_links=[], ssr_mode=False, pwa=False,
        enable_monitoring=False, mcp_server=False, show_error=True, css=CSS,
        theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
        max_file_size=int(1e6 * desk.limits.file_mb),
    )  # fmt: skip
    return Guard(app, hosts, desk.root, int(1e6 * desk.limits.total_mb))
