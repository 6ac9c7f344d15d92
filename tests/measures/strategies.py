"""What the laws of measures are drawn over, and how their tests compare."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

from sfdfd.optics import Camera
from sfdfd.stack import FocalStack, Prediction

laws = settings(max_examples=25, derandomize=True, database=None, deadline=None)
seeds = st.integers(0, 2**31)
factors = st.floats(0.1, 10)
turns = st.sampled_from([lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT.contiguous()])
NAN = torch.nan


def close(found, expected, atol=1e-9, rtol=1e-9):
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, equal_nan=True)


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)


@st.composite
def depths(draw):
    """(prediction, truth, valid) of two images; in the first at least one pixel counts, the second may have none."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rand = drawn(draw(seeds))
    truth = 0.2 + 9 * rand(2, height, width)
    prediction = truth * torch.exp(draw(st.floats(0, 2)) * (rand(2, height, width) - 0.5))
    valid = rand(2, height, width) < draw(st.floats(0, 1))
    valid[0, 0, 0] = True
    return prediction, truth, valid


def both(scene, rand, slices=2):
    """A prediction and a stack with truth of these depths."""
    prediction, truth, valid = scene
    shape = truth.shape[1:]
    images, aif, rendered, guess = (
        rand(2, slices, 3, *shape), rand(2, 3, *shape), rand(2, slices, 3, *shape), rand(2, 3, *shape)
    )  # fmt: skip
    stack = FocalStack(
        images, torch.ones(2, slices).cumsum(1), (Camera(0.05, 8.0, 1.2e-5),) * 2, torch.full((2,), 0.1),
        torch.full((2,), 10.0), torch.ones(2, slices, dtype=torch.bool), ("a", "b"), truth, aif, valid,
    )  # fmt: skip
    return Prediction(prediction, guess, torch.zeros(2, slices, *shape).double(), rendered), stack
