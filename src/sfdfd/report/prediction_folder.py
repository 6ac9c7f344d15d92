"""Write the folder of a prediction: arrays, pictures, a point cloud, ``prediction.json`` and a page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from sfdfd.io.files import write_json
from sfdfd.io.images import to_bytes, write_image
from sfdfd.io.retouch_file import RETOUCH_FILE
from sfdfd.measures.left_out import FIGURES, HOW_TO_READ, LeftOutScore, mean_left_out_psnr
from sfdfd.measures.psnr import psnr
from sfdfd.optics.render import Renderer
from sfdfd.report.html import Section, gallery, left_out_gallery_row, picture, viewer, write_page
from sfdfd.report.outputs import OUTPUT_FILES, relative_depth, write_outputs
from sfdfd.report.pictures import apertures_in_words, defocus_figure, depth_figure, map_figure, subsampled, to_rgb
from sfdfd.report.point_cloud import write_point_cloud
from sfdfd.report.predicted_stack import PredictedStack, RetouchSource
from sfdfd.report.retouch_editor import retouch_editor

__all__ = ["CAMERA_FIELDS", "PredictedStack", "camera_value", "write_prediction"]

CAMERA_FIELDS = {
    "focal_length_m": ("Focal length", 1e3, "mm"),
    "f_number": ("f-number", 1.0, ""),
    "pixel_pitch_m": ("Pixel pitch", 1e6, "µm"),
}
"""Name, factor and unit in which a value of the camera is shown."""
STARTS = {"pretrained": "the weights in the package", "plane sweep": "a plane sweep"}
"""Where a prediction starts, in words."""

METRIC_FILES = ("depth_m.npy", "depth_mm.png", "pointcloud.ply")
RELATIVE_FILES = ("relative_depth.npy",)
REFOCUSED = "refocused.png"
"""The file that ``refocus`` writes from a finished prediction."""
PICTURE = "retouched.png"
"""The AIF with a blurred background."""
LEFT_OUT = "left_out"
"""The folder of the left-out slices."""


@runtime_checkable
class LeftOutSlice(Protocol):
    """A left-out slice, its score and pictures, and its facts for ``prediction.json``."""

    @property
    def index(self) -> int: ...
    @property
    def judged(self) -> LeftOutScore: ...
    @property
    def facts(self) -> dict[str, Any]: ...


def write_prediction(
    output_dir: Path,
    predicted: PredictedStack,
    renderer: Renderer,
    left_out: Iterable[LeftOutSlice] = (),
    outputs: Sequence[str] = (),
) -> dict[str, Any]:
    """Write everything at full size: first the arrays, then what is derived from them.

    Each of the four groups of files appears complete or not at all.

    Args:
        output_dir: the folder.
        predicted: the prediction.
        renderer: the model's optics.
        left_out: the left-out slices; only one at a time is held in memory.
        outputs: additional files, see :mod:`sfdfd.report.outputs`.

    Returns:
        The content of ``prediction.json``.
    """
    facts = _facts(predicted)
    output_dir.mkdir(parents=True, exist_ok=True)
    stale = (*METRIC_FILES, *RELATIVE_FILES, *OUTPUT_FILES, LEFT_OUT, REFOCUSED, PICTURE)
    with _completed_folder(output_dir, stale) as part:
        facts.update((_write_relative if predicted.relative else _write_metric)(part, predicted))
        _write_maps(part, predicted)
        write_json(part / "prediction.json", facts)
    with _completed_folder(output_dir) as part:
        facts["outputs"] = write_outputs(part, predicted, renderer, outputs)
        write_json(part / "prediction.json", facts)
    with _completed_folder(output_dir) as part:
        left_out_facts, left_out_rows = _write_left_out(part / LEFT_OUT, left_out)
        facts.update(left_out_facts)
        write_json(part / "prediction.json", facts)
    with _completed_folder(output_dir) as part:
        _write_pictures(part, predicted)
        _write_report(part / "report.html", predicted, facts, renderer, left_out_rows)
    return facts


def _facts(predicted: PredictedStack) -> dict[str, Any]:
    """Return what ``prediction.json`` says before any file is written."""
    working = predicted.working
    assert predicted.full.confidence is not None and working.rendered is not None  # an estimator predicts both
    confidence = predicted.full.confidence[0].cpu()
    scale = predicted.camera.blur_scale_px_m / predicted.stack.camera[0].blur_scale_px_m
    coverage = predicted.stack.coverage()[:, :, None].expand_as(predicted.stack.images)
    return {
        **predicted.facts,
        "working_size": list(predicted.stack.images.shape[-2:]),
        "size": list(predicted.full.depth_m.shape[-2:]),
        "largest_blur_radius_px": float(working.defocus_px.abs().max()) * scale,
        "stack_psnr_db": float(psnr(working.rendered, predicted.stack.images, coverage)[0]),
        "confidence": {"mean": float(confidence.mean()), "share_above_half": float((confidence > 0.5).float().mean())},
        "valid_share": float(predicted.covered.float().mean()),
        "intrinsics": _intrinsics(predicted),
        "model": {
            "camera": predicted.camera.as_dict(),
            "focus_distances": predicted.focus.tolist(),
            "unit": "order of the slices" if predicted.relative else "m",
        },
        "left_out": [],
        "left_out_mean": None,
    }


@contextmanager
def _completed_folder(output_dir: Path, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield a folder whose files move into ``output_dir`` when all are written; then remove the ``stale`` files."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=output_dir))
    try:
        yield part
        for name in stale:
            if (output_dir / name).is_dir():
                shutil.rmtree(output_dir / name)
            (output_dir / name).unlink(missing_ok=True)
        for file in part.iterdir():
            file.replace(output_dir / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_left_out(folder: Path, left_out: Iterable[LeftOutSlice]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the pictures; return the facts, and gallery rows for the page."""
    facts, figures, rows = [], [], []
    for slice_ in left_out:
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{slice_.index:02d}_rendered.png", slice_.judged.rendered)
        write_image(folder / f"{slice_.index:02d}_photograph.png", slice_.judged.photograph)
        facts.append(slice_.facts)
        figures.append(slice_.judged.figures)
        rows.append(left_out_gallery_row("{index}, {file}".format(**slice_.facts), slice_.judged))
    return {"left_out": facts, "left_out_mean": mean_left_out_psnr(figures) if figures else None}, rows


