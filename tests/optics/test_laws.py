"""What every renderer keeps, over one table: a new one is one row."""

import pytest
import torch

from sfdfd.optics import Camera, DefocusRenderer, Renderer
from tests.conftest import CAMERA, FOCUS_M

FOCUS = torch.tensor(FOCUS_M, dtype=torch.float64)
RENDERERS = {
    "source": DefocusRenderer(weighting="source", method="exact"),
    "source, fast": DefocusRenderer(weighting="source", method="fast"),
    "target": DefocusRenderer(weighting="target", method="exact"),
    "target, fast": DefocusRenderer(weighting="target", method="fast"),
    "disc": DefocusRenderer(psf="disc"),
    "power": DefocusRenderer(psf="power:4", sigma_scale=0.5),
    "window, source": DefocusRenderer(weighting="source", window_px=7, sigma_scale=0.5),
    "window, target": DefocusRenderer(weighting="target", window_px=11, smallest_radius_px=0.5),
    "occlusion": DefocusRenderer(weighting="occlusion", layers=6),
    "linear light": DefocusRenderer(linear_light=True, sigma_scale=0.5),
}
CODES = [name for name in RENDERERS if name != "linear light"]
"""Those that blur what they are given, and so are linear in it."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here"))]
every = pytest.mark.parametrize("name", RENDERERS)
linear = pytest.mark.parametrize("name", CODES)


def scene(batch=1, height=19, width=27, dtype=torch.float64):
    generator = torch.Generator().manual_seed(batch * height)
    aif = torch.rand(batch, 3, height, width, generator=generator, dtype=dtype)
    return aif, 0.7 + 8 * torch.rand(batch, height, width, generator=generator, dtype=dtype)


@every
def test_renderers_implement_the_protocol(name):
    renderer = RENDERERS[name]
    assert isinstance(renderer, Renderer) and isinstance(renderer.differentiable, bool)
    again = type(renderer)(**renderer.options)
    aif, depth_m = scene()
    assert torch.equal(again(aif, depth_m, FOCUS, CAMERA), renderer(aif, depth_m, FOCUS, CAMERA))


@linear
def test_rendering_is_linear_in_the_aif(name):
    (a, depth_m), (b, _) = scene(), scene(2)
    b = b[:1]
    renderer = RENDERERS[name]
    together = renderer(2 * a - 3 * b, depth_m, FOCUS, CAMERA)
    apart = 2 * renderer(a, depth_m, FOCUS, CAMERA) - 3 * renderer(b, depth_m, FOCUS, CAMERA)
    torch.testing.assert_close(together, apart, atol=1e-10, rtol=0)


@linear
def test_backward_is_the_adjoint(name):
    """<A x, y> = <x, A' y> for the linear map from AIF to stack."""
    x, depth_m = scene(2)
    x.requires_grad_()
    stack = RENDERERS[name](x, depth_m, FOCUS, CAMERA)
    y = torch.rand_like(stack)
    (adjoint,) = torch.autograd.grad(stack, x, y)
    torch.testing.assert_close((stack * y).sum(), (x * adjoint).sum(), rtol=1e-10, atol=0)


@every
def test_uniform_images_stay_uniform_up_to_the_border(name):
    """A uniform image stays uniform, to the border."""
    _, depth_m = scene(height=21, width=30)
    uniform = torch.full((1, 3, 21, 30), 0.37, dtype=torch.float64)
    stack = RENDERERS[name](uniform, depth_m, FOCUS, CAMERA)
    torch.testing.assert_close(stack, torch.full_like(stack, 0.37), atol=2e-6, rtol=0)


@every
@pytest.mark.parametrize("distance", [2.5, torch.inf])
def test_rendering_in_focus_is_the_identity(name, distance):
    aif, _ = scene(2, 17, 23)
    renderer = RENDERERS[name]
    if renderer.options.get("smallest_radius_px"):
        pytest.skip("a floor of the radius blurs what is in focus")
    depth_m = torch.full((2, 17, 23), distance, dtype=torch.float64)
    stack = renderer(aif, depth_m, torch.tensor([distance], dtype=torch.float64), CAMERA)
    torch.testing.assert_close(stack[:, 0], aif, atol=2e-4, rtol=0)


@every
def test_batches_equal_single_samples_and_slice_order_does_not_matter(name):
    aif, depth_m = scene(3, 20, 24)
    cameras = [CAMERA, Camera(0.05, 4.0, 1.2e-5), Camera(0.035, 2.0, 2e-5)]
    focus = torch.tensor([[1.0, 2.0], [1.5, 4.0], [3.0, torch.inf]], dtype=torch.float64)
    renderer = RENDERERS[name]
    together = renderer(aif, depth_m, focus, cameras)
    tolerance = 5e-3 if renderer.options.get("method") == "fast" else 3e-5  # a basis is chosen for the widest blur
    for i in range(3):
        alone = renderer(aif[i : i + 1], depth_m[i : i + 1], focus[i], cameras[i])
        torch.testing.assert_close(together[i : i + 1], alone, atol=tolerance, rtol=0)
    torch.testing.assert_close(renderer(aif, depth_m, focus.flip(1), cameras), together.flip(1), atol=1e-6, rtol=0)


@every
def test_blur_factor_scales_every_radius(name):
    aif, depth_m = scene(2)
    renderer = RENDERERS[name]
    wider = renderer(aif, depth_m, FOCUS, [Camera(0.05, 4.0, 1.2e-5), CAMERA])
    factor = torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(renderer(aif, depth_m, FOCUS, CAMERA, blur_factor=factor), wider, atol=1e-9, rtol=0)


@every
def test_gradcheck(name):
    """On both sides of a focus distance and exactly at it: in the AIF, and where the renderer says so in depth, focus
    distances and aperture."""
    generator = torch.Generator().manual_seed(3)
    channels = 3 if RENDERERS[name].options.get("linear_light") else 2
    aif = (0.1 + 0.8 * torch.rand(1, channels, 4, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    depth_m = torch.linspace(1.4, 1.62, 20, dtype=torch.float64).reshape(1, 4, 5)
    depth_m[0, 2, 2] = 1.5
    focus, aperture = torch.tensor([[1.5, 3.0]], dtype=torch.float64), torch.tensor([1.1], dtype=torch.float64)
    renderer = RENDERERS[name]
    for value in (depth_m, focus, aperture):
        value.requires_grad_(renderer.differentiable)

    def render(a, d, f, k):
        return renderer(a, d, f, CAMERA, blur_factor=k)

    assert torch.autograd.gradcheck(render, (aif, depth_m, focus, aperture), atol=1e-5, fast_mode=True)


@every
@pytest.mark.parametrize("device", DEVICES)
def test_float32_and_every_device_agree_with_float64_on_the_cpu(name, device):
    aif, depth_m = scene()
    exact = RENDERERS[name](aif, depth_m, FOCUS, CAMERA)
    found = RENDERERS[name](aif.float().to(device), depth_m.float().to(device), FOCUS.float().to(device), CAMERA)
    assert found.dtype == torch.float32 and found.device.type == device
    torch.testing.assert_close(found.cpu().double(), exact, atol=2e-3, rtol=0)
