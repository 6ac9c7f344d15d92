"""The renderer against an independent NumPy reference, SciPy and closed forms."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sfdfd.errors import InputError
from sfdfd.optics import Camera, DefocusRenderer, low_rank, render_focal_stack
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.psf import psf_basis
from sfdfd.optics.render import render_blurred
from tests.conftest import CAMERA, FOCUS_M

FOCUS = torch.tensor(FOCUS_M, dtype=torch.float64)


def reference(aif, depth_m, focus_m, sigma_scale, weighting):
    """The untruncated double sum, straight from the formula; only for blur that is nowhere below 0.4 px or is zero."""
    channels, height, width = aif.shape
    y, x = (grid.ravel() for grid in np.mgrid[:height, :width])
    square = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    slices = []
    for focus in focus_m:
        f, n, p = CAMERA.focal_length_m, CAMERA.f_number, CAMERA.pixel_pitch_m
        sigma = sigma_scale * f / n * f / (focus - f) * abs(depth_m - focus) / depth_m / (2 * p)
        sigma = np.maximum(sigma, 0.2).ravel()
        if weighting == "source":
            weight = np.exp(-square / (2 * sigma[None, :] ** 2)) / sigma[None, :] ** 2
        else:
            weight = np.exp(-square / (2 * sigma[:, None] ** 2))
        slices.append(((weight @ aif.reshape(channels, -1).T) / weight.sum(1)[:, None]).T.reshape(aif.shape))
    return np.stack(slices)


def depth_with_visible_blur(rng, height, width, sigma_scale):
    """Random depth, pixel by pixel, whose blur is above 0.4 px in every slice."""
    candidates = rng.uniform(0.7, 9.5, 200_000)
    sigma = np.stack([sigma_scale * CAMERA.blur_radius_px(candidates, focus) for focus in FOCUS_M])
    return candidates[(sigma > 0.41).all(0)][: height * width].reshape(height, width)


@pytest.mark.parametrize("weighting", ["source", "target"])
@pytest.mark.parametrize("sigma_scale", [0.5, 1.0])
@pytest.mark.parametrize(("method", "dtype", "bound"), [
    ("exact", torch.float64, 1e-8), ("exact", torch.float32, 2e-5), ("fast", torch.float32, 1 / 510),
])  # fmt: skip
def test_matches_the_untruncated_sum(weighting, sigma_scale, method, dtype, bound):
    rng = np.random.default_rng(1)
    height, width = 29, 38
    aif = rng.random((3, height, width))
    depth = depth_with_visible_blur(rng, height, width, sigma_scale)
    depth[10:20, 5:] = 0.8  # and a step between two planes
    depth[20:, :] = 3.1
    expected = reference(aif, depth, FOCUS_M, sigma_scale, weighting)
    stack = render_focal_stack(
        torch.from_numpy(aif)[None].to(dtype), torch.from_numpy(depth)[None].to(dtype), FOCUS.to(dtype), CAMERA,
        sigma_scale=sigma_scale, weighting=weighting, method=method,
    )  # fmt: skip
    assert stack.shape == (1, 5, 3, height, width) and stack.dtype == dtype
    assert np.abs(stack[0].numpy() - expected).max() < bound


@pytest.mark.parametrize("weighting", ["source", "target"])
def test_constant_depth_is_scipys_gaussian_filter(weighting):
    rng = np.random.default_rng(2)
    aif = rng.random((3, 60, 70))
    depth = np.full((60, 70), 3.0)
    for focus in (1.0, 1.5):
        sigma = CAMERA.blur_radius_px(3.0, focus) * 0.5
        weight = gaussian_filter(np.ones_like(depth), sigma, mode="constant", truncate=8)
        expected = [gaussian_filter(one, sigma, mode="constant", truncate=8) / weight for one in aif]
        stack = render_focal_stack(
            torch.from_numpy(aif)[None], torch.from_numpy(depth)[None], torch.tensor([focus]).double(), CAMERA,
            sigma_scale=0.5, weighting=weighting,
        )  # fmt: skip
        np.testing.assert_allclose(stack[0, 0].numpy(), np.stack(expected), atol=2e-7)


@pytest.mark.parametrize("weighting", ["source", "target"])
@pytest.mark.parametrize("sigma", [1e-4, 0.1, 0.3, 0.45])
def test_gradient_is_alive_and_finite_beside_the_focus(weighting, sigma):
    """A depth just off the focus still feels that the rendered slice should be blurrier or sharper."""
    radius = sigma / 0.5
    shift = radius * (1 - 0.05 / 2.5) / CAMERA.blur_scale_px_m
    depth = torch.full((1, 16, 16), 1 / (1 / 2.5 - shift), dtype=torch.float64).requires_grad_()
    aif = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    stack = render_focal_stack(aif, depth, torch.tensor([2.5]).double(), CAMERA, sigma_scale=0.5, weighting=weighting)
    (stack * torch.rand_like(stack)).sum().backward()
    assert bool(torch.isfinite(depth.grad).all())
    assert float(depth.grad.abs().mean()) > (1e-4 if sigma >= 0.1 else 0.0)


def test_no_nan_for_any_depth_in_float32():
    depth = torch.tensor([0.06, 0.5, 1.0, 1.0000001, 2.5, 6.0, 1e4, torch.inf]).expand(1, 8, 8).clone().requires_grad_()
    aif = torch.rand(1, 3, 8, 8, requires_grad=True)
    for weighting in ("source", "target"):
        stack = render_focal_stack(aif, depth, FOCUS.float(), CAMERA, weighting=weighting)
        assert bool(torch.isfinite(stack).all())
        grads = torch.autograd.grad(stack.square().sum(), (aif, depth))
        assert all(bool(torch.isfinite(grad).all()) for grad in grads)


def test_source_weighting_conserves_the_light_of_an_inner_point():
    """With one depth everywhere, a bright pixel far from the border keeps its total."""
    aif = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    aif[0, 0, 30, 30] = 1.0
    stack = render_focal_stack(aif, torch.full((1, 61, 61), 4.0).double(), FOCUS, CAMERA, sigma_scale=0.4)
    torch.testing.assert_close(stack.sum((2, 3, 4)), torch.ones(1, 5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_window_holds_the_widest_blur():
    """No silent saturation: planes at 5 m and 10 m differ by several 8-bit levels in a slice focused at 1 m."""
    wave = 0.5 + 0.5 * torch.sin(2 * torch.pi * torch.arange(96, dtype=torch.float64) / 48)
    aif = wave.expand(1, 3, 96, 96)
    stacks = {}
    for distance in (5.0, 10.0):
        depth = torch.full((1, 96, 96), distance, dtype=torch.float64)
        stacks[distance] = render_focal_stack(aif, depth, torch.tensor([1.0]).double(), CAMERA)[0, 0, 0].numpy()
        sigma = CAMERA.blur_radius_px(distance, 1.0)
        weight = gaussian_filter(np.ones((96, 96)), sigma, mode="constant", truncate=9)
        expected = gaussian_filter(aif[0, 0].numpy(), sigma, mode="constant", truncate=9) / weight
        np.testing.assert_allclose(stacks[distance], expected, atol=2e-6)
    assert np.abs(stacks[5.0] - stacks[10.0]).max() > 4 / 255


def test_reconstruction_error_grows_with_depth_error():
    aif, focus = torch.rand(1, 3, 48, 48), FOCUS.float()
    truth = render_focal_stack(aif, torch.full((1, 48, 48), 5.0), focus, CAMERA, sigma_scale=0.5)
    errors = [
        float(
            (render_focal_stack(aif, torch.full((1, 48, 48), d), focus, CAMERA, sigma_scale=0.5) - truth)
            .square()
            .mean()
        )
        for d in (5.0, 5.5, 6.5, 8.0, 10.0)
    ]
    assert errors == sorted(errors) and errors[1] > errors[0]


@pytest.mark.parametrize(("change", "message"), [
    ({"weighting": "both"}, "weighting"), ({"method": "quick"}, "method"), ({"psf": "square"}, "psf"),
    ({"sigma_scale": 0.0}, "sigma_scale"), ({"sigma_scale": float("nan")}, "sigma_scale"),
    ({"depth_m": torch.zeros(1, 8, 8)}, "positive"),
    ({"focus_distances_m": torch.tensor([0.01])}, "focal length"),
    ({"camera": [CAMERA, CAMERA]}, "camera"),
])  # fmt: skip
def test_wrong_arguments_are_rejected_with_the_reason(change, message):
    arguments = {
        "aif": torch.rand(1, 3, 8, 8), "depth_m": torch.ones(1, 8, 8), "focus_distances_m": torch.tensor([2.0]),
        "camera": CAMERA,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        render_focal_stack(**{**arguments, **change})


def test_mismatched_shapes_are_rejected():
    with pytest.raises((InputError, TypeError), match=r"depth_m"):  # TypeError: jaxtyping, in tests alone
        render_focal_stack(torch.rand(1, 3, 8, 8), torch.ones(1, 8, 9), torch.tensor([2.0]), CAMERA)
    with pytest.raises((InputError, TypeError), match=r"focus_distances_m"):
        render_focal_stack(torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8), torch.ones(2, 3), CAMERA)


@pytest.mark.parametrize("weighting", ["source", "occlusion"])
@pytest.mark.parametrize("number", [1, 3])
def test_cameras_are_one_or_one_per_sample(weighting, number):
    aif, depth = torch.rand(2, 3, 8, 8), torch.full((2, 8, 8), 2.0)
    with pytest.raises(InputError, match=r"camera"):
        render_focal_stack(aif, depth, FOCUS.float(), [CAMERA] * number, weighting=weighting)
    assert render_focal_stack(aif, depth, FOCUS.float(), [CAMERA] * 2, weighting=weighting).shape == (2, 5, 3, 8, 8)


def test_the_module_is_the_function():
    aif, depth = torch.rand(1, 3, 12, 12), 1 + torch.rand(1, 12, 12)
    renderer = DefocusRenderer(sigma_scale=0.5, weighting="target")
    expected = render_focal_stack(aif, depth, FOCUS.float(), CAMERA, sigma_scale=0.5, weighting="target")
    torch.testing.assert_close(renderer(aif, depth, FOCUS.float(), CAMERA), expected)
    assert renderer.differentiable and renderer.sigma_scale == 0.5 and "weighting=target" in repr(renderer)
    with pytest.raises(InputError, match="sigma_scale"):
        DefocusRenderer(sigma_scale=-1.0)


def test_autocast_does_not_touch_the_optics():
    aif, depth = torch.rand(1, 3, 12, 12), 1 + torch.rand(1, 12, 12)
    expected = render_focal_stack(aif, depth, FOCUS.float(), CAMERA)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(render_focal_stack(aif, depth, FOCUS.float(), CAMERA), expected)


def test_auto_is_exact_for_small_blur_and_fast_for_large():
    aif, depth = torch.rand(1, 3, 24, 24), 1.2 + 4 * torch.rand(1, 24, 24)

    def render(camera, method, dtype=torch.float32):
        focus = torch.tensor([1.0], dtype=dtype)
        return render_focal_stack(aif.to(dtype), depth.to(dtype), focus, camera, sigma_scale=0.5, method=method)

    wide = Camera(0.05, 2.0, 1.2e-5)
    assert torch.equal(render(CAMERA, "auto"), render(CAMERA, "exact"))
    assert torch.equal(render(wide, "auto"), render(wide, "fast"))
    assert torch.equal(render(wide, "auto", torch.float64), render(wide, "exact", torch.float64))


def test_fast_is_fast_because_fewer_images_span_the_psfs(monkeypatch):
    """About half of the convolutions, and within the tolerance that each method promises."""
    bases = {}

    def watched(psf, limit, reach, tolerance):
        bases[method] = psf_basis(psf, limit, reach, tolerance)
        return bases[method]

    monkeypatch.setattr(low_rank, "psf_basis", watched)
    depth = 1.2 + 4 * torch.rand(1, 24, 24)
    for method in ("exact", "fast", "draft"):
        render_focal_stack(torch.rand(1, 3, 24, 24), depth, FOCUS.float(), CAMERA, method=method)
    assert len(bases["fast"].distances_sq) < 0.7 * len(bases["exact"].distances_sq)
    assert len(bases["draft"].distances_sq) < len(bases["fast"].distances_sq)
    assert bases["exact"].error <= 1e-5 < bases["fast"].error <= 1.5e-2 < bases["draft"].error <= 5e-2


@pytest.mark.parametrize("weighting", ["source", "target"])
def test_the_fast_gradient_points_where_the_exact_one_does(weighting):
    aif, depth = torch.rand(1, 3, 40, 48), 0.8 + 5 * torch.rand(1, 5, 6).repeat_interleave(8, 1).repeat_interleave(8, 2)
    grads = {}
    for method in ("exact", "fast"):
        a, d = aif.clone().requires_grad_(), depth.clone().requires_grad_()
        stack = render_focal_stack(a, d, FOCUS.float(), CAMERA, sigma_scale=0.5, weighting=weighting, method=method)
        weights = torch.rand(stack.shape, generator=torch.Generator().manual_seed(4))
        grads[method] = torch.autograd.grad((stack * weights).sum(), (a, d))
    for exact, fast in zip(grads["exact"], grads["fast"], strict=True):
        assert float(torch.nn.functional.cosine_similarity(exact.flatten(), fast.flatten(), dim=0)) > 0.99


def windowed_reference(aif, radius_px, sigma_scale, weighting, window_px, smallest_px, copied_px):
    """A loop over output pixels and the window's neighbours inside the image, straight from the published formula."""
    height, width = aif.shape[1:]
    half = window_px // 2
    sigma = sigma_scale * np.maximum(radius_px, smallest_px)
    sigma = np.where(sigma < 0.4, 0.2 + sigma**2 / 0.8, sigma)  # the library's floor, below what a pixel shows
    result = np.empty_like(aif)
    for row, column in np.ndindex(height, width):
        rows = slice(max(0, row - half), row + half + 1)
        columns = slice(max(0, column - half), column + half + 1)
        y, x = np.mgrid[:height, :width]
        square = ((y - row) ** 2 + (x - column) ** 2)[rows, columns]
        if weighting == "source":
            spread = sigma[rows, columns]
            weight = np.exp(-square / (2 * spread**2)) / spread**2
        else:
            weight = np.exp(-square / (2 * sigma[row, column] ** 2))
        result[:, row, column] = (aif[:, rows, columns] * weight).sum((1, 2)) / weight.sum()
    return np.where(radius_px <= copied_px, aif, result) if copied_px else result