def _summary(values: Tensor) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}


def _intrinsics(predicted: PredictedStack) -> dict[str, Any]:
    """Return a pinhole camera with nerfstudio's keys (``transforms.json``), and as a line of COLMAP's ``cameras.txt``."""
    (height, width), (focal_px, origin) = predicted.full.depth_m.shape[-2:], predicted.focal_length_px
    cx, cy = predicted.principal_point_px or (width / 2, height / 2)  # both count from the corner of the first pixel
    return {
        "camera_model": "PINHOLE",
        "w": width,
        "h": height,
        "fl_x": focal_px,
        "fl_y": focal_px,
        "cx": cx,
        "cy": cy,
        "focal_length": origin,
        "colmap": f"1 PINHOLE {width} {height} {focal_px:.6f} {focal_px:.6f} {cx} {cy}",
    }


def _write_relative(folder: Path, predicted: PredictedStack) -> dict[str, Any]:
    depth = relative_depth(predicted)
    np.save(folder / "relative_depth.npy", depth.numpy().astype(np.float32))
    return {"relative_depth": _summary(depth), "pointcloud": "not written: relative depth has no shape"}


def _write_metric(folder: Path, predicted: PredictedStack) -> dict[str, Any]:
    depth_m = predicted.full.depth_m[0].cpu()
    np.save(folder / "depth_m.npy", depth_m.numpy().astype(np.float32))
    iio.imwrite(folder / "depth_mm.png", (depth_m * 1000).round().clamp(0, 65535).numpy().astype(np.uint16))
    focal_px, origin = predicted.focal_length_px
    points = write_point_cloud(
        folder / "pointcloud.ply",
        depth_m,
        predicted.full.aif[0].cpu(),
        focal_px,
        principal_point_px=predicted.principal_point_px,
        keep=predicted.covered,
        comment=origin,
    )
    return {
        "depth_m": _summary(depth_m),
        "depth_mm_saturated": bool((depth_m > 65.535).any()),
        "pointcloud": {"points": points, "focal_length_px": focal_px, "focal_length": origin},
    }


