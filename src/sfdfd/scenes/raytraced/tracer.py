"""Path tracing: Mitsuba renders a scene through a thin lens, independently of :mod:`sfdfd.optics`.

Disc aperture, exact occlusion, linear light, sRGB encoding, 8 bits; depth exact through pixel centres; all-in-focus
image by a pinhole. Every slice has the pinhole's geometry (one field of view), so the blur radius is
``Camera.blur_radius_px``. Only tracing needs ``pip install 'sfdfd[raytraced]'``.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera
from sfdfd.scenes.raytraced.patches import Patch, SceneDescription, cast_rays
from sfdfd.scenes.raytraced.surface_textures import linear_to_srgb

__all__ = ["best_variant", "blur_aperture_radius_m", "trace_stack"]

Array = np.ndarray
_FARTHEST_FOCUS_M = 1e5  # Mitsuba needs a finite distance; beyond this the blur changes by less than 1e-4 of itself
_PINHOLE_RADIUS_M = 1e-7
_LANES = 20_000_000  # rays in flight of the compiled variants
_PROBE = """
import mitsuba as mi
mi.set_variant({variant!r})
mi.set_log_level(mi.LogLevel.Error)
from sfdfd.scenes.raytraced.tracer import _load, _render, _sensor
from sfdfd.scenes.raytraced.patches import Patch
from sfdfd.optics.camera import Camera
import numpy as np
x, y = np.meshgrid((-1.0, 1.0), (-1.0, 1.0))
patch = Patch(np.stack([x, y, 0 * x + 2], -1).astype(np.float32), np.full((4, 4, 3), 0.5, np.float32))
image = _render(mi, _load(mi, [patch]), _sensor(mi, Camera(0.05, 2.0, 1e-3), 8, 8), 0.01, 1.0, 16, 0)
raise SystemExit(not np.allclose(image, 0.5, atol=1e-3))
"""


def _mitsuba() -> Any:
    try:
        import mitsuba
    except ImportError:
        raise InputError("path tracing needs mitsuba: pip install 'sfdfd[raytraced]'") from None
    return mitsuba


@functools.cache
def best_variant() -> str:
    """Return the fastest working variant of Mitsuba: ``llvm_ad_rgb`` with a working LLVM library, else ``scalar_rgb``.

    A broken LLVM aborts the process, so a child process tries it first (takes seconds, once a process).
    """
    variant = "llvm_ad_rgb"
    if variant in _mitsuba().variants():
        code = f"import sys; sys.path[:] = {sys.path!r}" + _PROBE.format(variant=variant)
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "scalar_rgb"
        if done.returncode == 0:
            return variant
    return "scalar_rgb"


@contextmanager
def _variant(mi: Any, name: str) -> Iterator[None]:
    """Set a variant of Mitsuba for a ``with`` block."""
    if name not in mi.variants():
        raise InputError(f"expected a variant of Mitsuba among {mi.variants()}, got {name!r} (variant)")
    before = mi.variant()
    mi.set_variant(name)
    level = mi.logger().log_level()
    try:
        mi.set_log_level(mi.LogLevel.Error)  # each pass would warn that the sampler rounds its count
        yield
    finally:
        mi.set_log_level(level)
        if before is not None:
            mi.set_variant(before)


def blur_aperture_radius_m(camera: Camera, focus_distance_m: float) -> float:
    """Return the aperture radius f / (2N) / (1 - f/F) at which a lens of fixed field of view blurs as ``camera`` does
    at F."""
    return camera.focal_length_m / (2 * camera.widest_f_number) / (1 - camera.focal_length_m / focus_distance_m)


def _atlas(patches: Sequence[Patch]) -> tuple[Array, list[Array]]:
    """Pack all radiance into one image, each patch with a replicated rim; return it and each patch's (N*M,2) coordinates."""
    shapes = np.array([patch.radiance.shape[:2] for patch in patches]) + 2
    width = max(int(shapes[:, 1].max()), int(np.sqrt(1.1 * shapes.prod(1).sum())))
    left, top, shelf, corners = 0, 0, 0, {}
    for number in np.argsort(-shapes[:, 0], kind="stable"):
        rows, columns = shapes[number]
        if left + columns > width:
            left, top, shelf = 0, top + shelf, 0
        corners[int(number)] = (top, left)
        left, shelf = left + columns, max(shelf, rows)
    atlas, size = np.zeros((top + shelf, width, 3), np.float32), np.array([width, top + shelf])
    coordinates = []
    for number, patch in enumerate(patches):
        (top, left), (rows, columns) = corners[number], shapes[number]
        atlas[top : top + rows, left : left + columns] = np.pad(patch.radiance, ((1, 1), (1, 1), (0, 0)), mode="edge")
        coordinates.append((np.array([left + 1, top + 1]) + patch.uv * np.array([columns - 2, rows - 2])) / size)
    return atlas, coordinates


