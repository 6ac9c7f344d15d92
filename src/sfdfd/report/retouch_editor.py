"""The part of the report page on which one paints: its pictures, a coarse depth map, and the strokes so far."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from sfdfd.image_tensors import resize_area
from sfdfd.io.images import to_bytes, working_size
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import normalized_inverse_depth
from sfdfd.report.html import Section, jpeg_data_uri, render_page
from sfdfd.report.pictures import depth_palette
from sfdfd.report.predicted_stack import RetouchSource

__all__ = ["read_editor_page", "retouch_editor"]

GRID_PX = 320
"""Longer side of the depth map on the page."""
COLOURS = 64


def retouch_editor(
    source: RetouchSource, camera: Camera, relative_ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the data of the editor: what ``retouch.html`` reads.

    Args:
        source: the prediction without strokes, and the strokes.
        camera: of the full-size images.
        relative_ends: the focus distances of the first and the last slice where depth is relative to them; None: metres.
    """
    largest_px = max(source.slices[0].shape)
    height, width = source.depth_m.shape
    aif = to_bytes(resize_area(source.aif, *working_size(height, width, largest_px)))
    pictures = [image.permute(1, 2, 0).cpu().numpy() for image in (aif, *source.slices)]
    aif_uri, *slice_uris = (jpeg_data_uri(picture, largest_px=largest_px) for picture in pictures)
    values = 1 / source.depth_m
    scale = camera.blur_scale_px_m
    if relative_ends is not None:
        first, last = relative_ends
        values = 1 - normalized_inverse_depth(source.depth_m, first, last)
        scale *= abs(1 / first - 1 / last)
    rows, columns = (max(1, round(side * min(1.0, GRID_PX / max(height, width)))) for side in (height, width))
    grid = F.interpolate(values[None, None].float(), (rows, columns), mode="nearest-exact")[0, 0].numpy()
    low, high = float(grid.min()), float(grid.max())
    codes = np.round((grid - low) / max(high - low, 1e-12) * 65535).astype("<u2")
    return {
        **source.retouch.as_dict(),
        "aif": aif_uri,
        "slice_pictures": slice_uris,
        "columns": columns,
        "rows": rows,
        "low": low,
        "high": high,
        "values": base64.b64encode(codes.tobytes()).decode(),
        "blur_px": scale,
        "palette": depth_palette(COLOURS),
    }


def read_editor_page(report: Path) -> str | None:
    """Return a page of the editor alone, from the report that holds it; None if the report has none."""
    try:
        found = re.search('data-retouch="([^"]*)"', report.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if found is None else render_page("", [Section(title="", retouch=json.loads(html.unescape(found[1])))])
