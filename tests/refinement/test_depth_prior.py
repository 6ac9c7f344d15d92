"""The depth prior: planes are free, edges of the AIF release jumps and not ripples."""

from dataclasses import replace

import pytest
import torch

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.depth_prior import DepthPrior, textureless
from sfdfd.refinement.energy import Energy
from sfdfd.refinement.settings import RefinementSettings
from sfdfd.scenes.example_stack import example_stack

RENDERER = DefocusRenderer(weighting="occlusion", sigma_scale=0.5)


def prior_of(stack, **changes):
    settings = replace(RefinementSettings(), **changes)
    return DepthPrior(Energy.at_full_size(stack, RENDERER, settings).level)


def test_a_plane_with_its_slopes_costs_next_to_nothing_and_without_them_something():
    stack = example_stack()
    prior = prior_of(stack)
    height, width = stack.images.shape[-2:]
    plane = (0.3 + 0.004 * torch.arange(width) + 0.002 * torch.arange(height)[:, None])[None]
    slopes = torch.tensor([0.004, 0.002])[None, :, None, None].expand(1, 2, height, width)
    guide, plain = torch.full((1, 3, height, width), 0.5), torch.zeros_like(plane)
    flat = prior.energy(torch.zeros_like(plane), guide, torch.zeros_like(slopes), plain)
    assert float(prior.energy(plane, guide, slopes, plain)) == pytest.approx(float(flat), rel=1e-3)
    assert float(prior.energy(plane, guide, None, plain)) > 10 * float(flat)


def test_an_edge_of_the_aif_releases_a_jump_of_depth_and_not_a_ripple():
    """At an edge of the AIF a step h costs q / (q + h) of its price in a plain image; a step of slopes, with q / 10."""
    stack = example_stack(weighting="occlusion")
    right = torch.zeros_like(stack.depth_m)
    right[..., right.shape[-1] // 2 :] = 1.0
    image = right[:, None].expand(-1, 3, -1, -1)
    span_px = float(torch.diff(stack.blur_radii_at_range_px(), dim=-1).abs().max())
    none = 0 * right.double()

    def share(prior, inverse_depth_01, slopes):
        at_edge, in_plain = (
            prior.energy(inverse_depth_01, guide, slopes, none) - prior.energy(none, guide, 0 * slopes, none)
            for guide in (image, torch.zeros_like(image))
        )
        return float(at_edge / in_plain)

    steps = prior_of(stack, charbonnier_eps=1e-6, bending=0)
    bends = prior_of(stack, charbonnier_eps=1e-6, smoothness=0, offsets_px=(1,))
    level = none[:, None].expand(-1, 2, -1, -1)
    ripple = 0.3 / span_px
    for height in (0.1 * ripple, 2 * ripple, 0.5):
        held = ripple / (ripple + height)
        assert share(steps, height * right.double(), level) == pytest.approx(held, rel=0.03)
        slopes = 0.1 * height * torch.stack([right, 0 * right], 1).double()
        assert share(bends, none, slopes) == pytest.approx(held, rel=0.03)
    assert share(steps, 0.5 * right.double(), level) < 0.1 < 0.9 < share(steps, 0.1 * ripple * right.double(), level)


def test_a_plain_strip_beside_an_edge_is_textureless():
    image = torch.full((1, 3, 40, 60), 0.5)
    image[..., 30:] = 0.9
    image[..., :12] = torch.rand(1, 3, 40, 12, generator=torch.Generator().manual_seed(0))
    found = textureless(image)
    assert (
        float(found[..., 20:27].min()) == float(found[..., 36:-4].min()) == 1
    )  # windows on one side of the edge are plain
    assert float(found[..., 4:9].max()) < 0.05