def _write_maps(folder: Path, predicted: PredictedStack) -> None:
    """Write AIF, confidence and validity."""
    assert predicted.full.confidence is not None
    confidence = predicted.full.confidence[0].cpu()
    write_image(folder / "aif.png", predicted.full.aif[0].cpu(), predicted.exif)
    if predicted.picture is not None:
        write_image(folder / PICTURE, predicted.picture, predicted.exif)
    if predicted.retouch_source is not None and predicted.retouch_source.retouch.strokes:
        write_json(folder / RETOUCH_FILE, predicted.retouch_source.retouch.as_dict())
    iio.imwrite(folder / "confidence.png", to_bytes(confidence).numpy())
    iio.imwrite(folder / "valid.png", predicted.covered.to(torch.uint8).numpy() * 255)


def _write_pictures(folder: Path, predicted: PredictedStack) -> None:
    if predicted.relative:
        title = f"{predicted.name}: relative depth (0 first slice, 1 last)"
        figure = map_figure(subsampled(relative_depth(predicted)), title)
    else:
        figure = depth_figure(subsampled(predicted.full.depth_m[0].cpu()), f"{predicted.name}: depth")
    iio.imwrite(folder / "depth.png", to_rgb(figure))
    focus = predicted.focus.tolist()
    apertures = apertures_in_words(predicted.stack)
    titles = [f"focus {distance:.3g} m{aperture}" for distance, aperture in zip(focus, apertures, strict=True)]
    if predicted.relative:
        titles = [f"slice {i + 1}" for i in range(len(focus))]
    iio.imwrite(folder / "defocus.png", to_rgb(defocus_figure(predicted.working.defocus_px[0].cpu(), focus, titles)))


def _write_report(
    path: Path,
    predicted: PredictedStack,
    facts: dict[str, Any],
    renderer: Renderer,
    left_out: list[dict[str, Any]],
) -> None:
    unit, stack, working = "" if predicted.relative else "m", predicted.stack, predicted.working
    sections = [
        Section(
            title="Refocus",
            text=[facts["statement"], "Click the picture to focus there; the sliders set focus and aperture."],
            viewer=viewer(stack, working, renderer, unit=unit),
        ),
        *([] if predicted.retouch_source is None else [_retouch_section(predicted, predicted.retouch_source)]),
        *([_left_out_section(facts, left_out)] if left_out else []),
        Section(title="Pictures", rows=gallery(stack, working, unit)),
        Section(title="Camera and method", facts=_camera_and_method(predicted, facts), text=facts["notes"]),
        Section(
            title="Alignment and exposure",
            text=["Applied." if predicted.aligned else "Estimated; not applied."],
            table=_alignment_table(facts),
        ),
    ]
    write_page(path, f"sfdfd: {predicted.name}", sections)


def _retouch_section(predicted: PredictedStack, source: RetouchSource) -> Section:
    """Return the section on which one paints."""
    text = (
        "Correct the all-in-focus image or the depth, save the strokes, and predict again with retouch=retouch.json. What "
        "you see here is a preview; the second prediction applies the strokes at full size."
    )
    ends = (float(predicted.focus[0]), float(predicted.focus[-1])) if predicted.relative else None
    section = Section(title="Retouch", text=[text], retouch=retouch_editor(source, predicted.camera, ends))
    if predicted.picture is not None:
        blurred = picture("As it was applied", predicted.picture)
        section["rows"] = [{"title": f"Blurred background ({PICTURE})", "pictures": [blurred]}]
    return section


