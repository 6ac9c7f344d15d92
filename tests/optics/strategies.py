"""What the laws of optics are drawn over."""

import math

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from sfdfd.optics import Camera
from tests.optics.test_laws import RENDERERS

laws = settings(max_examples=40, derandomize=True, database=None, deadline=None)
few = settings(laws, max_examples=8)
DIRECT = [name for name in RENDERERS if RENDERERS[name].options["weighting"] != "occlusion"]
"""Those in which a pixel's blur does not depend on levels that the whole scene shares."""
direct = pytest.mark.parametrize("name", DIRECT)


def lengths(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


cameras = st.builds(Camera, lengths(0.002, 0.3), lengths(0.5, 32), lengths(1e-6, 1e-4))
distances = lengths(0.5, 1e3)
apertures = st.sampled_from([Camera(0.05, 8.0, 1.2e-5), Camera(0.05, 4.0, 1.2e-5), Camera(0.035, 5.6, 6e-6)])
focuses = st.lists(st.sampled_from([0.8, 1.0, 1.7, 2.5, 6.0, math.inf]), min_size=1, max_size=3, unique=True)


@st.composite
def scenes(draw, batch=1, least=1):
    """(AIF, depth in metres, focus distances, camera), noise in float64: no image is easier than another."""
    height, width = draw(st.integers(least, 17)), draw(st.integers(least, 17))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    aif = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    inverse = 0.1 + 1.3 * torch.rand(batch, height, width, generator=generator, dtype=torch.float64)
    return aif, 1 / inverse, torch.tensor(draw(focuses), dtype=torch.float64), draw(apertures)


def tolerance(name, exact=1e-8):
    """What two ways to the same stack may differ by: a fast basis is chosen for the widest blur of the call."""
    options = RENDERERS[name].options
    if options["weighting"] == "occlusion":
        return 1e-4  # coverage below 1e-5 is nothing
    return 1e-2 if options["method"] == "fast" else exact
