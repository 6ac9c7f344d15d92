"""Self-contained HTML pages with pictures, facts and a viewer that refocuses.

A page needs no network and works from file://. The frames of the viewer are rendered beforehand from AIF and depth: a click
looks up the depth and shows the frame focused nearest to it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.io.files import readable
from sfdfd.io.images import read_image, to_bytes, working_size
from sfdfd.measures.left_out import FIGURES, LeftOutScore
from sfdfd.optics.render import Renderer
from sfdfd.report.pictures import (
    apertures_in_words,
    colour_confidence,
    colour_defocus,
    colour_depth,
    colour_error,
    shown_range,
)
from sfdfd.report.refocus import focus_planes, reduced_scene
from sfdfd.stack import FocalStack, Prediction

__all__ = [
    "Section",
    "gallery",
    "jpeg_data_uri",
    "left_out_gallery_row",
    "picture",
    "picture_file",
    "render_page",
    "viewer",
    "write_page",
]

APERTURES = (0.0, 0.5, 1.0, 2.0)
"""Aperture diameters in units of the camera's own; 0 is the all-in-focus image."""


def jpeg_data_uri(image: np.ndarray, *, largest_px: int = 640, quality: int = 85) -> str:
    """Encode (H,W,3) in [0, 1] or uint8 as a data URI of a JPEG, its longer side at most ``largest_px``."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(image)
    if max(picture.size) > largest_px:
        picture.thumbnail((largest_px, largest_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def picture(title: str, image: np.ndarray | Tensor, **options: int) -> dict[str, str]:
    """Return an entry of a gallery; a tensor is (3,H,W) in [0, 1], an array (H,W,3)."""
    if isinstance(image, Tensor):
        image = image.detach().float().cpu().permute(1, 2, 0).numpy()
    return {"title": title, "source": jpeg_data_uri(image, **options)}


def picture_file(title: str, path: Path, **options: int) -> list[dict[str, str]]:
    """Return the entry of an image file as a list; an empty one where the file is broken."""
    try:
        return [picture(title, read_image(path), **options)]
    except InputError:
        return []


def gallery(stack: FocalStack, prediction: Prediction, unit: str = "m") -> list[dict[str, Any]]:
    """Return rows of pictures of one stack: slices, AIF, depth, confidence, residual, defocus maps."""
    depth = prediction.depth_m[0].float().cpu().numpy()
    near, far = shown_range(depth)
    focus = stack.focus_distances_m[0].tolist()
    scale = f"{near:.3g} to {far:.3g} {unit}" if unit else "order of focus"
    first = [
        picture("All-in-focus image", prediction.aif[0]),
        picture(
            f"Depth: yellow is near, blue is far ({scale})" if unit else "Relative depth",
            colour_depth(depth, near, far),
        ),
    ]
    if prediction.confidence is not None:
        confidence = colour_confidence(prediction.confidence[0].cpu().numpy())
        first.append(picture("Confidence: bright is confident", confidence))
    rows: list[dict[str, Any]] = [{"title": "Result", "pictures": first}]
    names = [f"focused at {value:.3g} {unit}" if unit else f"slice {i + 1}" for i, value in enumerate(focus)]
    names = [name + aperture for name, aperture in zip(names, apertures_in_words(stack), strict=True)]
    images = stack.images[0].cpu()
    slices = [picture(name, image, largest_px=360) for name, image in zip(names, images, strict=True)]
    rows.append({"title": "The photographs", "pictures": slices})
    if prediction.rendered is not None:
        error = (prediction.rendered[0].cpu() - images).abs().mean(1).numpy()
        residuals = [picture(n, colour_error(e), largest_px=360) for n, e in zip(names, error, strict=True)]
        rows.append(
            {
                "title": "What the result does not explain: black is nothing, white 6 % of the range",
                "pictures": residuals,
            }
        )
    maps = prediction.defocus_px[0].float().cpu().numpy()
    limit = max(1e-3, float(np.abs(maps).max()))
    defocus = [picture(n, colour_defocus(m, limit), largest_px=360) for n, m in zip(names, maps, strict=True)]
    title = f"Blur: blue in front of the focus, red behind it, full colour is a radius of {limit:.1f} px"
    rows.append({"title": title, "pictures": defocus})
    return rows


def left_out_gallery_row(title: str, score: LeftOutScore) -> dict[str, Any]:
    """Return a row of a gallery: the rendered slice, the photograph, and their difference."""
    difference: Any = (score.rendered - score.photograph).abs().mean(0)
    size = working_size(*difference.shape, longer_px=640)
    difference = F.interpolate(difference[None, None], size, mode="area")[0, 0].numpy()
    figures = [f"{FIGURES[key]} {value:.2f} dB" for key, value in score.figures.as_dict().items()]
    return {
        "title": f"{title}: " + ", ".join(figures),
        "pictures": [
            picture("Rendered from the other slices", score.rendered),
            picture("The photograph", score.photograph),
            picture("Their difference: black is nothing, white 6 % of the range", colour_error(difference)),
        ],
    }


def viewer(
    stack: FocalStack,
    prediction: Prediction,
    renderer: Renderer,
    *,
    focuses: int = 14,
    apertures: Sequence[float] = APERTURES,
    largest_px: int = 512,
    unit: str = "m",
) -> dict[str, Any]:
    """Return the data of a viewer: frames over focus and aperture, and a depth map that looks up clicks.

    Args:
        stack, prediction: of one scene, at one size.
        renderer: the optics.
        focuses: number of focus distances, evenly spaced in inverse distance over the depth of the scene.
        apertures: blur factors; 0 shows the AIF.
        largest_px: longer side of the frames.
        unit: of the distances; "" for relative depth.
    """
    aif, depth_m = prediction.aif[:1].float(), prediction.depth_m[:1].float()
    aif, depth_m, camera = reduced_scene(aif, depth_m, stack.camera[0].widest(), largest_px)
    inverse, focus = 1 / depth_m, focus_planes(depth_m, focuses)
    high, low = float(1 / focus[0]), float(1 / focus[-1])
    draft = renderer.draft()  # frames are looked at, not measured
    frames = []
    for aperture in apertures:
        if aperture == 0:
            frames.append([jpeg_data_uri(_array(aif[0]), largest_px=largest_px)])
            continue
        with torch.no_grad():
            stack_at_aperture = draft(aif, depth_m, focus, camera, blur_factor=aperture)[0]
        frames.append([jpeg_data_uri(_array(frame), largest_px=largest_px, quality=82) for frame in stack_at_aperture])
    columns = min(160, depth_m.shape[-1])
    rows = max(1, round(columns * depth_m.shape[-2] / depth_m.shape[-1]))
    coarse = F.interpolate(inverse[:, None], (rows, columns), mode="nearest-exact")[0, 0]
    lookup = to_bytes((high - coarse) / max(high - low, 1e-12)).cpu().numpy()
    return {
        "frames": frames,
        "apertures": list(apertures),
        "focus": focus.tolist(),
        "unit": unit,
        "columns": columns,
        "rows": rows,
        "lookup": base64.b64encode(lookup.tobytes()).decode(),
    }


def _array(image: Float[Tensor, "3 h w"]) -> np.ndarray:
    return image.detach().clamp(0, 1).cpu().permute(1, 2, 0).numpy()


class Section(dict):
    """One section of a page.

    It has a ``title`` and any of ``text`` (paragraphs), ``facts`` (pairs), ``table`` (header, rows), ``rows``
    (galleries), ``viewer`` and ``retouch`` (:mod:`sfdfd.report.retouch_editor`).
    """


def render_page(title: str, sections: Sequence[Mapping[str, Any]]) -> str:
    """Return a page; all text is escaped."""
    environment = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent))
    return readable(environment.get_template("page.html").render(title=title, sections=list(sections)))


def write_page(path: Path, title: str, sections: Sequence[Mapping[str, Any]]) -> None:
    """Write a page; see :func:`render_page`."""
    path.write_text(render_page(title, sections), encoding="utf-8")