def _left_out_section(facts: dict[str, Any], rows: list[dict[str, Any]]) -> Section:
    """Return the section about left-out slices."""
    keys = list(FIGURES)
    table = [
        [row["file"], *(f"{row[key]:.2f}" for key in keys)]
        for row in (*facts["left_out"], {"file": "mean", **facts["left_out_mean"]})
    ]
    return Section(
        title="Left-out slices",
        text=[HOW_TO_READ],
        rows=rows,
        table={
            "header": ["slice", *(f"{name}, dB" for name in FIGURES.values())],
            "rows": table,
        },
    )


def camera_value(value: float | Sequence[float], factor: float, unit: str) -> str:
    """Return a value of the camera, or one per slice, in words."""
    numbers = value if isinstance(value, Sequence) else [value]
    return f"{', '.join(f'{factor * number:.4g}' for number in numbers)} {unit}".rstrip()


def _camera_and_method(predicted: PredictedStack, facts: dict[str, Any]) -> list[tuple[str, str]]:
    sources = dict(facts["sources"])

    def with_source(text: str, key: str, otherwise: str = "") -> str:
        source = sources.pop(key, otherwise)
        return f"{text} ({source})" if source else text

    pairs = []
    for key, (name, factor, unit) in CAMERA_FIELDS.items():
        value = facts["camera"].get(key)
        pairs.append((name, with_source("not known" if value is None else camera_value(value, factor, unit), key)))
    if not predicted.relative:
        distances = ", ".join(f"{value:.4g} m" for value in facts["focus_distances_m"])
        pairs.append(("Focused at", with_source(distances, "focus_distances_m")))
        side = "" if facts["assumed_side"] is None else f", {facts['assumed_side']} the focus distance"
        pairs.append(("Depth range", "{:.4g} to {:.4g} m".format(*facts["depth_range_m"]) + side))
        pairs.append(("Blur scale k = f²/(2Np)", f"{facts['blur_scale_px_m']:.4g} px m"))
    for key, value in facts["optics"].items():
        pairs.append((f"optics.{key}", with_source(str(value), f"optics.{key}", "the renderer")))
    pairs += [(f"{key} from", value) for key, value in sources.items()]
    pairs += [(f"{key} is missing", f"give {value}") for key, value in facts["missing"].items()]
    pairs.append(("Started from", STARTS.get(facts["start"], facts["start"])))
    sizes = "{1} x {0} pixels, worked on at {3} x {2}"
    pairs.append(("Size", sizes.format(*facts["size"], *facts["working_size"])))
    pairs.append(("The photographs, rendered from the result", f"{facts['stack_psnr_db']:.1f} dB PSNR"))
    if facts.get("prior"):
        pairs.append(("Depth map from elsewhere", facts["prior"]["sentence"]))
    if facts["refinement"]:
        summary = "{seconds:.1f} s, {steps} steps, energy {objective_start:.5f} to {objective:.5f}"
        pairs.append(("Refinement", summary.format(**facts["refinement"])))
    return pairs


def _alignment_table(facts: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for motion, gains in zip(facts["alignment"]["slices"], facts["exposure_gains"], strict=True):
        shift, gain = "{:+.2f} {:+.2f}".format(*motion["shift_px"]), " ".join(f"{g:.3f}" for g in gains)
        rows.append([motion["file"], shift, f"{motion['scale']:.5f}", motion["motion_px"], motion["residual_px"], gain])
    return {"header": ["slice", "shift px", "scale", "motion px", "residual px", "gain"], "rows": rows}