@pytest.mark.parametrize(("weighting", "window_px", "smallest_px", "copied_px"), [
    ("source", 7, 0.0, 1.0),  # DEReD
    ("target", 11, 2.0, 0.0),  # dfd
    ("source", 3, 0.6, 0.0),
])  # fmt: skip
def test_published_windows_match_a_loop(weighting, window_px, smallest_px, copied_px):
    rng = np.random.default_rng(3)
    aif, depth = rng.random((3, 17, 21)), depth_with_visible_blur(rng, 17, 21, 1.0)
    depth[:4] = 1.02 * FOCUS_M[0]  # less than a pixel of blur in the first slice
    settings = {"window_px": window_px, "smallest_radius_px": smallest_px, "copied_radius_px": copied_px}
    renderer = DefocusRenderer(sigma_scale=1.0, weighting=weighting, **settings)
    stack = renderer(torch.from_numpy(aif)[None], torch.from_numpy(depth)[None], FOCUS, CAMERA)[0].numpy()
    for index, focus in enumerate(FOCUS_M):
        radius = CAMERA.blur_radius_px(depth, focus)
        expected = windowed_reference(aif, radius, 1.0, weighting, window_px, smallest_px, copied_px)
        assert np.abs(stack[index] - expected).max() < 1e-9


@pytest.mark.parametrize("weighting", ["source", "target"])
def test_a_window_wider_than_the_blur_changes_nothing_and_a_narrow_one_saturates(weighting):
    aif = torch.rand(1, 3, 24, 30, dtype=torch.float64)
    depth = torch.linspace(0.8, 6, 30, dtype=torch.float64).expand(1, 24, 30).contiguous()
    whole, wide, narrow = (
        render_focal_stack(aif, depth, FOCUS, CAMERA, sigma_scale=0.5, weighting=weighting, window_px=window)
        for window in (None, 59, 3)  # 59 holds the whole image
    )
    torch.testing.assert_close(wide, whole, atol=1e-8, rtol=0)
    assert float((narrow - whole).abs().max()) > 0.05


