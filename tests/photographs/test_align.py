"""Registration recovers known motions, in spite of defocus and exposure."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sfdfd.errors import InputError
from sfdfd.measures.exposure import equalize_exposure
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.align import align_slices, estimate_alignment
from sfdfd.scenes.procedural import make_scene
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

HEIGHT, WIDTH = 160, 208


CENTER = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


@pytest.fixture(scope="module")
def scene():
    return make_scene(0, 2_000_003, HEIGHT + 40, WIDTH + 40, 0.5, 10.0)[0]


def moved(scene, scale, shift, blur=0.0, gain=1.0, dtype=np.uint8):
    """The scene's middle, scaled and shifted: pixel x shows what the reference has at (x - c - t)/s + c."""
    matrix = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    matrix[:, 2] = CENTER + 20 - (CENTER + shift) / scale
    image = cv2.warpAffine(scene, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return (np.clip(image * gain, 0, 1) * np.iinfo(dtype).max).round().astype(dtype)


MOTIONS = [(1.0, (0, 0), 0.0, 1.0), (1.012, (3.0, -2.0), 1.5, 0.9), (1.025, (5.5, 1.0), 2.5, 0.8)]


@pytest.mark.parametrize("model", ["radial", "scale_shift", "affine", "homography"])
def test_scale_and_shift_are_found_through_defocus_and_exposure(scene, model):
    images = [moved(scene, *motion) for motion in MOTIONS]
    found = estimate_alignment(images, [1.0, 2.0, 4.0], model)
    reference = found.reference
    assert reference == 1 and found.motion_px[1] == 0 and not found.notes
    for index in (0, 2):
        scale = MOTIONS[index][0] / MOTIONS[1][0]
        shift = np.array(MOTIONS[index][1]) - scale * np.array(MOTIONS[1][1])
        assert found.scale[index] == pytest.approx(scale, abs=1.5e-3)
        np.testing.assert_allclose(found.shift_px[index], shift, atol=0.3)
    assert found.residual_px.max() < 0.5


def bent(scene, scale, shift, radial, blur=0.0):
    """A slice of the reference whose pixel at c + a shows what it has at c + t + s a (1 + radial |a|^2 / |c|^2): inverted
    by iteration, drawn by SciPy."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    target = np.stack([columns, rows]) - CENTER[:, None, None] - np.array(shift, float)[:, None, None]
    away = target / scale
    for _ in range(30):
        away = target / scale / (1 + radial * (away**2).sum(0) / (CENTER**2).sum())
    at = (away + CENTER[:, None, None] + 20)[::-1]
    image = np.stack([map_coordinates(scene[..., channel], at, order=3) for channel in range(3)], -1)
    image = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


BENDS = [(0.985, (1.0, 0.5), 0.012, 1.5), (1.0, (0, 0), 0.0, 0.0), (1.02, (-2.0, 1.0), -0.015, 2.0)]


def test_distortion_that_changes_with_focus_is_found_and_undone(scene):
    images = [bent(scene, *bend) for bend in BENDS]
    found = estimate_alignment(images, [1.0, 2.0, 4.0], "radial")
    plain = estimate_alignment(images, [1.0, 2.0, 4.0], "scale_shift")
    assert (plain.radial == 0).all() and found.radial[1] == 0
    for index in (0, 2):
        scale, shift, radial, _ = BENDS[index]
        assert found.radial[index] == pytest.approx(radial, abs=2e-3)
        assert found.scale[index] == pytest.approx(scale, abs=2e-3)
        np.testing.assert_allclose(found.shift_px[index], shift, atol=0.2)
    blurred = cv2.GaussianBlur(images[1], (0, 0), BENDS[2][3]).astype(int)

    def off(alignment):
        return np.abs(align_slices(images, alignment)[0][2].astype(int) - blurred)[12:-12, 12:-12].mean()

    assert off(found) < 0.6 * off(plain)


def test_resampling_in_bands_equals_resampling_at_once(scene, monkeypatch):
    from sfdfd.photographs import warping as module

    matrix = np.array([[1.01, 0, 2.0], [0, 1.01, -1.0], [0, 0, 1]])
    image = moved(scene, 1, (0, 0))
    banded = module.warp(image, matrix, -0.02)
    monkeypatch.setattr(module, "BAND_PX", 10_000)
    assert np.array_equal(banded, module.warp(image, matrix, -0.02))
    nearly = module.warp(image, matrix, 1e-9)  # and as OpenCV's own where nothing is bent
    assert np.abs(nearly.astype(int) - module.warp(image, matrix)).mean() < 0.3


def test_aligned_slices_agree_where_they_cover_the_canvas(scene):
    images = [moved(scene, scale, shift) for scale, shift, _, _ in MOTIONS]
    aligned, covered = align_slices(images, estimate_alignment(images))
    before = np.abs(images[2].astype(int) - images[1]).mean()
    after = np.abs(aligned[2].astype(int) - aligned[1])[covered[2]].mean()
    assert after < 0.15 * before and aligned[0].dtype == np.uint8
    assert covered[1].all() and 0.8 < covered[0].mean() < 1  # the wider slice covers all, the shifted ones do not


def test_still_slices_get_no_motion(scene):
    images = [moved(scene, 1, (0, 0), blur) for blur in (0.0, 1.0, 2.5)]
    found = estimate_alignment(images, [1.0, 2.0, 4.0])
    assert found.motion_px.max() < 0.3
    flat = [np.full((40, 50, 3), 90, np.uint8)] * 3
    found = estimate_alignment(flat)
    assert found.motion_px.max() == 0 and len(found.notes) == 2  # nothing to hold on to, and it says so


def test_blur_that_depends_on_depth_gives_no_motion():
    """Still slices of a deep scene, blurred by up to 13 px: ECC alone finds a pixel or two."""
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=1.0), CAMERA, FOCUS_M, 0.5, 10.0)
    for scene in procedural_stacks(3, synthesis, seed=3, height=160, width=200):
        images = [(255 * image.permute(1, 2, 0).numpy()).round().astype(np.uint8) for image in scene.images[0]]
        assert estimate_alignment(images, FOCUS_M).motion_px.max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exposure_gains_are_recovered(scene, dtype):
    images = [moved(scene, 1, (0, 0), blur, gain, dtype) for blur, gain in ((0, 1.0), (1.5, 0.8), (2.5, 0.995))]
    evened, gains = equalize_exposure(images, 0, np.ones((3, HEIGHT, WIDTH), bool))
    np.testing.assert_allclose(gains[1], 1.25, rtol=0.01)
    assert np.all(gains[2] == 1) and evened[2] is images[2] and evened[1].dtype == dtype


def test_unknown_models_are_refused(scene):
    with pytest.raises(InputError, match=r"align\.model"):
        estimate_alignment([moved(scene, 1, (0, 0))] * 2, model="magic")
