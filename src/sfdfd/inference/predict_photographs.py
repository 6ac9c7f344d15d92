"""Predict photographs; the command, the page and Python call :func:`predict_photographs`.

The pipeline: read -> align and calibrate -> reduce -> first depth -> refine -> upsample -> save.

prediction = predict_photographs("DIR", refine_seconds=20)
prediction.depth_m, prediction.aif, prediction.confidence
prediction.save("out")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, checked_keywords, checked_number
from sfdfd.inference.estimator import DefocusEstimator, Solution
from sfdfd.inference.methods import Progress
from sfdfd.inference.next_photograph import next_photograph
from sfdfd.inference.out_of_range import note_on_out_of_range
from sfdfd.inference.prior_method import ExternalDepth, PriorMethod
from sfdfd.inference.retouch import FullSlices, fitted_retouch, retouched_solution
from sfdfd.inference.stages import Stages
from sfdfd.inference.upsampling import sharpest_slice_index
from sfdfd.io.files import readable, write_json
from sfdfd.io.images import DEFAULT_WORKING_PX, channels_first, resolve_working_px
from sfdfd.io.retouch_file import Retouch
from sfdfd.io.run_record import run_record
from sfdfd.io.stack_yaml import OPTICS_KEYS, STACK_KEYS
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer
from sfdfd.photographs.align import AlignSettings
from sfdfd.photographs.alignment_files import load_alignment, save_alignment, write_aligned
from sfdfd.photographs.capture import Capture
from sfdfd.photographs.from_arrays import photographs_from_arrays
from sfdfd.photographs.left_out import LeftOut, left_out_slices
from sfdfd.photographs.lookup import find_photographs
from sfdfd.photographs.read import Photographs
from sfdfd.photographs.registered_slices import RegisteredSlices
from sfdfd.refinement.refiner import DEFAULT_SECONDS, Refinement, Refiner
from sfdfd.report.outputs import parse_outputs, relative_depth
from sfdfd.report.predicted_stack import RetouchSource
from sfdfd.report.prediction_folder import PredictedStack, write_prediction
from sfdfd.training.checkpoints import load_model, photograph_optics
from sfdfd.training.device import pick_device

__all__ = [
    "AlignSettings",
    "PhotographPrediction",
    "PhotographSettings",
    "PreparedPhotographs",
    "predict_photographs",
    "prepare_photographs",
]

Say = Callable[[str], None]
"""Receives lines of text for the user."""
FIGURES = (
    "rendered {psnr_db:.2f} dB, nearest slice {nearest_slice_psnr_db:.2f} dB, "
    "best blend of two {best_blend_psnr_db:.2f} dB"
)

RESERVED_S, RESERVED_S_PER_MEGAPIXEL = 4.0, 1.0
"""Seconds that the full-size result, its files and its report are expected to take."""


def _silent(line: str) -> None:
    """Drop a line."""


@dataclass(frozen=True)
class PhotographSettings:
    """Settings of a prediction of photographs.

    Attributes:
        description: values for the keys of ``stack.yaml``, which they replace; None keeps what the photographs say.
        holdout: slices to leave out, see :func:`sfdfd.photographs.holdout.parse_holdout`.
        score_full_size: whether left-out slices are compared at the size of the photographs, not at the working size.
        slices: how many to use, see :func:`sfdfd.photographs.slice_selection.wanted_slices`.
        checkpoint: where refinement starts: "pretrained", a path, or None for a plane sweep.
        optics: options of the renderer; None keeps those of ``stack.yaml``, else those of photographs.
        refiner: per-scene refinement.
        working_px: longer side of the working size in pixels, or "auto".
        align: see :class:`AlignSettings`.
        device: "auto", "cpu", "cuda", "mps".
        seconds: for everything; refinement gets what the other stages leave. None limits nothing.
        retouch: strokes to apply to the prediction; None for none.
        prior, prior_kind: a depth map of another program, see :class:`sfdfd.inference.prior_method.ExternalDepth`; or None.
    """

    description: Mapping[str, Any] = field(default_factory=dict)
    holdout: Any = None
    score_full_size: bool = False
    slices: Any = "auto"
    checkpoint: Any = "pretrained"
    optics: Mapping[str, Any] = field(default_factory=dict)
    refiner: Refiner = field(default_factory=lambda: Refiner(seconds=DEFAULT_SECONDS))
    working_px: Any = "auto"
    align: AlignSettings = field(default_factory=AlignSettings)
    device: Any = "auto"
    seconds: float | None = None
    retouch: Retouch | None = None
    prior: Any = None
    prior_kind: str = "auto"


@dataclass(frozen=True)
class PreparedPhotographs:
    """A stack of photographs that is read and registered, and the estimator that predicts it.

    Attributes:
        name: the path that was given.
        capture: the registered photographs and their camera.
        held_out: slices that the prediction does not use and is scored on.
        at_full_size: whether they are compared at full size.
        estimator: inverts the optics of this stack.
        settings: as given.
        optics: the options that determine the blur; ``optics_sources`` says where each comes from.
        read_stack_optics: the options in ``stack.yaml``.
        stages: times the stages and knows what is left of the time.
        prior: the depth map of another program; None without.
    """

    name: str
    capture: Capture
    held_out: Photographs
    at_full_size: bool
    estimator: DefocusEstimator
    settings: PhotographSettings
    optics: dict[str, Any]
    optics_sources: dict[str, str]
    read_stack_optics: Mapping[str, Any]
    stages: Stages
    prior: ExternalDepth | None = None

    @property
    def _renderer(self) -> Renderer:
        return self.estimator.renderer

    def save_alignment(self, path: str | Path) -> None:
        """Write the alignment as JSON."""
        save_alignment(Path(path), self.capture)

    def write_aligned(self, folder: Path) -> Path:
        """Write the aligned slices and their ``stack.yaml``; return their folder."""
        return write_aligned(folder, self.capture, self.read_stack_optics)

    def predict(self, say: Say = _silent, progress: Progress | None = None) -> PhotographPrediction:
        """Predict at the working size, and upsample the prediction to the size of the photographs.

        Args:
            say: receives lines about what was done.
            progress: see :class:`sfdfd.refinement.refiner.Refiner`.
        """
        capture, photographs = self.capture, self.capture.photographs
        for origin in dict.fromkeys(self.optics_sources.values()):
            values = [f"{k} {v}" for k, v in self.optics.items() if self.optics_sources[f"optics.{k}"] == origin]
            say(f"optics: {', '.join(values)}: from {origin}")
        working_px = resolve_working_px(self.settings.working_px, capture.largest_blur_px(), max(photographs.size))
        stack = capture.stack(working_px).with_optics(BlurModel.of(self._renderer))
        covered = None if capture.common.all() else capture.covered.mapped(torch.from_numpy)
        clipped = None if stack.clipped is None else capture.clipped.mapped(channels_first)
        slices = FullSlices.of(photographs.images, covered, clipped)
        estimator = self._within_budget(say).with_prior(self.prior)
        with self.stages.stage(
            "refining" if estimator.refines else "estimating depth", heartbeat=not estimator.refines
        ):
            prediction, refinement = estimator.solve(stack, progress)
        with self.stages.stage("bringing the result to full size"):
            solution = estimator.at_full_size(
                prediction, refinement, stack, slices.load, photographs.size, capture.camera, covered, clipped
            )
        for line in _refinement_lines(solution.refinement):
            say(line)
        notes = note_on_out_of_range(solution.working, capture.near_m, capture.far_m, metric=not capture.relative)
        advice = next_photograph(solution.stack, solution.working, self._renderer)
        if advice is not None:
            notes.append(advice.sentence(self._files_around(advice.focus_distance_m) if capture.relative else None))
        for note in notes:
            say(f"note: {note}")
        facts = self._facts(solution, working_px, notes)
        facts["next_photograph"] = None if advice is None else advice.facts()
        facts["prior"] = estimator.start.facts() if isinstance(estimator.start, PriorMethod) else None
        if facts["prior"] is not None:
            say(f"prior: {facts['prior']['sentence']}")
        found = PhotographPrediction(self, solution, facts, slices)
        if self.settings.retouch is None:
            return found
        with self.stages.stage("retouching"):
            return found.retouched(self.settings.retouch, say)

    def _files_around(self, focus_distance_m: float) -> tuple[str, str]:
        """Return the names of the slices between which a focus distance lies, or the two at that end of the stack."""
        order = np.argsort(self.capture.focus_distances_m)
        place = int(np.searchsorted(np.array(self.capture.focus_distances_m)[order], focus_distance_m))
        place = min(max(place, 1), len(order) - 1)
        files = self.capture.photographs.files
        return readable(files[order[place - 1]].name), readable(files[order[place]].name)

    def _within_budget(self, say: Say) -> DefocusEstimator:
        """Return the estimator, its refinement shortened to what the budget leaves."""
        estimator, refiner = self.estimator, self.settings.refiner
        if refiner.steps is not None or not refiner.enabled:
            return estimator
        height, width = self.capture.photographs.size
        reserved_s = RESERVED_S + RESERVED_S_PER_MEGAPIXEL * height * width / 1e6
        seconds = self.stages.refinement_s(refiner.seconds, reserved_s)
        if seconds == 0:
            say(f"note: no time is left for refinement (seconds={self.stages.seconds:g}); the network's depth is kept")
        return estimator.with_refinement_seconds(seconds)

    def _facts(self, solution: Solution, working_px: int, notes: Sequence[str]) -> dict[str, Any]:
        """Return what ``prediction.json`` says about photographs, settings and refinement."""
        facts = {
            "stack": self.name,
            "start": "plane sweep" if self.estimator.network is None else str(self.settings.checkpoint),
            "run": run_record(),
            "optics": self.optics,
            "working_px": working_px,
            "refinement": _refinement_facts(solution.refinement),
            "retouch": None,
            "seconds_by_stage": self.stages.seconds_by_stage,
            **self.capture.facts(),
            "sigma_scale": self._renderer.sigma_scale,
        }
        facts["notes"] = [*facts["notes"], *notes]
        facts["sources"] = {**facts["sources"], **self.optics_sources}
        return facts


@dataclass(frozen=True)
class PhotographPrediction:
    """The prediction of photographs, at their full size.

    Attributes:
        prepared: the photographs, registered, with camera and settings.
        solution: the prediction at the working size and at full size (batches of one).
        facts: the content of ``prediction.json`` as far as it does not depend on the files beside it.
        slices: the registered slices at full size.
        retouch: the strokes that were applied; None: none.
        unretouched: the solution without them; None: ``solution`` itself.
        picture: (3,H,W) the AIF with the blurred background that a stroke asks for; None: none does.

    Examples:
        >>> prediction = predict_photographs("example", refine_seconds=0, weights=None)
        >>> prediction.confidence.shape, prediction.notes
        (torch.Size([240, 320]), [])
    """

    prepared: PreparedPhotographs
    solution: Solution
    facts: dict[str, Any]
    slices: FullSlices
    retouch: Retouch | None = None
    unretouched: Solution | None = None
    picture: Float[Tensor, "3 h w"] | None = None

    @property
    def metric(self) -> bool:
        """Whether depth is in metres; else only :attr:`relative_depth` has a meaning."""
        return not self.prepared.capture.relative

    @property
    def depth_m(self) -> Float[Tensor, "h w"]:
        """(H,W) depth in metres; where it is not metric, in the unit of :attr:`focus_distances_m`."""
        return self.solution.full.depth_m[0].cpu()

    @property
    def relative_depth(self) -> Float[Tensor, "h w"]:
        """(H,W) depth relative to the slices: 0 in focus in the first, 1 in focus in the last."""
        return relative_depth(self._predicted())

    @property
    def aif(self) -> Float[Tensor, "3 h w"]:
        """(3,H,W) all-in-focus image, sRGB in [0, 1]."""
        return self.solution.full.aif[0].cpu()

    @property
    def confidence(self) -> Float[Tensor, "h w"]:
        """(H,W) in (0, 1]; see :mod:`sfdfd.refinement.confidence`."""
        assert self.solution.full.confidence is not None  # an estimator predicts it
        return self.solution.full.confidence[0].cpu()

    @property
    def depth_std_m(self) -> Float[Tensor, "h w"]:
        """(H,W) standard deviation of :attr:`depth_m`, in its unit."""
        assert self.solution.full.depth_std_m is not None
        return self.solution.full.depth_std_m[0].cpu()

    @property
    def focus_distances_m(self) -> tuple[float, ...]:
        """Focus distances in metres; placeholders in the order of the slices where none is known."""
        return self.prepared.capture.focus_distances_m

    @property
    def camera(self) -> Camera:
        """The camera of the full-size images; a nominal one where it is not known."""
        return self.prepared.capture.camera

    @property
    def notes(self) -> list[str]:
        """Sentences about the photographs and their depth range."""
        return list(self.facts["notes"])

    @property
    def statement(self) -> str:
        """One sentence about the meaning of depth: metric or relative, and why."""
        return self.prepared.capture.statement

    def retouched(self, retouch: Retouch | Mapping[str, Any] | str | Path, say: Say = _silent) -> PhotographPrediction:
        """Return the prediction with these strokes, in place of any earlier ones.

        Args:
            retouch: a file that the page saved, its content, or a :class:`sfdfd.io.retouch_file.Retouch`.
            say: receives a line about what changed.

        Raises:
            InputError: a key of it is wrong, or it does not fit these photographs.
        """
        capture, base = self.prepared.capture, self.unretouched or self.solution
        retouch = _fitted_to(Retouch.of(retouch), capture)
        device = self.prepared.estimator.device
        found = retouched_solution(
            base, retouch, self.slices, capture.camera, self._renderer, relative=capture.relative, device=device
        )
        counts = ", ".join(f"{count} {name}" for name, count in found.facts["strokes"].items())
        say(
            f"retouched ({counts or 'no strokes'}): depth in {found.facts['depth_share']:.1%} of the pixels, the AIF in "
            f"{found.facts['aif_share']:.1%}"
        )
        facts = {**self.facts, "retouch": found.facts}
        return replace(
            self, solution=found.solution, facts=facts, retouch=retouch, unretouched=base, picture=found.picture
        )

    def left_out(self, say: Say = _silent) -> Iterator[LeftOut]:
        """Yield the left-out slices with their scores, one by one."""
        prepared, align = self.prepared, self.prepared.settings.align
        working = self.solution.working
        size = None if prepared.at_full_size else (working.depth_m.shape[-2], working.depth_m.shape[-1])
        for left_out in left_out_slices(
            prepared.capture,
            prepared.held_out,
            self.solution.full if prepared.at_full_size else working,
            self._renderer,
            size=size,
            device=prepared.estimator.device,
            align=align,
        ):
            say(f"left out {{index}} ({{file}}): {FIGURES}".format(**left_out.facts))
            yield left_out

    def save(self, folder: str | Path, outputs: Any = None, say: Say = _silent) -> dict[str, Any]:
        """Write what ``python -m sfdfd.predict`` writes: arrays, pictures, ``prediction.json`` and ``report.html``.

        Args:
            folder: receives them.
            outputs: additional files, see :func:`sfdfd.report.outputs.parse_outputs`.
            say: receives lines about the files and their figures.

        Returns:
            The content of ``prediction.json``.

        Raises:
            InputError: an output is unknown.
        """
        names = parse_outputs(outputs)
        with self.prepared.stages.stage("writing files and report"):
            predicted = self._predicted("slice_index" in names)
            facts = write_prediction(Path(folder), predicted, self._renderer, self.left_out(say), names)
        facts["seconds_by_stage"] = dict(self.prepared.stages.seconds_by_stage)  # now with this stage
        write_json(Path(folder) / "prediction.json", facts)
        for name, output in facts["outputs"].items():
            if "not_written" in output:
                say(f"{name}: not written: {output['not_written']}")
        if facts["left_out_mean"] is not None:
            say(f"left-out slices, mean: {FIGURES}".format(**facts["left_out_mean"]))
        if self.metric:
            say("depth from {min:.3g} m to {max:.3g} m, median {median:.3g} m".format(**facts["depth_m"]))
        else:
            say("relative depth from {min:.3g} to {max:.3g}, median {median:.3g}".format(**facts["relative_depth"]))
        return facts

    @property
    def _renderer(self) -> Renderer:
        return self.prepared.estimator.renderer

    def _predicted(self, with_slice_index: bool = False) -> PredictedStack:
        capture, full = self.prepared.capture, self.solution.full
        slice_index = None
        if with_slice_index:
            covered = None if capture.common.all() else capture.covered.mapped(torch.from_numpy)
            focus = self.solution.stack.focus_distances_m[0].cpu()
            slice_index = sharpest_slice_index(full.depth_m[0].cpu(), focus, capture.camera, covered)
        return PredictedStack(
            name=capture.photographs.name,
            stack=self.solution.stack,
            working=self.solution.working,
            full=full,
            camera=capture.camera,
            covered=torch.from_numpy(capture.common),
            relative=capture.relative,
            aligned=capture.aligned,
            focal_length_px=capture.focal_length_px,
            principal_point_px=capture.photographs.principal_point_px,
            exif=capture.exif,
            slice_index=slice_index,
            facts=dict(self.facts),
            retouch_source=self._retouch_source(),
            picture=self.picture,
        )

    def _retouch_source(self) -> RetouchSource:
        capture, base = self.prepared.capture, (self.unretouched or self.solution).full
        unit = "relative" if capture.relative else "m"
        retouch = self.retouch or Retouch(capture.photographs.size, (), unit, tuple(_slice_names(capture)))
        return RetouchSource(base.aif[0].cpu(), base.depth_m[0].cpu(), self.slices.all_previews(), retouch)


Source = str | Path | Photographs | Tensor | np.ndarray | Sequence[str | Path] | Sequence[Tensor] | Sequence[np.ndarray]
"""A folder, a video, a TIFF of pages, "example", a list of files, or images in memory."""


@checked_keywords
def predict_photographs(
    source: Source,
    *,
    focus_distances_m: Sequence[float] | None = None,
    camera: Camera | Mapping[str, Any] | None = None,
    near_m: float | None = None,
    far_m: float | None = None,
    side: str | None = None,
    seconds: float | None = None,
    refine_seconds: float | None = None,
    refine_steps: int | None = None,
    weights: str | Path | None = "pretrained",
    optics: BlurModel | Mapping[str, Any] | None = None,
    working_px: int | str = "auto",
    align: AlignSettings | bool | str = "auto",
    holdout: Any = None,
    score_full_size: bool = False,
    slices: Any = "auto",
    retouch: Retouch | Mapping[str, Any] | str | Path | None = None,
    prior: str | Path | Tensor | np.ndarray | None = None,
    prior_kind: str = "auto",
    description: Mapping[str, Any] | None = None,
    device: str = "auto",
    say: Callable[[str], None] = _silent,
    progress: Callable[[float, int, float], None] | None = None,
) -> PhotographPrediction:
    """Predict depth and the all-in-focus image of a stack of photographs, as ``python -m sfdfd.predict`` does.

    Reads the photographs and their metadata, registers them, equalizes their exposure, and reduces them to a working size.
    An unknown blur scale is estimated. The network's prediction is refined through the renderer and upsampled to full size.

    Args:
        source: a folder, a video or a TIFF of pages; a list of files; images in memory, (S,H,W,3) or (S,3,H,W), or a list of
            them, uint8, uint16 or floats in [0, 1]; or "example".
        focus_distances_m: one per slice in metres, in the order of the names; None: from the photographs.
        camera: a :class:`Camera`, or ``{"focal_length_m": ..., "f_number": ..., "pixel_pitch_m": ...}`` of which some may be
            missing; None: from the photographs' metadata. Several f-numbers, one per slice, are a bracket of apertures.
        near_m, far_m: depth range in metres; None: from the focus distances.
        side: of the focus distance on which the scene lies, where slices differ in aperture alone: "behind" or "before";
            None: "behind", unless the depth range lies before it.
        seconds: time for everything; refinement gets what reading, registration and full size leave. None limits nothing.
        refine_seconds: time for the refinement of the scene; 0 for the network's prediction alone; None: 10, or with
            ``seconds`` all that is left.
        refine_steps: number of steps; replaces the time.
        weights: "pretrained", the path of a checkpoint, or None for a plane sweep.
        optics: how the photographs were blurred, where it differs from the blur of photographs.
        working_px: longer side of the working size in pixels, or "auto".
        align: True, False, "auto", or :class:`AlignSettings`.
        holdout: slices to leave out and predict from the others: indices, or their number.
        score_full_size: whether they are compared at the size of the photographs, which takes ten times as long.
        slices: how many to use: "auto" (at most 12), "all", or a number.
        retouch: strokes that the page of a prediction saved (``retouch.json``), or their content, applied to the result.
        prior: a depth map of the same frame from another program, of any scale and size: a file (npy, 16-bit PNG, EXR, a
            portrait JPEG), (H,W) values, the folder of a finished prediction, or "transformers:MODEL_ID". It decides where
            the blur says little.
        prior_kind: "depth", "inverse_depth", or "auto" for what fits better.
        description: other keys of ``stack.yaml``, such as ``crop`` or ``focus_unit``.
        device: "auto", "cpu", "cuda" or "mps".
        say: receives lines about what is found and done.
        progress: called with (share, step, energy) during refinement.

    Returns:
        Depth, AIF and confidence at full size, with notes and a method ``save(folder)``.

    Raises:
        InputError: the photographs cannot be read, or an argument is wrong.

    Examples:
        >>> prediction = predict_photographs("example", refine_seconds=0)
        >>> prediction.depth_m.shape, prediction.aif.shape, prediction.metric
        (torch.Size([240, 320]), torch.Size([3, 240, 320]), True)
    """
    arguments: dict[str, Any] = {"focus_distances_m": focus_distances_m, "near_m": near_m, "far_m": far_m, "side": side}
    arguments["camera"] = camera.as_dict() if isinstance(camera, Camera) else camera
    described = {key: value for key, value in arguments.items() if value is not None}
    blur = optics.known() if isinstance(optics, BlurModel) else dict(optics or {})
    settings = PhotographSettings(
        description={**(description or {}), **described},
        holdout=holdout,
        score_full_size=score_full_size,
        slices=slices,
        checkpoint=None if weights is None else str(weights),
        optics=blur,
        refiner=Refiner(seconds=refinement_seconds(seconds, refine_seconds), steps=refine_steps),
        working_px=working_px,
        align=align if isinstance(align, AlignSettings) else AlignSettings(mode=align),
        device=device,
        seconds=None if seconds is None else checked_number(seconds, "seconds"),
        retouch=None if retouch is None else Retouch.of(retouch),
        prior=prior,
        prior_kind=prior_kind,
    )
    return prepare_photographs(source, settings, say).predict(say, progress)


def refinement_seconds(seconds: float | None, refine_seconds: float | None) -> float:
    """Return how long refinement may take: as given, else all of a given budget, else ``DEFAULT_SECONDS``."""
    if refine_seconds is not None:
        return refine_seconds
    return DEFAULT_SECONDS if seconds is None else seconds


def prepare_photographs(
    source: Source, settings: PhotographSettings, say: Say = _silent, stages: Stages | None = None
) -> PreparedPhotographs:
    """Read and register photographs, and find their camera.

    Args:
        source, say: as of :func:`predict_photographs`.
        settings: all other settings.
        stages: reports and times the stages; a silent one by default.

    Raises:
        InputError: the photographs cannot be read, or a setting is wrong.
    """
    stages = stages or Stages(seconds=settings.seconds)
    with stages.stage("reading photographs"):
        photographs, name = _photographs(source, settings)
    described, prior = photographs.optics, None
    if settings.prior is not None:
        prior = ExternalDepth(settings.prior, settings.prior_kind, photographs.size)
    preferred, sources = photograph_optics(settings.optics, described, f"{name}/stack.yaml")
    module, renderer = load_model(settings.checkpoint, settings.optics, preferred={"method": "fast", **preferred})
    network = None if module is None else module.network
    estimator = DefocusEstimator(network, renderer, settings.refiner, settings.working_px, pick_device(settings.device))
    used, held_out = photographs.split_left_out()
    # slices that ``slices`` passes over may be many
    at_full_size = bool(photographs.left_out) and settings.score_full_size
    calibration = "checking the camera" if photographs.known_camera() else "estimating the blur scale"
    del photographs
    align = settings.align
    with stages.stage("registering the slices"):
        alignment = None if align.load is None else load_alignment(Path(str(align.load)), used)
        registered = RegisteredSlices.of(used, align, alignment)
    with stages.stage(calibration):
        working_px = DEFAULT_WORKING_PX if settings.working_px == "auto" else settings.working_px
        capture = Capture.of_registered(used, registered, renderer, working_px=working_px, calibrate=not align.only)
    del registered
    for line in _capture_lines(capture):
        say(line)
    if settings.retouch is not None:
        _fitted_to(settings.retouch, capture)  # refuses strokes of another stack before the time is spent
    if module is not None and capture.camera_source == "known" and not module.network.requires_defocus:
        _note_other_camera(capture.camera, module.run_config["optics"]["camera"], say)
    optics = {key: renderer.options[key] for key in OPTICS_KEYS if key in renderer.options}
    return PreparedPhotographs(
        name, capture, held_out, at_full_size, estimator, settings, optics, sources, described, stages, prior
    )


def _slice_names(capture: Capture) -> list[str]:
    return [readable(file.name) for file in capture.photographs.files]


def _fitted_to(retouch: Retouch, capture: Capture) -> Retouch:
    size = capture.photographs.size
    return fitted_retouch(retouch, _slice_names(capture), size, capture.camera, capture.relative)


def _photographs(source: Source, settings: PhotographSettings) -> tuple[Photographs, str]:
    """Return the photographs and the name of their source."""
    description = {**settings.description, "holdout": settings.holdout, "slices": settings.slices}
    unknown = [key for key in settings.description if key not in STACK_KEYS]
    if unknown:
        raise InputError(f"description: unknown key {unknown[0]!r}; known are {', '.join(STACK_KEYS)}")
    if isinstance(source, (str, Path)):
        return find_photographs(source, description), str(source)
    if isinstance(source, Photographs):
        return source, source.name
    if isinstance(source, Sequence) and source and all(isinstance(path, (str, Path)) for path in source):
        files = [Path(str(path)).absolute() for path in source]
        description["files"] = [str(file) for file in files]
        return find_photographs(files[0].parent, description), str(files[0].parent)
    if not isinstance(source, (Tensor, np.ndarray, Sequence)):
        raise InputError(f"expected a folder, a file, a list of files or images, got {type(source).__name__}")
    return photographs_from_arrays(source, description), "images in memory"  # type: ignore[arg-type] # only images are left


def _note_other_camera(camera: Camera, trained: Mapping[str, Any], say: Say) -> None:
    """Say where the camera differs from that of the training: only ``requires_defocus`` networks work with any camera."""
    differences = [
        f"{key} {value:g} (trained with {trained[key]:g})"
        for key, value in camera.as_dict().items()
        if all(isinstance(number, (int, float)) for number in (value, trained.get(key)))
        and not np.isclose(value, trained[key], rtol=1e-6)
    ]
    if differences:
        say(
            f"note: this network was trained with another camera: {', '.join(differences)}; "
            "checkpoint=pretrained works with any"
        )


def _capture_lines(capture: Capture) -> Iterator[str]:
    """Yield lines about metadata, alignment and camera."""
    photographs, alignment = capture.photographs, capture.alignment
    for key, source in photographs.sources.items():
        yield f"{key}: from {source}"
    for key, remedy in photographs.missing.items():
        yield f"{key}: not known; to give it: {remedy}"
    if not capture.aligned:
        largest = alignment.motion_px.max()
        if largest <= 0.5:
            yield f"alignment: not needed (slices move by at most {largest:.2g} px)"
    else:
        motions = (alignment.shift_px, alignment.scale, alignment.radial, alignment.residual_px)
        for file, shift, scale, radial, residual in zip(photographs.files, *motions, strict=True):
            motion = f"shift {shift[0]:+.2f} {shift[1]:+.2f} px, scale {scale:.5f}, distortion {radial:+.5f}"
            yield f"aligned {file.name}: {motion}, residual {residual:.2g} px"
    for note in capture.notes:
        yield f"note: {note}"
    yield capture.statement


def _refinement_lines(refinement: Refinement | None) -> Iterator[str]:
    """Yield lines about the refinement and the fitted lens."""
    if refinement is None:
        return
    stopped = ", stopped by you" if refinement.interrupted else ""
    yield (
        f"refined for {refinement.seconds:.1f} s ({refinement.steps} steps{stopped}): "
        f"energy {refinement.objective_start:.5f} -> {refinement.objective:.5f}"
    )
    lens, std = _lens(refinement)
    if "k" in lens:
        yield (
            f"lens: the stack fits {lens['k']:.3f} +- {std['k']:.2g} times the known blur scale k; "
            "depth follows the fitted k"
        )
    if "shape" in lens:
        yield f"lens: the PSF is {lens['shape']:.2f} +- {std['shape']:.2g} of the way from a disc to a Gaussian"


def _refinement_facts(refinement: Refinement | None) -> dict[str, Any] | None:
    if refinement is None:
        return None
    lens, std = _lens(refinement)
    keys = ("seconds", "steps", "interrupted", "objective_start", "objective")
    return {**{key: getattr(refinement, key) for key in keys}, "lens": lens, "lens_std": std}


def _lens(refinement: Refinement) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fitted lens parameters and their standard deviations."""
    lens = {} if refinement.lens is None else {name: value[0] for name, value in refinement.lens.as_dict().items()}
    return lens, {name: value[0] for name, value in (refinement.lens_std or {}).items()}
