"""From photographs to a finished prediction: what the command, the page, many stacks and Python all call.

prediction = predict_photographs("DIR", refine_seconds=20)
prediction.depth_m, prediction.aif, prediction.confidence
prediction.save("out")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, checked_keywords
from sfdfd.inference.estimator import DefocusEstimator, Solution
from sfdfd.inference.out_of_range import note_on_out_of_range
from sfdfd.inference.upsampling import sharpest_slice_index
from sfdfd.io.images import USUAL_PX, channels_first, to_float, working_px_for
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
from sfdfd.refinement.refiner import DEFAULT_SECONDS, Refinement, Refiner
from sfdfd.report.outputs import checked_outputs, relative_position
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

Progress = Callable[[float, int, float], None]
Say = Callable[[str], None]
FIGURES = (
    "rendered {psnr_db:.2f} dB, nearest slice {nearest_slice_psnr_db:.2f} dB, "
    "best blend of two {best_blend_psnr_db:.2f} dB"
)


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class PhotographSettings:
    """Everything that a prediction of photographs depends on, besides the photographs.

    Attributes:
        told: what is known of the stack, by the keys of ``stack.yaml``; None for what the photographs say themselves.
        holdout: slices to keep aside, see :func:`sfdfd.photographs.holdout.parse_holdout`.
        slices: how many are worked on, see :func:`sfdfd.photographs.slice_selection.count_to_use`.
        checkpoint: what refinement starts from: "pretrained", a path, or None for a plane sweep.
        optics: options of the renderer that are told; None says nothing (``stack.yaml``, then photographs' own).
        refiner: per-scene refinement.
        working_px: longer side in pixels of the images that are worked on, or "auto".
        align: see :class:`AlignSettings`.
        device: "auto", "cpu", "cuda", "mps".
    """

    told: Mapping[str, Any] = field(default_factory=dict)
    holdout: Any = None
    slices: Any = "auto"
    checkpoint: Any = "pretrained"
    optics: Mapping[str, Any] = field(default_factory=dict)
    refiner: Refiner = field(default_factory=lambda: Refiner(seconds=DEFAULT_SECONDS))
    working_px: Any = "auto"
    align: AlignSettings = field(default_factory=AlignSettings)
    device: Any = "auto"


@dataclass(frozen=True)
class PreparedPhotographs:
    """A stack of photographs that is read and registered, and the estimator that will predict it.

    Attributes:
        name: what it was given as.
        capture: the registered photographs and their camera.
        aside: slices that judge.
        at_full_size: whether they judge at full size.
        estimator: inverts the optics of this stack.
        settings: as given.
        optics: what decides the blur, by name; ``optics_sources`` says where each comes from.
        described_optics: what ``stack.yaml`` says.
    """

    name: str
    capture: Capture
    aside: Photographs
    at_full_size: bool
    estimator: DefocusEstimator
    settings: PhotographSettings
    optics: dict[str, Any]
    optics_sources: dict[str, str]
    described_optics: Mapping[str, Any]

    @property
    def _renderer(self) -> Renderer:
        return self.estimator.renderer

    def save_alignment(self, path: str | Path) -> None:
        """Write the alignment as JSON."""
        save_alignment(Path(path), self.capture)

    def write_aligned(self, folder: Path) -> Path:
        """Write the aligned slices and their ``stack.yaml``; the folder they lie in."""
        return write_aligned(folder, self.capture, self.described_optics)

    def predict(self, say: Say = _silent, progress: Progress | None = None) -> PhotographPrediction:
        """Predict at the working size, and bring the answer to the size of the photographs.

        Args:
            say: told in lines what was done.
            progress: see :class:`sfdfd.refinement.refiner.Refiner`.
        """
        capture, photographs = self.capture, self.capture.photographs
        for origin in dict.fromkeys(self.optics_sources.values()):
            values = [f"{k} {v}" for k, v in self.optics.items() if self.optics_sources[f"optics.{k}"] == origin]
            say(f"optics: {', '.join(values)}: from {origin}")
        working_px = working_px_for(self.settings.working_px, capture.largest_blur_px(), max(photographs.size))
        stack = capture.stack(working_px).with_optics(BlurModel.of(self._renderer))
        covered = None if capture.common.all() else capture.covered.mapped(torch.from_numpy)
        slices = [lambda i=i: to_float(photographs.images[i]) for i in range(len(photographs.images))]
        clipped = None if stack.clipped is None else capture.clipped.mapped(channels_first)
        solution = self.estimator.solve_reduced(
            stack, slices, capture.camera, covered, clipped=clipped, defocus=False, progress=progress
        )
        for line in _refinement_lines(solution.refinement):
            say(line)
        network = self.estimator.network
        facts = {
            "stack": self.name,
            "start": "plane sweep" if network is None else str(self.settings.checkpoint),
            "run": run_record(),
            "optics": self.optics,
            "working_px": working_px,
            "refinement": _refinement_facts(solution.refinement),
            **capture.facts(),
            "sigma_scale": self._renderer.options.get("sigma_scale"),
        }
        metric = not capture.relative
        beyond = note_on_out_of_range(solution.small, capture.near_m, capture.far_m, metric=metric)
        for note in beyond:
            say(f"note: {note}")
        facts["notes"] = [*facts["notes"], *beyond]
        facts["sources"] = {**facts["sources"], **self.optics_sources}
        return PhotographPrediction(self, solution, facts)


@dataclass(frozen=True)
class PhotographPrediction:
    """What was predicted of photographs, at their full size.

    Attributes:
        prepared: the photographs, registered, with camera and settings.
        solution: the prediction at the working size and at full size (batches of one).
        facts: what ``prediction.json`` says besides figures of the files.

    Examples:
        >>> found = predict_photographs("example", refine_seconds=0, weights=None)
        >>> found.confidence.shape, found.notes
        (torch.Size([240, 320]), [])
    """

    prepared: PreparedPhotographs
    solution: Solution
    facts: dict[str, Any]

    @property
    def metric(self) -> bool:
        """Whether depth is in metres; else it is a position in the order of the slices (:attr:`relative_depth`)."""
        return not self.prepared.capture.relative

    @property
    def depth_m(self) -> Float[Tensor, "h w"]:
        """(H,W) depth in metres; where the stack is relative, in the unit of :attr:`focus_distances_m`."""
        return self.solution.full.depth_m[0].cpu()

    @property
    def relative_depth(self) -> Float[Tensor, "h w"]:
        """(H,W) depth as a position between the slices: 0 in focus in the first, 1 in the last."""
        return relative_position(self._predicted())

    @property
    def aif(self) -> Float[Tensor, "3 h w"]:
        """(3,H,W) all-in-focus image, sRGB in [0, 1]."""
        return self.solution.full.aif[0].cpu()

    @property
    def confidence(self) -> Float[Tensor, "h w"]:
        """(H,W) in (0, 1]; see :mod:`sfdfd.refinement.confidence`."""
        assert self.solution.full.confidence is not None  # an estimator's answer
        return self.solution.full.confidence[0].cpu()

    @property
    def depth_std_m(self) -> Float[Tensor, "h w"]:
        """(H,W) standard deviation of :attr:`depth_m`, in its unit."""
        assert self.solution.full.depth_std_m is not None
        return self.solution.full.depth_std_m[0].cpu()

    @property
    def focus_distances_m(self) -> tuple[float, ...]:
        """Focus distances in metres; stand-ins in the order of the slices where none is known."""
        return self.prepared.capture.focus_distances_m

    @property
    def camera(self) -> Camera:
        """The camera of the full-size images; nominal where it is not known."""
        return self.prepared.capture.camera

    @property
    def notes(self) -> list[str]:
        """What was found out about the photographs, in sentences."""
        return list(self.facts["notes"])

    @property
    def statement(self) -> str:
        """What the depth means, in one sentence."""
        return self.prepared.capture.statement

    def left_out(self, say: Say = _silent) -> Iterator[LeftOut]:
        """Yield the slices that were kept aside, judged one by one."""
        prepared, align = self.prepared, self.prepared.settings.align
        small = self.solution.small
        size = None if prepared.at_full_size else (small.depth_m.shape[-2], small.depth_m.shape[-1])
        for one in left_out_slices(
            prepared.capture,
            prepared.aside,
            self.solution.full if prepared.at_full_size else small,
            self._renderer,
            size=size,
            device=prepared.estimator.device,
            align=align,
        ):
            say(f"left out {{index}} ({{file}}): {FIGURES}".format(**one.facts))
            yield one

    def save(self, folder: str | Path, outputs: Any = None, say: Say = _silent) -> dict[str, Any]:
        """Write what ``python -m sfdfd.predict`` writes: arrays, pictures, ``prediction.json`` and ``report.html``.

        Args:
            folder: receives them.
            outputs: files beside the usual ones, see :func:`sfdfd.report.outputs.checked_outputs`.
            say: told in lines what is written.

        Returns:
            The content of ``prediction.json``.

        Raises:
            InputError: there is no such output.
        """
        names = checked_outputs(outputs)
        predicted = self._predicted("slice_index" in names)
        facts = write_prediction(Path(folder), predicted, self._renderer, self.left_out(say), names)
        for name, one in facts["outputs"].items():
            if "not_written" in one:
                say(f"{name}: not written: {one['not_written']}")
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
            small=self.solution.small,
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
        )


Source = str | Path | Photographs | Tensor | np.ndarray | Sequence[str | Path] | Sequence[Tensor] | Sequence[np.ndarray]
"""A folder, a video, a TIFF of pages, "example", a list of files, or images in memory."""


@checked_keywords
def predict_photographs(
    source: Source,
    *,
    focus_distances_m: Sequence[float] | None = None,
    camera: Camera | Mapping[str, float | None] | None = None,
    near_m: float | None = None,
    far_m: float | None = None,
    refine_seconds: float = DEFAULT_SECONDS,
    refine_steps: int | None = None,
    weights: str | Path | None = "pretrained",
    optics: BlurModel | Mapping[str, Any] | None = None,
    working_px: int | str = "auto",
    align: AlignSettings | bool | str = "auto",
    holdout: Any = None,
    slices: Any = "auto",
    told: Mapping[str, Any] | None = None,
    device: str = "auto",
    say: Callable[[str], None] = _silent,
    progress: Callable[[float, int, float], None] | None = None,
) -> PhotographPrediction:
    """Predict depth and the all-in-focus image of a stack of photographs, as ``python -m sfdfd.predict`` does.

    Photographs are read with what they say of their camera, registered, evened in exposure, and reduced to a working size;
    an unknown blur scale is estimated; the network's answer is refined through the renderer and brought to full size.

    Args:
        source: a folder, a video or a TIFF of pages; a list of files; images in memory, (S,H,W,3) or (S,3,H,W), or a list of
            them, uint8, uint16 or floats in [0, 1]; or "example".
        focus_distances_m: one per slice in metres, in the order of the names; None: what the photographs say.
        camera: a :class:`Camera`, or ``{"focal_length_m": ..., "f_number": ..., "pixel_pitch_m": ...}`` of which some may be
            missing; None: what the photographs say.
        near_m, far_m: depth range in metres; None: from the focus distances.
        refine_seconds: time for the refinement of the scene in seconds; 0 for the network's answer alone.
        refine_steps: ends the refinement after so many steps instead.
        weights: "pretrained", the path of a checkpoint, or None for a plane sweep.
        optics: how the photographs were blurred, where it is not as photographs are.
        working_px: longer side in pixels of the images that are worked on, or "auto".
        align: True, False, "auto", or :class:`AlignSettings`.
        holdout: slices to keep aside and predict from the others: indices, or how many.
        slices: how many are worked on: "auto" (at most 12), "all", or a number.
        told: other keys of ``stack.yaml``, such as ``crop`` or ``focus_unit``.
        device: "auto", "cpu", "cuda" or "mps".
        say: told in lines what is found and done.
        progress: told (share, step, energy) while it refines.

    Returns:
        Depth, AIF, confidence, their full-size results, notes, and ``save(folder)``.

    Raises:
        InputError: the photographs cannot be read, or an argument is wrong.

    Examples:
        >>> prediction = predict_photographs("example", refine_seconds=0)
        >>> prediction.depth_m.shape, prediction.aif.shape, prediction.metric
        (torch.Size([240, 320]), torch.Size([3, 240, 320]), True)
    """
    known = dict(told or {})
    given = {"focus_distances_m": focus_distances_m, "near_m": near_m, "far_m": far_m}
    given["camera"] = camera.as_dict() if isinstance(camera, Camera) else camera  # type: ignore[assignment]
    known |= {key: value for key, value in given.items() if value is not None}
    blur = optics.known() if isinstance(optics, BlurModel) else dict(optics or {})
    settings = PhotographSettings(
        told=known,
        holdout=holdout,
        slices=slices,
        checkpoint=None if weights is None else str(weights),
        optics=blur,
        refiner=Refiner(seconds=refine_seconds, steps=refine_steps),
        working_px=working_px,
        align=align if isinstance(align, AlignSettings) else AlignSettings(mode=align),
        device=device,
    )
    return prepare_photographs(source, settings, say).predict(say, progress)


def prepare_photographs(source: Source, settings: PhotographSettings, say: Say = _silent) -> PreparedPhotographs:
    """Read and register photographs, and find their camera.

    Args:
        source: as of :func:`predict_photographs`.
        settings: everything else.
        say: told in lines what is found.

    Raises:
        InputError: they cannot be read, or a setting is wrong.
    """
    photographs, name = _photographs(source, settings)
    described = photographs.optics
    preferred, sources = photograph_optics(settings.optics, described, f"{name}/stack.yaml")
    module, renderer = load_model(settings.checkpoint, settings.optics, preferred={"method": "fast", **preferred})
    network = None if module is None else module.network
    estimator = DefocusEstimator(network, renderer, settings.refiner, settings.working_px, pick_device(settings.device))
    kept, aside = photographs.parted()
    at_full_size = bool(photographs.left_out)  # what was passed over judges at the working size: there may be many
    unknown = "" if photographs.known_camera() else ", and estimating the blur scale, which is not known"
    say(f"registering {len(kept.images)} slices{unknown}")
    del photographs
    align = settings.align
    capture = Capture.of(
        kept,
        renderer,
        align=align,
        working_px=USUAL_PX if settings.working_px == "auto" else settings.working_px,
        calibrate=not align.only,
        alignment=None if align.load is None else load_alignment(Path(str(align.load)), kept),
    )
    for line in _capture_lines(capture):
        say(line)
    if module is not None and capture.camera_source == "known" and not getattr(network, "requires_defocus", False):
        _say_where_cameras_differ(capture.camera, module.run_config["optics"]["camera"], say)
    optics = {key: renderer.options[key] for key in OPTICS_KEYS if key in renderer.options}
    return PreparedPhotographs(name, capture, aside, at_full_size, estimator, settings, optics, sources, described)


def _photographs(source: Source, settings: PhotographSettings) -> tuple[Photographs, str]:
    """The photographs, and what they were given as."""
    told = {**settings.told, "holdout": settings.holdout, "slices": settings.slices}
    unknown = [key for key in settings.told if key not in STACK_KEYS]
    if unknown:
        raise InputError(f"told: unknown key {unknown[0]!r}; known are {', '.join(STACK_KEYS)}")
    if isinstance(source, (str, Path)):
        return find_photographs(source, told), str(source)
    if isinstance(source, Photographs):
        return source, source.name
    if isinstance(source, Sequence) and source and all(isinstance(one, (str, Path)) for one in source):
        files = [Path(str(one)).absolute() for one in source]
        return find_photographs(files[0].parent, {**told, "files": [str(file) for file in files]}), str(files[0].parent)
    if not isinstance(source, (Tensor, np.ndarray, Sequence)):
        raise InputError(f"expected a folder, a file, a list of files or images, got {type(source).__name__}")
    return photographs_from_arrays(source, told), "images in memory"  # type: ignore[arg-type] # what is left are images


def _say_where_cameras_differ(camera: Camera, trained: Mapping[str, Any], say: Say) -> None:
    """A network that is not told the blur answers for the camera it was trained with."""
    differ = [
        f"{key} {value:g} (trained with {trained[key]:g})"
        for key, value in camera.as_dict().items()
        if isinstance(trained.get(key), (int, float)) and not np.isclose(value, trained[key], rtol=1e-6)
    ]
    if differ:
        say(f"note: this network was trained with another camera: {', '.join(differ)}; checkpoint=pretrained knows any")


def _capture_lines(capture: Capture) -> Iterator[str]:
    """What was found out about the photographs."""
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
        of_each = (alignment.shift_px, alignment.scale, alignment.radial, alignment.residual_px)
        for file, shift, scale, radial, residual in zip(photographs.files, *of_each, strict=True):
            words = f"shift {shift[0]:+.2f} {shift[1]:+.2f} px, scale {scale:.5f}, distortion {radial:+.5f}, "
            yield f"aligned {file.name}: {words}residual {residual:.2g} px"
    for note in capture.notes:
        yield f"note: {note}"
    yield capture.statement


def _refinement_lines(refinement: Refinement | None) -> Iterator[str]:
    """What the refinement did."""
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
            f"lens: the stack asks for {lens['k']:.3f} +- {std['k']:.2g} times the known blur scale k; "
            "depth is that of the stack's own"
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
    """What was fitted of the lens, and its standard deviations."""
    lens = {} if refinement.lens is None else {name: value[0] for name, value in refinement.lens.as_dict().items()}
    return lens, {name: value[0] for name, value in (refinement.lens_std or {}).items()}
