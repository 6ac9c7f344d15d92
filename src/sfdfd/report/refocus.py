"""Refocus a finished prediction, and write a focus pull through a scene."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sfdfd.errors import InputError, checked_number
from sfdfd.io.images import read_image, read_npy, to_bytes, working_size
from sfdfd.measures.left_out import render_slice
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.render import DefocusRenderer, Renderer

__all__ = ["LARGEST_BLUR", "FinishedPrediction", "focus_planes", "reduced_scene", "write_focus_pull"]

LARGEST_BLUR = 0.5
"""Largest blur radius that is rendered, as a share of the longer side."""
PULL_PX, PULL_PLANES, PULL_MS = 480, 20, 90
"""Longer side of a focus pull, number of its focus distances, and the time of each."""
SCENE_ENDS = 0.01, 0.99
"""Quantiles of inverse depth that are the farthest and nearest focus."""
TILE_PX = 768


def focus_planes(depth_m: Float[Tensor, "b h w"], count: int) -> Float[Tensor, "n"]:
    """Return focus distances from near to far, evenly spaced in inverse distance over the depth of the scene."""
    inverse = (1 / depth_m).flatten()
    low, high = (float(torch.quantile(inverse[:: 1 + len(inverse) // 1_000_000], q)) for q in SCENE_ENDS)
    return 1 / torch.linspace(high, low, count, device=depth_m.device)


def reduced_scene(
    aif: Float[Tensor, "b 3 h w"], depth_m: Float[Tensor, "b h w"], camera: Camera, longer_px: int
) -> tuple[Float[Tensor, "b 3 y x"], Float[Tensor, "b y x"], Camera]:
    """Reduce AIF, depth and camera to a longer side of at most ``longer_px``; depth is averaged in inverse distance."""
    height, width = depth_m.shape[-2:]
    size = working_size(height, width, longer_px)
    if size == (height, width):
        return aif, depth_m, camera
    aif = F.interpolate(aif, size, mode="area")
    depth_m = 1 / F.interpolate(1 / depth_m[:, None], size, mode="area")[:, 0]
    return aif, depth_m, camera.resized(math.sqrt(size[0] * size[1] / (height * width)))


def write_focus_pull(
    path: Path,
    aif: Float[Tensor, "b 3 h w"],
    depth_m: Float[Tensor, "b h w"],
    camera: Camera,
    renderer: Renderer,
    planes: int = PULL_PLANES,
) -> int:
    """Write an animated WebP of a focus pull from the nearest to the farthest depth and back, in a loop.

    Args:
        path: the file.
        aif, depth_m: (1,3,H,W) and (1,H,W), of one scene.
        camera: of these pixels.
        renderer: the optics.
        planes: number of focus distances.

    Returns:
        The number of frames.
    """
    aif, depth_m, camera = reduced_scene(aif[:1].float(), depth_m[:1].float(), camera, PULL_PX)
    frames = []
    for distance in focus_planes(depth_m, planes):
        with torch.no_grad():
            frame = renderer(aif, depth_m, distance.reshape(1), camera)[0, 0]
        frames.append(Image.fromarray(to_bytes(frame.cpu()).permute(1, 2, 0).numpy()))
    frames += frames[-2:0:-1]
    durations = [PULL_MS] * len(frames)
    durations[0] = durations[planes - 1] = 5 * PULL_MS
    frames[0].save(
        path, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80, method=2
    )
    return len(frames)


@dataclass(frozen=True)
class FinishedPrediction:
    """The files of a prediction that refocusing needs.

    Attributes:
        aif: (3,H,W) in [0, 1].
        depth: (H,W) in metres; if ``relative``, in the unit of ``ends``.
        camera: of these pixels, at its widest aperture; a nominal one where it was not known.
        renderer: the optics of the prediction.
        relative: whether depth is relative to the slices and not in metres.
        ends: the focus distances of the first and the last slice, in the unit of ``depth``.
    """

    aif: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "h w"]
    camera: Camera
    renderer: Renderer
    relative: bool
    ends: tuple[float, float]

    @classmethod
    def read(cls, folder: Path) -> FinishedPrediction:
        """Read a folder that ``predict`` wrote.

        Raises:
            InputError: the prediction is missing or incomplete, or another version wrote it.
        """
        path = folder / "prediction.json"
        if not path.is_file():
            raise InputError(
                f"prediction={folder}: expected a folder that predict wrote, but it has no prediction.json"
            )
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            model, optics, relative = facts["model"], dict(facts["optics"]), not facts["metric"]
            focus = [float(value) for value in model["focus_distances"]]  # infinity is a string in JSON
            camera, renderer = Camera(**model["camera"]).widest(), DefocusRenderer(method="fast", **optics)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not readable ({error})") from None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: not what this version of predict writes (model, optics, metric: {error}); predict the stack again"
            ) from None
        aif, depth = read_image(folder / "aif.png"), _read_depth(folder, relative)
        if depth.shape != aif.shape[-2:]:
            raise InputError(f"{folder}: aif.png and the depth differ in size: {tuple(aif.shape)}, {depth.shape}")
        ends = focus[0], focus[-1]
        tensor = torch.from_numpy(depth)
        if relative:
            tensor = depth_from_normalized(1 - tensor, *ends)
        return cls(aif, tensor, camera, renderer, relative, ends)

    def distance_at(self, relative_focus: float) -> float:
        """Convert a relative focus (0 first slice, 1 last) to the unit of ``depth``."""
        return float(depth_from_normalized(1 - relative_focus, *self.ends))

    def refocused(self, focus: float, aperture: float, longer_px: int | None = None) -> Float[Tensor, "3 h w"]:
        """Render a picture, in tiles, so that memory does not grow with its size.

        Args:
            focus: focus distance in the unit of ``depth``, beyond the focal length; inf is allowed.
            aperture: aperture diameter in units of the camera's own; with 0 everything is in focus.
            longer_px: largest longer side; that of the prediction by default.

        Raises:
            InputError: a value is out of range, or the blur would be larger than half the picture.
        """
        focus = checked_number(focus, "focus_m", infinite=True)
        aperture = checked_number(aperture, "aperture", least=0)
        aif, depth, camera = self.aif, self.depth, self.camera
        if longer_px is not None:
            batch_aif, batch_depth, camera = reduced_scene(aif[None], depth[None], camera, longer_px)
            aif, depth = batch_aif[0], batch_depth[0]
        if aperture == 0:
            return aif
        radius = aperture * float(camera.blur_radius_px(depth, torch.tensor(focus)).max())
        if radius > LARGEST_BLUR * max(depth.shape):
            raise InputError(
                f"aperture={aperture:g}: the blur radius would reach {radius:.4g} pixels in a picture of "
                f"{depth.shape[1]} x {depth.shape[0]}; expected half its longer side at most: give a smaller aperture"
            )
        return render_slice(self.renderer, aif, depth, focus, camera, blur_factor=aperture, tile_px=TILE_PX)


def _read_depth(folder: Path, relative: bool) -> np.ndarray:
    path = folder / ("relative_depth.npy" if relative else "depth_m.npy")
    if not path.exists():
        raise InputError(f"{path}: no such file; predict the stack again")
    values = read_npy(path)
    if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise InputError(f"{path}: expected (H,W) finite numbers, got {values.dtype} {values.shape}")
    return values.astype(np.float32, copy=False)