def _load(mi: Any, patches: Sequence[Patch]) -> Any:
    """Build Mitsuba's scene: one mesh that emits its radiance and reflects nothing."""
    atlas, coordinates = _atlas(patches)
    first = np.cumsum([0, *(patch.vertices_m[..., 0].size for patch in patches)])
    triangles = np.concatenate([patch.triangles + start for patch, start in zip(patches, first, strict=False)])
    properties = mi.Properties()
    data = mi.TensorXf(atlas)
    radiance = {"type": "bitmap", "data": data, "raw": True, "wrap_mode": "clamp"}
    properties["emitter"] = mi.load_dict({"type": "area", "radiance": radiance})
    properties["bsdf"] = mi.load_dict({"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}})
    mesh = mi.Mesh("scene", int(first[-1]), len(triangles), has_vertex_texcoords=True, props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.concatenate([np.ravel(patch.vertices_m) for patch in patches])
    parameters["vertex_texcoords"] = np.concatenate([np.ravel(uv) for uv in coordinates]).astype(np.float32)
    parameters["faces"] = np.ravel(triangles).astype(np.uint32)
    parameters.update()
    return mi.load_dict({"type": "scene", "integrator": {"type": "path", "max_depth": 1}, "mesh": mesh})


def _sensor(mi: Any, camera: Camera, height: int, width: int) -> Any:
    """Build a thin lens at the origin: x right, y down, z away. Light is averaged over each pixel's square."""
    film = {"type": "hdrfilm", "width": width, "height": height, "rfilter": {"type": "box"}}
    fov = 2 * np.degrees(np.arctan(width * camera.pixel_pitch_m / camera.focal_length_m / 2))
    return mi.load_dict(
        {
            "type": "thinlens",
            "fov": float(fov),
            "fov_axis": "x",
            "aperture_radius": _PINHOLE_RADIUS_M,
            "focus_distance": 1.0,
            "near_clip": 1e-3,
            "far_clip": 1e5,
            "to_world": mi.ScalarTransform4f().look_at([0, 0, 0], [0, 0, 1], [0, -1, 0]),
            "film": {**film, "pixel_format": "rgb", "component_format": "float32"},
            "sampler": {"type": "multijitter"},
        }
    )


def _integrator(mi: Any, scene: Any) -> Any:
    """Return an integrator of the emitted light at the first hit: ``path``, or for compiled variants one twice as fast."""
    if mi.variant().startswith("scalar"):
        return scene.integrator()

    class Emission(mi.SamplingIntegrator):
        def sample(self, scene, sampler, ray, medium=None, active=True):
            hit = scene.ray_intersect(ray, mi.RayFlags.Minimal | mi.RayFlags.UV, True, active)
            return hit.emitter(scene).eval(hit, active), hit.is_valid(), []

    return Emission(mi.Properties())


def _render(
    mi: Any, scene: Any, sensor: Any, aperture_radius_m: float, focus_m: float, samples: int, seed: int
) -> Array:
    """Render linear light (H,W,3) float64: the mean over ``samples`` rays per pixel, over its square and the lens."""
    width, height = sensor.film().size()
    passes = 1 if mi.variant().startswith("scalar") else -(-height * width * samples // _LANES)
    parameters = mi.traverse(sensor)  # reuse the sensor, so that compiled variants compile once
    parameters["aperture_radius"], parameters["focus_distance"] = aperture_radius_m, focus_m
    parameters.update()
    total, integrator = np.zeros((height, width, 3)), _integrator(mi, scene)
    for number in range(passes):
        options = {"spp": -(-samples // passes), "seed": seed * 1009 + number}
        image = mi.render(scene, sensor=sensor, integrator=integrator, **options)
        total += np.array(image, np.float64)
    return total / passes


def _encode(linear: Array) -> Array:
    """Encode linear light as sRGB codes, uint8."""
    return np.round(255 * linear_to_srgb(np.clip(linear, 0, 1))).astype(np.uint8)


def trace_stack(
    scene: SceneDescription,
    camera: Camera,
    focus_distances_m: Sequence[float],
    height: int,
    width: int,
    samples: int = 256,
    variant: str | None = None,
) -> tuple[Array, Array, Array]:
    """Photograph a scene at several focus distances, apertures, or both.

    Args:
        scene: from :func:`random_scene`, for the same camera and size.
        camera: thin lens, perhaps with an f-number per slice; a pixel's direction is
            x = (column + 0.5 - W/2) pitch / focal length * z in every slice.
        focus_distances_m: S distances in metres, beyond the focal length; ``inf`` is allowed.
        height, width: size in pixels.
        samples: rays for each pixel of a slice; the all-in-focus image takes at most 256.
        variant: of Mitsuba; by default :func:`best_variant`. Depth does not depend on it.

    Returns:
        images (S,H,W,3) uint8 sRGB, aif (H,W,3) uint8 sRGB, depth_m (H,W) float32 through pixel centres.

    Raises:
        InputError: Mitsuba is missing, a focus distance lies inside the focal length, or samples is not positive.
    """
    mi = _mitsuba()
    focus = [float(distance) for distance in focus_distances_m]
    if not focus or not all(distance > camera.focal_length_m for distance in focus):
        raise InputError(
            f"expected focus distances beyond {camera.focal_length_m:g} m, got {focus} (focus_distances_m)"
        )
    if samples < 1:
        raise InputError(f"expected at least one sample a pixel, got {samples} (samples)")
    depth_m, _, _ = cast_rays(scene.patches, camera, height, width)
    with _variant(mi, variant or best_variant()):
        world, sensor = _load(mi, scene.patches), _sensor(mi, camera, height, width)
        images = [
            _render(mi, world, sensor, blur_aperture_radius_m(lens, F), min(F, _FARTHEST_FOCUS_M), samples, number + 1)
            for number, (F, lens) in enumerate(zip(focus, camera.per_slice(len(focus)), strict=True))
        ]
        aif = _render(mi, world, sensor, _PINHOLE_RADIUS_M, 1.0, min(samples, 256), 0)
    return np.stack([_encode(image) for image in images]), _encode(aif), depth_m.astype(np.float32)
