"""Slice subsets."""

import torch

from sfdfd.datasets.wrappers import SliceSubset, evenly_spread
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA


def sized(height, width, slices=3):
    generator = torch.Generator().manual_seed(height * width)
    return FocalStack.single(
        torch.rand(slices, 3, height, width, generator=generator), list(range(1, slices + 1)), CAMERA, 0.5, 10.0,
        depth_m=1 + torch.rand(height, width, generator=generator), aif=torch.rand(3, height, width, generator=generator),
        valid=torch.rand(height, width, generator=generator) > 0.2,
    )  # fmt: skip


class Stacks(torch.utils.data.Dataset):
    def __init__(self, stack, length=4):
        self.stack, self.length = stack, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.stack

    def identity(self, index):
        return [index]


def test_slice_subsets_are_seeded():
    stack = sized(8, 8, slices=7)
    for choice in ("random", "even"):
        sparse = SliceSubset(Stacks(stack, 9), 3, choice, seed=1)
        picks = [tuple(sparse[i].focus_distances_m[0].tolist()) for i in range(9)]
        assert picks == [tuple(sparse[i].focus_distances_m[0].tolist()) for i in range(9)]
        assert all(len(set(pick)) == 3 and pick == tuple(sorted(pick)) for pick in picks)
        assert (len(set(picks)) > 2) == (choice == "random")
    other = SliceSubset(Stacks(stack, 9), 3, "random", seed=2)
    assert picks != [tuple(other[i].focus_distances_m[0].tolist()) for i in range(9)]
    torch.manual_seed(0)
    drawn = SliceSubset(Stacks(stack), 3, "random", seed=None)
    assert len({tuple(drawn[0].focus_distances_m[0].tolist()) for _ in range(20)}) > 4
    assert SliceSubset(Stacks(sized(8, 8, slices=2)), 3, "even", 0)[0].images.shape[1] == 2


def test_even_slices_are_spread_in_inverse_distance():
    assert evenly_spread(torch.tensor([1.0, 1.5, 2.5, 4.0, 6.0]), 3) == [0, 1, 4]  # 1, .67 of (1, .58, .17)
    assert evenly_spread(torch.tensor([6.0, 4.0, 2.5, 1.5, 1.0]), 2) == [0, 4]
    assert evenly_spread(torch.tensor([1.0, 2.0, float("inf")]), 3) == [0, 1, 2]
    for number in range(2, 8):
        assert len(set(evenly_spread(torch.tensor([1, 1.01, 1.02, 1.03, 5, 6, 7.0]), number))) == number
