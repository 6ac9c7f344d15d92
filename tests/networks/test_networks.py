"""Every network keeps the same laws: any stack size, any order, any image size, masks that hide, bounded depth."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from sfdfd.errors import InputError
from sfdfd.networks import DAIFNet, FocusAttentionNet, PlaneSweepNet
from sfdfd.networks import plane_sweep as sweep
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.optics.psf import GaussianPSF
from sfdfd.plane_sweep.cost_volume import StackDefocus, stack_defocus
from sfdfd.scenes.example_stack import example_stack
from tests.conftest import CAMERA

FOCUS = torch.tensor([1.0, 1.5, 2.5, 4.0, 6.0])


class Told(PlaneSweepNet):
    """Knows the blur of a camera, as :func:`sfdfd.networks.interface.predict_stack` would tell it."""

    def forward(self, images, focus_distances_m, *, near_m=0.5, far_m=10.0, slice_mask=None):
        focus = focus_distances_m.expand(images.shape[:2])
        ends = [torch.as_tensor(value).reshape(-1, 1) for value in (near_m, far_m)]
        blur = torch.stack([CAMERA.blur_radius_px(end, focus, signed=True) for end in ends], -1)
        known = StackDefocus(blur, GaussianPSF())
        return super().forward(images, focus, near_m=near_m, far_m=far_m, slice_mask=slice_mask, defocus=known)


NETWORKS = {
    "daif": lambda: DAIFNet(),
    "daif_paper": lambda: DAIFNet(head="paper", focus_encoding="metres"),
    "focus_attention": lambda: FocusAttentionNet(),
    "plane_sweep": lambda: Told(planes=16, width=8),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]().eval()


def test_the_published_size():
    assert sum(parameter.numel() for parameter in DAIFNet().parameters()) == 1_963_332


@pytest.mark.parametrize("slices", [1, 2, 5, 7])
@pytest.mark.parametrize("size", [(16, 16), (37, 51), (64, 48)])
def test_any_stack_and_image_size(network, slices, size):
    output = network(torch.rand(2, slices, 3, *size), torch.linspace(1, 6, slices))
    assert output.depth_m.shape == (2, *size) and output.aif.shape == (2, 3, *size)
    assert bool(torch.isfinite(output.depth_m).all() and torch.isfinite(output.aif).all())


def test_the_order_of_slices_does_not_matter(network):
    images, order = torch.rand(1, 5, 3, 32, 40), torch.tensor([3, 1, 4, 0, 2])
    one, other = network(images, FOCUS), network(images[:, order], FOCUS[order])
    torch.testing.assert_close(one.depth_m, other.depth_m, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.aif, other.aif, atol=1e-4, rtol=1e-4)


def test_the_order_of_distances_against_slices_does_matter(network):
    images = torch.rand(1, 5, 3, 32, 40)
    assert not torch.allclose(network(images, FOCUS).depth_m, network(images, FOCUS.flip(0)).depth_m, rtol=1e-4)


def test_padding_slices_change_nothing(network):
    images = torch.rand(2, 3, 3, 32, 40)
    padded = torch.cat([images, torch.rand(2, 2, 3, 32, 40)], dim=1)
    mask = torch.tensor([[True, True, True, False, False]] * 2)
    one = network(images, FOCUS[:3])
    other = network(padded, FOCUS, slice_mask=mask)
    torch.testing.assert_close(one.depth_m, other.depth_m, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.aif, other.aif, atol=1e-5, rtol=1e-5)


def test_batches_equal_single_samples(network):
    images, near, far = torch.rand(2, 3, 3, 32, 32), torch.tensor([0.5, 0.2]), torch.tensor([10.0, 3.0])
    focus = torch.tensor([[1.0, 2.0, 4.0], [0.3, 0.5, 2.0]])
    together = network(images, focus, near_m=near, far_m=far)
    for i in range(2):
        alone = network(images[i : i + 1], focus[i : i + 1], near_m=near[i : i + 1], far_m=far[i : i + 1])
        torch.testing.assert_close(together.depth_m[i : i + 1], alone.depth_m, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "daif_paper"])
def test_depth_is_bounded_by_construction(name):
    network = NETWORKS[name]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
    depth = network(torch.rand(1, 4, 3, 32, 32), FOCUS[:4], near_m=0.7, far_m=3.0).depth_m.detach()
    assert float(depth.min()) >= 0.7 - 1e-5 and float(depth.max()) <= 3.0 + 1e-5


def test_the_papers_head_reaches_far_and_collapses_when_its_relu_is_dead():
    network = NETWORKS["daif_paper"]()
    with torch.no_grad():
        network.head[-1].bias[3] = 1.0
    assert float(network(torch.rand(1, 2, 3, 32, 32), FOCUS[:2]).depth_m.detach().max()) == pytest.approx(10.0)
    with torch.no_grad():
        network.head[-1].bias[3] = -100.0
    assert bool((network(torch.rand(1, 2, 3, 32, 32), FOCUS[:2]).depth_m == 0.1).all())


def test_infinite_focus_is_an_input_like_any_other(network):
    output = network(torch.rand(1, 3, 3, 32, 32), torch.tensor([1.0, 3.0, torch.inf]))
    assert bool(torch.isfinite(output.depth_m).all())


def test_gradients_reach_every_parameter(network):
    network.train()
    with torch.no_grad():
        if isinstance(network, DAIFNet) and network.head_kind == "paper":
            network.head[-1].bias.fill_(0.5)
    output = network(torch.rand(2, 5, 3, 32, 32), FOCUS)
    (output.depth_m.sum() + output.aif.square().sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not without


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="head"):
        DAIFNet(head="disparity")
    with pytest.raises(ValueError, match="focus_encoding"):
        DAIFNet(focus_encoding="log")
    with pytest.raises(InputError, match="defocus"):
        PlaneSweepNet()(torch.rand(1, 2, 3, 32, 32), FOCUS[:2])


def test_depth_is_the_median_where_inverse_depth_is_log_normal():
    near_m, far_m = torch.tensor([0.5]), torch.tensor([10.0])
    inverse, relative = torch.tensor([0.15, 0.4, 1.0])[None, None], torch.tensor([0.2, 0.1, 0.3])[None, None]
    position = (inverse - 0.1) / 1.9
    found = sweep._median_depth_correction(
        position, 2**0.5 * relative * inverse / 1.9, near_m, far_m
    )  # too large a std
    width = torch.log1p(relative.square()).sqrt()  # of the normal distribution whose exponential has this mean and std
    drawn = torch.exp(torch.log(inverse) - width.square() / 2 + width * torch.randn(200_000, 1, 3))
    torch.testing.assert_close(
        depth_from_normalized(found, near_m, far_m), (1 / drawn).median(0).values[None], rtol=3e-3, atol=0
    )
    assert bool((found < position).all())  # what is unsure is farther than its mean inverse depth says
    torch.testing.assert_close(sweep._median_depth_correction(position, 0 * position, near_m, far_m), position)
    two_surfaces = sweep._median_depth_correction(position, torch.full_like(position, 0.5), near_m, far_m)
    assert float((depth_from_normalized(two_surfaces, near_m, far_m) * inverse).max()) < 1.05
    infinite = sweep._median_depth_correction(
        torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.1), near_m, torch.tensor([torch.inf])
    )
    assert float(infinite) == 0


def test_noise_std_is_estimated_where_there_is_least_texture():
    images, there = example_stack(0, 96, 128).images, torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    assert (
        float(sweep.estimate_noise_std(images, there)) < sweep.NOISY / 2
    )  # a padding slice without anything does not count
    noisy = images + 0.02 * torch.randn(images.shape)
    noisy[:, 4] = 0
    assert 0.017 < float(sweep.estimate_noise_std(noisy, there)) < 0.021
    assert float(sweep.estimate_noise_std(noisy, torch.ones(1, 5))) == 0


def test_only_noisy_stacks_are_smoothed():
    """Three percent took the package's weights from .029 to .151 on NYUv2 (robustness.py), and take them to .070."""
    stack = example_stack(0, 96, 128)
    noise = 0.03 * torch.randn(stack.images.shape, generator=torch.Generator().manual_seed(0))
    both = torch.cat([stack.images, stack.images + noise])
    calm = sweep.denoise_if_noisy(both, torch.ones(2, 5))
    torch.testing.assert_close(calm[:1], stack.images, rtol=0, atol=0)
    expected = gaussian_filter(both[1].double().numpy(), (0, 0, 0.6, 0.6), truncate=2 / 0.6, mode="mirror")
    torch.testing.assert_close(calm[1], torch.from_numpy(expected).float(), rtol=0, atol=1e-6)
    network = PlaneSweepNet(planes=8, width=8)
    known = {"near_m": 0.5, "far_m": 10.0, "defocus": stack_defocus(stack, DefocusRenderer(sigma_scale=0.5))}
    with torch.no_grad():
        seen = [network.train(mode)(both[1:], FOCUS, **known) for mode in (False, True)]
        smooth = network.train()(calm[1:], FOCUS, **known)
    torch.testing.assert_close(seen[0].std, smooth.std)  # depth itself differs: the median of it
    assert not torch.allclose(seen[1].std, smooth.std)  # training shows the network what it is to learn
    assert not torch.allclose(seen[0].aif, smooth.aif)  # colours stay the slices' own


def test_tiles_agree_with_the_whole_image(monkeypatch):
    """The rest is what a tile does not see of its neighbours."""
    torch.manual_seed(0)
    network = PlaneSweepNet(width=4, depth=3, planes=8).eval()
    defocus = StackDefocus(torch.tensor([[[-4.0, 1.0], [-1.0, 4.0]]]), GaussianPSF())
    images = torch.rand(1, 2, 3, 90, 101)
    with torch.no_grad():
        whole = network(images, FOCUS[:2], near_m=0.7, far_m=3.0, defocus=defocus)
        for name, value in (("LARGE_PX", 7000), ("TILE_PX", 32), ("OVERLAP_PX", 24)):
            monkeypatch.setattr(sweep, name, value)
        tiles = network(images, FOCUS[:2], near_m=0.7, far_m=3.0, defocus=defocus)
    for one, other in zip(whole[:3], tiles[:3], strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().mean() / one.abs().mean()) < 2e-3
    assert not torch.equal(whole.depth_m, tiles.depth_m)
