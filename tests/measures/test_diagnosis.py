"""The diagnosis against closed forms, Monte Carlo, and cameras whose fate is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.measures.diagnosis import blur_sensitivity, diagnose, textured_share
from sfdfd.optics import Camera, DefocusRenderer, render_focal_stack
from sfdfd.report.pictures import diagnosis_figure, to_rgb
from sfdfd.scenes.scene import Scene
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

SHIPPED = Camera(0.0029, 0.5, 5.6e-6)


def test_blur_sensitivity_is_what_a_random_texture_shows():
    """White noise filtered to a 1/f spectrum, blurred by two sigmas: the measured change is the integral's."""
    rng = np.random.default_rng(0)
    size, contrast = 512, 0.1
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    frequency = np.hypot(fx, fy)
    band = (frequency >= 1 / 64) & (frequency <= 0.5)
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) * np.where(band, 1 / np.maximum(frequency, 1e-9), 0)
    spectrum *= contrast / np.fft.ifft2(spectrum).real.std()
    for sigma in (0.5, 1.5, 4.0):
        blurred = [
            np.fft.ifft2(spectrum * np.exp(-2 * np.pi**2 * s**2 * frequency**2)).real for s in (sigma, sigma + 0.01)
        ]
        measured = (blurred[1] - blurred[0]).std() / 0.01
        assert blur_sensitivity(np.array(sigma + 0.005), contrast) == pytest.approx(measured, rel=0.05)


def test_blur_radii_are_those_of_the_camera():
    found = diagnose(CAMERA, FOCUS_M, 0.5, 10.0)
    expected = np.abs(CAMERA.blur_radius_px(found.depth_m[None], np.array(FOCUS_M)[:, None]))
    np.testing.assert_allclose(found.blur_radius_px, expected)
    assert found.covered_share == pytest.approx((1 - 1 / 6) / (2 - 0.1))
    assert found.verdict == "good"


def test_cameras_without_signal_are_diagnosed():
    """The camera on which DEReD's users trained for days in vain, and one that sees no blur at all."""
    found = diagnose(SHIPPED, [1, 3, 5, 7, 9], 0.5, 10.0)
    assert found.verdict == "no signal" and "8-bit level" in found.reasons[-1]
    pinhole = diagnose(Camera(0.05, 200.0, 1.2e-5), FOCUS_M, 0.8, 10.0)
    assert pinhole.verdict == "no signal" and "less than one pixel in every slice" in pinhole.reasons[0]
    blind = diagnose(Camera(0.05, 2000.0, 1.2e-5), FOCUS_M, 0.8, 10.0)
    assert blind.verdict == "no signal" and "visibly out of focus" in blind.reasons[0]
    assert diagnose(CAMERA, [5, 6], 0.5, 10.0).covered_share < 0.05


def test_textured_share_tells_flat_and_noisy_scenes_from_textured_ones():
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=0.5), CAMERA, FOCUS_M, 0.5, 10.0)
    scene = procedural_stacks(1, synthesis, seed=0, height=64, width=80)[0]
    assert diagnose(CAMERA, FOCUS_M, 0.5, 10.0, stack=scene).textured_share > 0.5
    flat = synthesis(Scene(torch.full((3, 64, 80), 0.4), torch.full((64, 80), 2.0)))
    found = diagnose(CAMERA, FOCUS_M, 0.5, 10.0, stack=flat)
    assert found.textured_share == 0 and found.verdict == "no signal"
    torch.manual_seed(0)
    noise = (0.5 + 0.02 * torch.randn(1, 5, 3, 64, 80)).clamp(0, 1)  # the same noise level in every slice is no texture
    assert diagnose(CAMERA, FOCUS_M, 0.5, 10.0, stack=replace(flat, images=noise)).textured_share < 0.3


def test_the_depth_step_moves_a_rendered_stack_by_about_one_level():
    """Independent of the formula: render noise of 1/f spectrum at a depth and a step further, and measure."""
    found = diagnose(CAMERA, FOCUS_M, 0.5, 10.0)
    rng = np.random.default_rng(1)
    size = 256
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    frequency = np.maximum(np.hypot(fx, fy), 1 / 64)
    texture = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / frequency).real
    aif = torch.from_numpy(0.5 + 0.1 * texture / texture.std())[None, None].expand(1, 3, -1, -1).float()
    for index in (20, 40):
        depth, step = float(found.depth_m[index]), float(found.depth_step_m[index])
        stacks = [
            render_focal_stack(aif, torch.full((1, size, size), d), torch.tensor(FOCUS_M), CAMERA, sigma_scale=0.5)
            for d in (depth, depth + step)
        ]
        moved = (stacks[1] - stacks[0])[0].square().mean((1, 2, 3)).sqrt().max() * 255
        assert 0.4 < float(moved) < 1.6


@pytest.mark.parametrize(("amplitude", "other", "textured"), [
    (0.7 / 255 / 8, 0.0, False), (0.8 / 255 / 8, 0.0, True), (0.1, 0.0755, False), (0.1, 0.0745, True),
])  # fmt: skip
def test_texture_is_a_change_of_sharpness_by_three_quarters_of_a_level_and_by_a_quarter(amplitude, other, textured):
    """The Laplacian of a chessboard is eight times its amplitude."""
    board = (-1.0) ** torch.add(*torch.meshgrid(torch.arange(30), torch.arange(32), indexing="ij"))
    images = torch.stack([0.5 + a * board.expand(3, 30, 32) for a in (amplitude, other)])
    stack = FocalStack.single(images, [1.0, 2.0], CAMERA, 0.5, 10.0)
    share = float(textured_share(stack))  # along the border, the Laplacian is less
    assert (share > 0.65) if textured else share == 0


def at_radius(largest_px, focus=FOCUS_M):
    """The diagnosis of a camera whose largest blur radius is this."""
    widest = Camera(0.05, 1.0, 1.2e-5)
    radius = diagnose(widest, focus, 0.5, 10.0).blur_radius_px.max()
    return diagnose(replace(widest, f_number=radius / largest_px), focus, 0.5, 10.0)


@pytest.mark.parametrize(("radius_px", "other_px", "said"), [
    (0.49, 0.51, "visibly out of focus"), (0.51, 0.49, "of the depths are blurred by less than one pixel"),
    (3.05, 2.99, "7 x 7 window"), (40.5, 39.5, "details vanish in the most blurred slices"),
    (39.5, 40.5, "moves the stack by one 8-bit level"), (1.2, 20.0, "depth must change by"),
])  # fmt: skip
def test_verdicts_on_the_largest_radius(radius_px, other_px, said):
    assert said in " ".join(at_radius(radius_px).reasons) and said not in " ".join(at_radius(other_px).reasons)
    assert at_radius(40.5).verdict == "weak" and at_radius(39.5).verdict == "good"


@pytest.mark.parametrize(("share", "verdict", "said"), [(0.28, "weak", True), (0.32, "good", False)])
def test_focus_distances_must_span_three_tenths_of_the_range(share, verdict, said):
    """In inverse depth; the blur is ample."""
    inverse = 0.1 + 1.9 * np.array([0.3, 0.3 + share])
    found = diagnose(Camera(0.05, 4.0, 1.2e-5), (1 / inverse).tolist(), 0.5, 10.0)
    assert found.covered_share == pytest.approx(share) and found.verdict == verdict
    assert said == any("span only" in reason for reason in found.reasons)


def test_diagnosis_figure_renders():
    assert to_rgb(diagnosis_figure(diagnose(CAMERA, FOCUS_M, 0.5, 10.0), "title")).std() > 1
