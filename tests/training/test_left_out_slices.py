"""`module.left_out` in batches of stacks with unequal numbers of slices."""

from dataclasses import replace

import pytest
import torch

from sfdfd.networks import DAIFNet, FocusAttentionNet, PlaneSweepNet
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA
from tests.training.test_module import module


class Seen(torch.nn.Module):
    """A network that keeps the real slices that it was shown of each sample."""

    requires_defocus = False

    def __init__(self, network=None):
        super().__init__()
        self.network = network or FocusAttentionNet(width=8, depth=2)
        self.focus_m, self.padding, self.images = [], [], []

    def forward(self, images, focus_distances_m, *, slice_mask, **known):
        self.focus_m = [row[real].tolist() for row, real in zip(focus_distances_m, slice_mask, strict=True)]
        self.images = [row[real] for row, real in zip(images, slice_mask, strict=True)]
        self.padding = [row[~real] for row, real in zip(images, slice_mask, strict=True)]
        return self.network(images, focus_distances_m, slice_mask=slice_mask, **known)


def unequal(counts, seed=0, size=(16, 20)):
    """One stack of noise for each number of slices, every slice at a focus distance of its own."""
    generator = torch.Generator().manual_seed(seed)
    return [
        FocalStack.single(
            torch.rand(count, 3, *size, generator=generator),
            [1.0 + 0.25 * index for index in range(count)], CAMERA, 0.5, 10.0, name=str(count),
        )
        for count in counts
    ]  # fmt: skip


def batch_of(counts, draw, **options):
    return replace(FocalStack.collate(unequal(counts, **options)), random_key=draw)


@pytest.mark.parametrize(
    ("counts", "left_out", "kept"),
    [
        ((10, 3, 2, 2), 1, (9, 2, 2, 2)),
        ((10, 3, 2, 2), 3, (7, 2, 2, 2)),
        ((2, 2), 1, (2, 2)),
        ((2, 9), 20, (2, 2)),
        ((1, 5), 2, (1, 3)),
        ((4, 4, 4), 2, (2, 2, 2)),
    ],
)
def test_each_sample_keeps_the_stated_number_of_its_real_slices(counts, left_out, kept):
    seen = Seen()
    model = module(seen, left_out=left_out)
    for number in range(20):
        batch = batch_of(counts, tuple(range(number, number + len(counts))))
        prediction = model(batch)
        assert torch.isfinite(prediction.depth_m).all() and prediction.rendered.shape == batch.images.shape
        for index, focus_m in enumerate(seen.focus_m):
            assert len(focus_m) == kept[index] == len(set(focus_m)) and focus_m == sorted(focus_m)
            places = [int((batch.focus_distances_m[index] == one).nonzero()[0]) for one in focus_m]
            assert max(places) < counts[index]
            assert torch.equal(seen.images[index], batch.images[index, places])


def test_padding_repeats_kept_slices():
    seen = Seen()
    module(seen, left_out=1)(batch_of((8, 3), (5, 6)))
    assert len(seen.padding[1]) == 5
    for padding in seen.padding[1]:
        assert any(torch.equal(padding, image) for image in seen.images[1])


def test_every_real_slice_is_left_out_sometimes():
    seen, counts = Seen(), (5, 3)
    model = module(seen, left_out=1).requires_grad_(False)
    out = [set(), set()]
    for number in range(40):
        batch = batch_of(counts, (number, 1000 + number))
        model(batch)
        for index, focus_m in enumerate(seen.focus_m):
            out[index] |= {1.0 + 0.25 * place for place in range(counts[index])} - set(focus_m)
    assert [len(one) for one in out] == list(counts)


def test_left_out_slices_do_not_depend_on_the_batch():
    seen = Seen()
    model = module(seen, left_out=2)
    together, draws = unequal((12, 4, 6)), (11, 22, 33)
    model(replace(FocalStack.collate(together), random_key=draws))
    first = list(seen.focus_m)
    for index, stack in enumerate(together):
        model(replace(stack, random_key=draws[index : index + 1]))
        assert seen.focus_m[0] == first[index]
    model(replace(FocalStack.collate(together[::-1]), random_key=draws[::-1]))
    assert seen.focus_m == first[::-1]
    model(replace(FocalStack.collate(together), random_key=(44, 55, 66)))
    assert seen.focus_m != first


def test_without_random_key_torchs_generator_decides():
    seen = Seen()
    model = module(seen, left_out=2)
    batch, found = FocalStack.collate(unequal((12, 9))), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model(batch)
        found.append(seen.focus_m)
    assert found[0] == found[1] != found[2]


def test_padding_may_come_first():
    seen = Seen()
    model = module(seen, left_out=1)
    batch = batch_of((6, 3), (1, 2))
    turned = replace(
        batch,
        images=batch.images.flip(1), focus_distances_m=batch.focus_distances_m.flip(1),
        slice_mask=batch.slice_mask.flip(1),
    )  # fmt: skip
    prediction = model(turned)
    assert [len(one) for one in seen.focus_m] == [5, 2] and torch.isfinite(prediction.depth_m).all()
    assert len(set(seen.focus_m[1])) == 2 and set(seen.focus_m[1]) <= {1.0, 1.25, 1.5}


@pytest.mark.parametrize(
    "network", [DAIFNet(width=4, depth=2), FocusAttentionNet(width=8, depth=2), PlaneSweepNet(4, 3, 8)]
)
def test_batches_of_unequal_stacks_have_finite_losses_and_gradients(network):
    model = module(network, left_out=2)
    for number in range(4):
        batch = batch_of((7, 2, 3), (number, 10 + number, 20 + number), seed=number)
        total = model.compare(model.predicted(batch))["total"]
        total.mean().backward()
        assert torch.isfinite(total).all()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