def test_gradients_through_a_window_are_right():
    aif = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    depth = (0.8 + torch.rand(1, 5, 6, dtype=torch.float64)).requires_grad_()

    def render(a, d):
        return render_focal_stack(a, d, FOCUS[1:3], CAMERA, sigma_scale=0.5, window_px=3)

    assert torch.autograd.gradcheck(render, (aif, depth), atol=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"window_px": 8}, r"window_px.*(odd|whole)"),
    ({"window_px": 1}, r"window_px.*(odd|whole)"),
    ({"window_px": True}, r"window_px.*(odd|whole)"),
    ({"smallest_radius_px": -1.0}, "smallest_radius_px"),
    ({"copied_radius_px": float("nan")}, "copied_radius_px"),
    ({"window_px": 7, "weighting": "occlusion"}, "optics.window_px"),
    ({"smallest_radius_px": 2.0, "weighting": "occlusion"}, "optics.window_px"),
    ({"copied_radius_px": 1.0, "weighting": "occlusion"}, "optics.window_px"),
    ({"layers": 3, "weighting": "occlusion"}, "layers.*4 or more"),
])  # fmt: skip
def test_impossible_windows_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        render_focal_stack(torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8) * 2, FOCUS.float(), CAMERA, **options)


def test_options_are_immutable_and_hashable():
    options = RenderOptions(layers=4, window_px=3)
    with pytest.raises(AttributeError):
        options.window_px = 8
    assert options == RenderOptions(layers=4, window_px=3) and hash(options) == hash(
        RenderOptions(layers=4, window_px=3)
    )


def test_a_radius_up_to_the_copied_one_is_copied():
    aif, radius = torch.rand(1, 3, 9, 8), torch.full((1, 2, 9, 8), 1.0)
    radius[:, 1] = torch.nextafter(radius[:, 1], torch.tensor(2.0))
    copied, blurred = render_blurred(aif, radius, copied_radius_px=1.0)[0]
    assert torch.equal(copied, aif[0]) and float((blurred - aif[0]).abs().max()) > 0.05
