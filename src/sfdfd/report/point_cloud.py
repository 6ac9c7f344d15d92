"""Point clouds as PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sfdfd.io.images import to_bytes

__all__ = ["write_point_cloud"]


def write_point_cloud(
    path: Path,
    depth_m: Float[Tensor, "h w"],
    aif: Float[Tensor, "3 h w"],
    focal_length_px: float,
    *,
    principal_point_px: tuple[float, float] | None = None,
    keep: Tensor | None = None,
    largest: int = 1_000_000,
    comment: str = "",
) -> int:
    """Write a binary PLY of coloured points in metres: x right, y down, z away from the lens.

    Args:
        path: the file.
        depth_m: (H,W) in metres.
        aif: (3,H,W) colours in [0, 1].
        focal_length_px: focal length over pixel pitch.
        principal_point_px: (x, y) where the optical axis meets the image, from the corner of the first pixel; its middle
            by default.
        keep: (H,W) bool, the pixels to write; all by default.
        largest: largest number of points; where there are more pixels, a regular grid of them is used.
        comment: one line for the header.

    Returns:
        The number of points.
    """
    height, width = depth_m.shape
    centre_x, centre_y = principal_point_px or (width / 2, height / 2)
    stride = 1
    while -(-height // stride) * -(-width // stride) > largest:
        stride += 1
    ys, xs = np.mgrid[0:height:stride, 0:width:stride]
    z = depth_m[::stride, ::stride].float().cpu().numpy()
    colour = to_bytes(aif[:, ::stride, ::stride].float()).permute(1, 2, 0).cpu().numpy()
    chosen = np.ones(z.shape, bool) if keep is None else keep[::stride, ::stride].cpu().numpy()
    points = np.empty(
        int(chosen.sum()), dtype=[(k, "<f4") for k in "xyz"] + [(k, "u1") for k in ("red", "green", "blue")]
    )
    points["x"] = ((xs + 0.5 - centre_x) * z / focal_length_px)[chosen]
    points["y"] = ((ys + 0.5 - centre_y) * z / focal_length_px)[chosen]
    points["z"] = z[chosen]
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = colour[..., channel][chosen]
    lines = ["ply", "format binary_little_endian 1.0", *([f"comment {comment}"] if comment else [])]
    lines += [f"element vertex {len(points)}", *(f"property float {k}" for k in "xyz")]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    with path.open("wb") as file:
        file.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace"))
        file.write(points.tobytes())
    return len(points)
