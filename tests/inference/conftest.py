"""One procedural scene, and where refinement begins."""

import pytest

from sfdfd.data.synthesis import StackSynthesis
from sfdfd.networks import classical_network
from sfdfd.optics import DefocusRenderer
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks


@pytest.fixture(scope="module")
def scene():
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=0.5, method="exact"), CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(4, synthesis, seed=0, height=96, width=112)[1]


def start_of(stack):
    return classical_network(
        stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m, slice_mask=stack.slice_mask
    )[:2]
