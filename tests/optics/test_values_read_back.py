"""How often the host waits for a value while a stack and its gradient are rendered, and what is launched meanwhile."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sfdfd.optics import Camera, DefocusRenderer, occlusion

CAMERA = Camera(0.05, 8.0, 2.4e-5)
FOCUS = torch.tensor([1.0, 1.5, 2.5, 4.0, 6.0])


class Recorded(TorchDispatchMode):
    """Names of the kernels that are launched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def recorded_step(height, width, **options):
    """Record forward and backward of a slanted wall with a card before it, once what is cached has been computed."""
    generator = torch.Generator().manual_seed(0)
    aif = torch.rand(1, 3, height, width, generator=generator).requires_grad_()
    inverse = 0.15 + 0.35 * torch.linspace(0, 1, width).expand(1, height, width).clone()
    inverse[:, height // 4 : height // 2, width // 4 : width // 2] = 0.9
    depth_m = (1 / (inverse + 0.01 * torch.rand(inverse.shape, generator=generator))).requires_grad_()
    renderer = DefocusRenderer(sigma_scale=0.5, **options)
    renderer(aif, depth_m, FOCUS, CAMERA).sum().backward()
    with Recorded() as recorded:
        renderer(aif, depth_m, FOCUS, CAMERA).sum().backward()
    return recorded.names


@pytest.mark.parametrize(("options", "most"), [
    ({"weighting": "occlusion", "psf": "disc"}, 0), ({"weighting": "source"}, 3), ({"weighting": "target"}, 3),
])  # fmt: skip
def test_values_read_back_are_few(options, most):
    """Whether focus distances and depths are in range and, for a basis, the largest size; with occlusion at once."""
    names = recorded_step(40, 50, **options)
    assert "_fft_c2c" in names and names.count("_local_scalar_dense") <= most


def test_an_accelerator_gets_few_large_transforms(monkeypatch):
    """Its batches hold what fits; a loop over levels launched four transforms for each of them."""
    monkeypatch.setitem(occlusion.BUDGETS, "cpu", occlusion.LARGE_BUDGET)
    names = recorded_step(120, 160, weighting="occlusion")
    assert names.count("_fft_c2c") <= 4 and len(names) < 450
