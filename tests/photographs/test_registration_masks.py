"""Clipped regions and dust on the sensor have no say in how a slice moved."""

import cv2
import numpy as np
import pytest
import torch

from sfdfd.measures.exposure import clipped_pixels
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import estimate_alignment
from sfdfd.photographs.registration_masks import gray_of
from sfdfd.scenes.procedural import make_scene
from tests.conftest import CAMERA, FOCUS_M

HEIGHT, WIDTH, MARGIN_PX = 200, 264, 40
CENTRE = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
RENDERER = DefocusRenderer(psf="disc", weighting="target", linear_light=True, method="fast")


def photographed(seed, shift_px=0.0, spots=0, sky=None, dtype=np.uint8):
    """Slices of a deep scene in linear light, each moved to the right by ``shift_px`` more than the one before, through a
    sensor with dust on it; above the horizon the sky is so many times as bright as white."""
    size = HEIGHT + 2 * MARGIN_PX, WIDTH + 2 * MARGIN_PX
    aif, depth_m = make_scene(seed, 100 + seed, *size, 0.5, 10.0)
    if sky is not None:
        columns = np.arange(size[1])
        horizon = MARGIN_PX + HEIGHT * (0.6 + 0.08 * np.sin(columns / 50 + seed) + 0.04 * np.sign(np.sin(columns / 12)))
        above = np.arange(size[0])[:, None] < horizon
        aif, depth_m = np.where(above[..., None], sky, aif), np.where(above, 10.0, depth_m)
    light = torch.from_numpy(aif.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        slices = RENDERER(light, torch.from_numpy(depth_m.astype(np.float32))[None], torch.tensor(FOCUS_M), CAMERA)[0]
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    shade = np.zeros((HEIGHT, WIDTH))
    for x, y, radius, depth in rng.uniform((0, 0, 1.5, 0.2), (WIDTH, HEIGHT, 4.5, 0.6), (spots, 4)):
        shade = np.maximum(shade, depth / (1 + np.exp(1.5 * (np.hypot(rows - y, columns - x) - radius))))
    top, found = (np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1.0), []
    for index, image in enumerate(slices.permute(0, 2, 3, 1).numpy()):
        matrix = np.array([[1, 0, MARGIN_PX - shift_px * (index - 2)], [0, 1, MARGIN_PX]])
        seen = cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        seen = seen * (1 - shade[..., None]) + rng.normal(0, 0.003, seen.shape)
        values = np.clip(seen, 0, 1) * top
        found.append((values.round() if top > 1 else values).astype(dtype))
    return found


@pytest.mark.parametrize("seed", [0, 2])
def test_a_moving_scene_is_followed_in_spite_of_dust(seed):
    found = estimate_alignment(photographed(seed, shift_px=6.0, spots=40), FOCUS_M)
    truth = [(6.0 * (index - 2), 0) for index in range(len(FOCUS_M))]
    np.testing.assert_allclose(found.shift_px, truth, atol=0.6)  # held back by up to 2.5 px where dust has a say
    np.testing.assert_allclose(found.scale, 1, atol=0.01)  # .0063 on some processors


@pytest.mark.parametrize(("seed", "dtype"), [(0, np.uint8), (0, np.uint16), (2, np.float32), (3, np.uint8)])
def test_a_clipped_sky_gives_no_motion(seed, dtype):
    """Its border lies elsewhere in every slice. The clip level is that of the slices' own type."""
    images = photographed(seed, sky=3.0, dtype=dtype)
    assert clipped_pixels(images[2]).all(-1).mean() > 0.5
    found = estimate_alignment(images, FOCUS_M)
    assert found.motion_px.max() == 0 and (found.scale == 1).all() and (found.radial == 0).all()


def test_a_scene_that_moves_below_a_clipped_sky_is_followed():
    found = estimate_alignment(photographed(0, shift_px=4.0, sky=3.0), FOCUS_M)
    np.testing.assert_allclose(found.shift_px[:, 0], [4.0 * (index - 2) for index in range(len(FOCUS_M))], atol=0.4)
    np.testing.assert_allclose(found.scale, 1, atol=0.003)


def test_dust_on_a_still_scene_gives_no_motion():
    assert estimate_alignment(photographed(2, spots=40), FOCUS_M).motion_px.max() == 0


def test_defocus_of_a_plain_scene_gives_no_motion():
    """A few strong edges explain most of the decorrelation, and the rest of the picture contradicts them."""
    assert estimate_alignment(photographed(1), FOCUS_M).motion_px.max() == 0


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_clipped_pixels_depend_on_the_type(dtype, white):
    image = np.full((64, 64, 3), white, dtype)
    image[:, :40] = 0.97 * white if white > 1 else 0.97
    assert clipped_pixels(image)[:, 40:].all() and not clipped_pixels(image)[:, :40].any()
    gray = gray_of(image, 1.0)
    assert gray.usable[:, :36].all() and not gray.usable[:, 39:].any()
    assert gray_of(image[:, :40], 1.0).usable is None


def test_a_stack_that_is_clipped_everywhere_is_noted():
    found = estimate_alignment([np.full((60, 80, 3), 255, np.uint8)] * 3)
    assert found.motion_px.max() == 0 and len(found.notes) == 2 and "clipped" in found.notes[0]
