"""Laws of focal stacks and predictions, over batches that Hypothesis draws."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfdfd.measures.metrics import DEPTH_KEYS, depth_metrics, image_metrics
from sfdfd.optics import Camera
from sfdfd.stack import FocalStack, Prediction

laws = settings(max_examples=25, derandomize=True, database=None, deadline=None)
axes = st.sampled_from([(-1,), (-2,), (-1, -2)])


SIDES = st.integers(1, 9)


def recipes(truth, covered, sides=SIDES):
    """What :func:`made` makes a stack of; made in the test itself, because type checks random_key random numbers."""
    return st.fixed_dictionaries(
        {
            "truth": st.just(truth), "covered": st.just(covered), "height": sides, "width": sides,
            "focus_distances_m": st.lists(st.floats(0.5, 20), min_size=1, max_size=4), "name": st.sampled_from("abc"),
            "near_m": st.sampled_from([0.3, 0.5, 1.0]), "seed": st.integers(0, 2**31),
            "random_key": st.integers(0, 2**63 - 1),
            "camera": st.builds(Camera, st.just(0.05), st.sampled_from([2.0, 4.0]), st.sampled_from([6e-6, 1.2e-5])),
        }
    )  # fmt: skip


def batches(truth=None, covered=None, least=1, sides=SIDES):
    """Stacks that can stand in one batch: of their own cameras, slices, sizes and ranges, all with truth or none."""
    kinds = (st.booleans() if kind is None else st.just(kind) for kind in (truth, covered))
    return st.tuples(*kinds).flatmap(lambda kind: st.lists(recipes(*kind, sides), min_size=least, max_size=4))


def made(drawn):
    if isinstance(drawn, list):
        return [made(one) for one in drawn]
    height, width, near_m = drawn["height"], drawn["width"], drawn["near_m"]
    slices, generator = len(drawn["focus_distances_m"]), torch.Generator().manual_seed(drawn["seed"])

    def rand(*shape):
        return torch.rand(*shape, height, width, generator=generator)

    known = {"depth_m": near_m * (1 + 8 * rand()), "aif": rand(3), "valid": rand() > 0.3} if drawn["truth"] else {}
    stack = FocalStack.single(
        rand(slices, 3), drawn["focus_distances_m"], drawn["camera"], near_m, 10 * near_m, name=drawn["name"],
        covered=rand(slices) if drawn["covered"] else None, **known,
    )  # fmt: skip
    return replace(stack, random_key=(drawn["random_key"],))


def same(found: FocalStack | Prediction, expected: FocalStack | Prediction, besides=()) -> None:
    """Field by field, bit by bit."""
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name in besides:
            continue
        if isinstance(other, torch.Tensor):
            assert one.dtype == other.dtype and torch.equal(one, other), field.name
        else:
            assert one == other, field.name


@laws
@given(batches())
def test_indexing_inverts_collate(stacks):
    stacks = made(stacks)
    batch = FocalStack.collate(stacks)
    assert len(batch) == len(stacks) and [one.name[0] for one in batch] == [one.name[0] for one in stacks]
    for index, stack in enumerate(stacks):
        same(batch[index], stack)
        same(batch[index - len(stacks)], stack)
    same(FocalStack.collate(list(batch)), batch)
    sizes = {stack.images.shape[-2:] for stack in stacks}
    assert (batch.size_px is None) == (len(sizes) == 1)
    assert batch.images.shape[1:] == (
        max(stack.images.shape[1] for stack in stacks), 3, *(max(size[axis] for size in sizes) for axis in (0, 1))
    )  # fmt: skip


@laws
@given(batches(least=2), st.integers(1, 3))
def test_collate_is_associative(stacks, cut):
    stacks = made(stacks)
    cut = min(cut, len(stacks) - 1)
    whole = FocalStack.collate(stacks)
    steps = FocalStack.collate([FocalStack.collate(stacks[:cut]), FocalStack.collate(stacks[cut:])])
    same(steps, whole)
    backwards = FocalStack.collate(stacks[::-1])
    for index, stack in enumerate(stacks[::-1]):
        same(backwards[index], stack)


@laws
@given(batches())
def test_split_by_size_gives_unpadded_batches(stacks):
    stacks = made(stacks)
    batch = FocalStack.collate(stacks)
    parts = batch.split_by_size()
    assert sorted(index for indices, _ in parts for index in indices) == list(range(len(stacks)))
    assert len({part.images.shape[-2:] for _, part in parts}) == len(parts)
    for indices, part in parts:
        assert part.size_px is None
        for place, index in enumerate(indices):
            same(part[place], stacks[index])


@laws
@given(batches(covered=True))
def test_padding_is_neither_valid_nor_covered(stacks):
    stacks = made(stacks)
    batch = FocalStack.collate([replace(stacks[0], covered=None), *stacks])
    for index, stack in enumerate([stacks[0], *stacks]):
        _, slices, _, height, width = stack.images.shape
        assert batch.slice_mask[index].tolist() == [s < slices for s in range(batch.images.shape[1])]
        real = torch.zeros(batch.images.shape[-2:], dtype=torch.bool)
        real[:height, :width] = True
        shown = batch.coverage()[index]
        assert not shown[:, ~real].any() and not shown[slices:].any()
        expected = stack.covered[0] if index else torch.ones(slices, height, width)
        assert torch.equal(shown[:slices, :height, :width], expected)
        assert not batch.images[index, slices:].any()
        inner = batch.images[index, :slices, :, :height, :width]  # edges are repeated
        rows, columns = (torch.arange(n).clamp_max(real - 1) for n, real in zip(
            batch.images.shape[-2:], (height, width), strict=True))  # fmt: skip
        assert torch.equal(batch.images[index, :slices], inner[..., rows, :][..., columns])
        assert batch.valid is None or not batch.valid[index, ~real].any()
        later = batch.focus_distances_m[index, slices:]
        assert torch.equal(later, batch.focus_distances_m[index, slices - 1].expand_as(later))


@laws
@given(batches(truth=True))
def test_depth_metrics_of_a_padded_batch_are_those_of_its_stacks(stacks):
    stacks = made(stacks)
    batch = FocalStack.collate(stacks)
    predictions = [Prediction(1.3 * one.depth_m.flip(-1), one.aif, one.images[:, :, 0], None) for one in stacks]
    together = depth_metrics(Prediction.collate(predictions).depth_m, batch.depth_m, batch.valid)
    for index, (prediction, stack) in enumerate(zip(predictions, stacks, strict=True)):
        alone = depth_metrics(prediction.depth_m, stack.depth_m, stack.valid)
        for key in DEPTH_KEYS:
            torch.testing.assert_close(together[key][index], alone[key][0], equal_nan=True, rtol=1e-12, atol=0)


@settings(laws, max_examples=8)
@given(batches(truth=True, sides=st.sampled_from([12, 14])))
def test_metrics_of_split_batches_are_those_of_single_stacks(stacks):
    stacks = made(stacks)

    def measured(stack):
        guess = Prediction(1.2 * stack.depth_m, stack.aif.flip(-1), stack.images[:, :, 0], 0.9 * stack.images)
        return image_metrics(guess, stack).as_dicts()

    batch = FocalStack.collate(stacks)
    for indices, part in batch.split_by_size():
        for index, row in zip(indices, measured(part), strict=True):
            assert row == pytest.approx(measured(stacks[index])[0], nan_ok=True, rel=1e-5)


@laws
@given(batches(), axes, st.integers(0, 3), st.integers(0, 3))
def test_crops_flips_and_slice_selection_commute(stacks, over, top, left):
    stacks = made(stacks)
    stack = stacks[0]
    _, slices, _, height, width = stack.images.shape
    top, left = min(top, height - 1), min(left, width - 1)
    same(stack.flipped(over).flipped(over), stack)
    for axis in over:
        same(stack.flipped([axis]), stack.flipped(over).flipped([other for other in over if other != axis]))
    cropped = stack.cropped(top, height, left, width)
    assert cropped.images.shape[-2:] == (height - top, width - left) and cropped.camera == stack.camera
    ends = (0, height - top) if -2 in over else (top, height), (0, width - left) if -1 in over else (left, width)
    same(stack.flipped(over).cropped(*ends[0], *ends[1]), cropped.flipped(over))
    same(stack.cropped(top, height, 0, width).cropped(0, height - top, left, width), cropped)
    same(stack.cropped(0, height, 0, width), stack)
    order = list(range(slices))[::-1]
    same(stack.with_slices(order).flipped(over), stack.flipped(over).with_slices(order))
    same(stack.with_slices(order).with_slices(order), stack)
    same(stack.with_slices(order).cropped(top, height, left, width), cropped.with_slices(order))
    chosen = stack.with_slices([slices - 1, slices - 1])
    assert torch.equal(chosen.images, stack.images[:, [-1, -1]]) and chosen.slice_mask.all()
    assert torch.equal(chosen.focus_distances_m, stack.focus_distances_m[:, [-1, -1]])
    same(stack.without_truth().flipped(over), stack.flipped(over).without_truth())


@laws
@given(batches(), st.sampled_from([(1, 2), (2, 1), (2, 2), (3, 3)]), axes)
def test_a_resized_stack_is_its_means_under_a_coarser_pitch(stacks, times, over):
    stacks = made(stacks)
    stack = stacks[0].with_slices([0]).flipped([-1])
    images = stack.images.repeat_interleave(times[0], -2).repeat_interleave(times[1], -1)
    cover = (
        None if stack.covered is None else stack.covered.repeat_interleave(times[0], -2).repeat_interleave(times[1], -1)
    )
    fine = stack.with_resized_images(images, cover)
    height, width = stack.images.shape[-2:]
    scale = (times[0] * times[1]) ** 0.5
    assert fine.camera[0].pixel_pitch_m == pytest.approx(stack.camera[0].pixel_pitch_m / scale)
    torch.testing.assert_close(fine.blur_radii_at_range_px(), scale * stack.blur_radii_at_range_px())
    back = fine.resized(height, width)
    torch.testing.assert_close(back.images, stack.images)
    assert back.camera[0].pixel_pitch_m == pytest.approx(stack.camera[0].pixel_pitch_m)
    assert (back.covered is None) == (stack.covered is None) and (back.depth_m, back.aif, back.valid) == (None,) * 3
    torch.testing.assert_close(back.coverage(), stack.coverage())
    flipped = fine.flipped(over).resized(height, width)
    torch.testing.assert_close(flipped.images, back.flipped(over).images)
    assert stack.resized(height, width) is stack
    one = fine.resized(1, 1).images[..., 0, 0]
    torch.testing.assert_close(one, stack.images.mean((-2, -1)))


@laws
@given(batches())
def test_with_camera_without_truth_and_to(stacks):
    stacks = made(stacks)
    batch, own = FocalStack.collate(stacks), Camera(0.035, 2.0, 5e-6)
    same(batch.with_camera(own), batch, besides=("camera",))
    assert batch.with_camera(own).camera == (own,) * len(stacks) and batch.with_camera(None) is batch
    same(batch.without_truth(), batch, besides=("depth_m", "aif", "valid"))
    blind = batch.without_truth()
    assert blind.depth_m is None and blind.aif is None and blind.valid is None
    same(FocalStack.collate([stack.without_truth() for stack in stacks]), blind)
    double = batch.to(torch.float64)
    assert double.images.dtype == double.near_m.dtype == torch.float64 and double.slice_mask.dtype == torch.bool
    assert double.valid is None or double.valid.dtype == torch.bool
    same(double.to(torch.float32), batch)
    same(batch.to("cpu"), batch)


@laws
@given(batches())
def test_blur_at_the_ends_bounds_the_blur_between_them(stacks):
    stacks = made(stacks)
    batch = FocalStack.collate(stacks)
    ends = batch.blur_radii_at_range_px()
    for index, stack in enumerate(stacks):
        camera, slices = stack.camera[0], stack.images.shape[1]
        for place, end in enumerate((stack.near_m[0], stack.far_m[0])):
            expected = [camera.blur_radius_px(float(end), float(f), signed=True) for f in stack.focus_distances_m[0]]
            torch.testing.assert_close(ends[index, :slices, place], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert bool((ends[..., 0] < ends[..., 1]).all())


@laws
@given(batches(truth=True), st.booleans(), st.booleans())
def test_predictions_are_collated_like_their_stacks(stacks, rendered, confident):
    stacks = made(stacks)

    def predicted(stack, confidence):
        blur = stack.images[:, :, 0]
        return Prediction(
            stack.depth_m, stack.aif, blur, stack.images if rendered else None,
            stack.aif[:, 0] if confidence else None, stack.depth_m / 7 if confidence else None,
        )  # fmt: skip

    predictions = [predicted(stack, confident or not index) for index, stack in enumerate(stacks)]
    batch, joined = FocalStack.collate(stacks), Prediction.collate(predictions)
    assert torch.equal(joined.depth_m, batch.depth_m) and torch.equal(joined.aif, batch.aif)
    assert torch.equal(joined.defocus_px, batch.images[:, :, 0])
    assert (joined.rendered is None) == (not rendered) and (not rendered or torch.equal(joined.rendered, batch.images))
    assert (joined.confidence is None) == (joined.depth_std_m is None) == (not confident and len(stacks) > 1)
    same(Prediction.collate([joined]), joined)
    same(joined.to(torch.float64).to(torch.float32), joined)
    assert joined.to(torch.float64).depth_m.dtype == torch.float64


@laws
@given(recipes(False, False), recipes(True, True))
def test_a_batch_may_have_truth_for_some(blind, seeing):
    blind, seeing = made(blind), made(seeing)
    batch = FocalStack.collate([blind, seeing])
    assert batch[0].depth_m is batch[0].aif is batch[0].valid is None
    if seeing.depth_m is not None:
        assert not batch.valid[: len(blind)].any() and torch.equal(batch[len(blind)].valid, seeing[0].valid)
        assert torch.equal(batch[len(blind)].depth_m, seeing[0].depth_m)
    assert FocalStack.collate([blind, seeing.without_truth()]).aif is None


@laws
@given(st.floats(0.2, 5), st.floats(0.2, 50), st.integers(0, 2**31))
def test_a_depth_counts_where_it_is_finite_and_in_range(near_m, far_m, seed):
    assume(abs(near_m - far_m) > 1e-3)
    generator = torch.Generator().manual_seed(seed)
    depth_m = 60 * torch.rand(5, 6, generator=generator) ** 3
    depth_m[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    images, camera = torch.rand(2, 3, 5, 6, generator=generator), Camera(0.05, 8.0, 1.2e-5)
    if near_m >= far_m:
        with pytest.raises(ValueError, match="near_m < far_m"):
            FocalStack.single(images, [1, 2], camera, near_m, far_m)
        return
    stack = FocalStack.single(images, [1, 2], camera, near_m, far_m, depth_m=depth_m)
    assert stack.valid[0].tolist() == [[near_m <= one <= far_m for one in row] for row in depth_m.tolist()]
    with pytest.raises(ValueError, match="expected 2 focus distances, one per slice, got 3"):
        FocalStack.single(images, [1, 2, 3], camera, near_m, far_m)
    with pytest.raises(ValueError, match="focal length"):
        FocalStack.single(images, [1, 0.04], camera, near_m, far_m)
