"""Laws of metrics, regions, losses, left-out figures and the diagnosis, over inputs that Hypothesis draws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfdfd.measures.diagnosis import blur_sensitivity, diagnose, textured_share
from sfdfd.measures.left_out import judge, neighbours
from sfdfd.measures.losses import (
    SelfSupervisedLoss,
    aif_blur,
    coarse_aif,
    depth_smoothness,
    photometric_error,
    reconstruction,
    sharpness,
)
from sfdfd.measures.metrics import (
    DEPTH_KEYS,
    EvaluationMetrics,
    ImageMetrics,
    depth_metrics,
    image_metrics,
    psnr,
    ssim,
)
from sfdfd.measures.regions import border, near_depth_edges, plain, regions
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


# Depth metrics


@laws
@given(depths())
def test_a_perfect_depth_has_no_error_and_a_wrong_one_has(scene):
    prediction, truth, valid = scene
    perfect = depth_metrics(truth, truth, valid)
    found = depth_metrics(prediction, truth, valid)
    for key in DEPTH_KEYS:
        ideal = float(key.startswith("delta"))
        assert float(perfect[key][0]) == ideal
        assert float(found[key][0]) <= 1 if ideal else float(found[key][0]) >= 0
        assert bool(found[key][1].isnan()) == (not valid[1].any())
    within = [found[f"delta{i}"].nan_to_num() for i in (1, 2, 3)]
    assert bool((within[0] <= within[1]).all()) and bool((within[1] <= within[2]).all())
    both = found["abs_rel"][0] * found["rmse"][0] > 0
    assert both == bool((prediction != truth)[0][valid[0]].any())


@laws
@given(depths(), factors)
def test_a_common_scale_leaves_the_relative_metrics_and_scales_the_others(scene, c):
    prediction, truth, valid = scene
    before, after = depth_metrics(prediction, truth, valid), depth_metrics(c * prediction, c * truth, valid)
    for key in ("abs_rel", "rmse_log", "log10"):
        close(after[key], before[key])
    for key in ("rmse", "sq_rel"):
        close(after[key], c * before[key])


@laws
@given(depths(), st.integers(1, 3), st.booleans())
def test_a_depth_wrong_by_one_factor_has_the_metrics_of_that_factor(scene, power, over):
    """In closed form; delta thresholds are the powers of 1.25, and both sides of them are alike."""
    _, truth, valid = scene
    truth = truth.expand_as(truth).clone()
    for inside, wanted in ((0.999, 1.0), (1.001, 0.0)):
        c = (1.25**power * inside) ** (1 if over else -1)
        found = depth_metrics(c * truth, truth, valid)
        close(found["abs_rel"][0], torch.tensor(abs(c - 1), dtype=torch.float64))
        close(found["rmse_log"][0], torch.tensor(abs(math.log(c)), dtype=torch.float64))
        close(found["log10"][0], torch.tensor(abs(math.log10(c)), dtype=torch.float64))
        close(found["sq_rel"][0], (c - 1) ** 2 * truth[0][valid[0]].mean())
        close(found["rmse"][0], abs(c - 1) * truth[0][valid[0]].square().mean().sqrt())
        assert float(found[f"delta{power}"][0]) == wanted


@laws
@given(depths())
def test_ratios_are_symmetric_in_prediction_and_truth(scene):
    prediction, truth, valid = scene
    there, back = depth_metrics(prediction, truth, valid), depth_metrics(truth, prediction, valid)
    for key in ("rmse", "rmse_log", "log10", "delta1", "delta2", "delta3"):
        close(there[key], back[key])


@laws
@given(depths(), st.sampled_from([NAN, math.inf, 0.0, -1.0]), seeds)
def test_what_is_not_valid_does_not_matter_nor_does_the_order_of_pixels(scene, nonsense, seed):
    prediction, truth, valid = scene
    expected = depth_metrics(prediction, truth, valid)
    spoilt = depth_metrics(torch.where(valid, prediction, nonsense), torch.where(valid, truth, nonsense), valid)
    order = torch.randperm(truth[0].numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = depth_metrics(*(x.flatten(1)[:, order].reshape(x.shape) for x in scene))
    for key in DEPTH_KEYS:
        close(spoilt[key], expected[key])
        close(shuffled[key], expected[key])


@laws
@given(depths())
def test_a_worse_pixel_makes_no_metric_better(scene):
    prediction, truth, valid = scene
    worse = torch.where(prediction >= truth, 1.3 * prediction, prediction / 1.3)
    before, after = depth_metrics(prediction, truth, valid), depth_metrics(worse, truth, valid)
    for key in DEPTH_KEYS:
        step = float(after[key][0] - before[key][0])
        assert step <= 0 if key.startswith("delta") else step > 0


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


def test_images_need_no_more_pixels_than_ssim_has():
    """The window of SSIM is 11 pixels wide: what follows uses images of 12 and more."""
    with pytest.raises((ValueError, RuntimeError)):
        ssim(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))


@settings(laws, max_examples=10)
@given(seeds)
def test_pooled_metrics_are_means_weighted_by_valid_pixels(seed):
    rand = drawn(seed)
    truth = 1 + 3 * rand(2, 12, 13)
    valid = rand(2, 12, 13) > torch.tensor([0.1, 0.7])[:, None, None]
    prediction, stack = both((truth * (0.8 + 0.4 * rand(2, 12, 13)), truth, valid), rand)
    metrics = EvaluationMetrics()
    measured = image_metrics(prediction, stack)
    metrics.update(measured)
    found, rows = metrics.compute(), measured.as_dicts()
    share = (valid.sum((1, 2)) / valid.sum()).tolist()
    for key in DEPTH_KEYS:
        power = 2 if key in ("rmse", "rmse_log") else 1
        pooled = sum(w * row[f"depth/{key}"] ** power for w, row in zip(share, rows, strict=True)) ** (1 / power)
        assert found[f"pooled/depth/{key}"] == pytest.approx(pooled)
        assert found[f"depth/{key}"] == pytest.approx(np.mean([row[f"depth/{key}"] for row in rows]))
    alone = [depth_metrics(prediction.depth_m[i : i + 1], truth[i : i + 1], valid[i : i + 1]) for i in range(2)]
    assert [row["depth/rmse"] for row in rows] == [pytest.approx(float(one["rmse"])) for one in alone]
    swapped = EvaluationMetrics()
    swapped.update(ImageMetrics(measured.rows.flip(0), measured.sums.flip(0)))
    assert swapped.compute() == pytest.approx(found)


@settings(laws, max_examples=10)
@given(seeds, st.sampled_from([NAN, 7.0]))
def test_slices_that_pad_and_pixels_that_show_nothing_are_not_measured(seed, nonsense):
    rand = drawn(seed)
    depth = 1 + rand(2, 12, 13)
    prediction, stack = both((depth, depth, torch.ones(2, 12, 13, dtype=torch.bool)), rand, slices=3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    covered = (rand(2, 3, 12, 13) > 0.2).double()
    stack = replace(stack, slice_mask=mask, covered=covered)
    expected = image_metrics(prediction, stack).as_dicts()
    counts = (covered * mask[:, :, None, None])[:, :, None] > 0
    spoilt = replace(prediction, rendered=torch.where(counts, prediction.rendered, nonsense))
    for row, other in zip(expected, image_metrics(spoilt, stack).as_dicts(), strict=True):
        assert other == pytest.approx(row, nan_ok=True)
    for index, row in enumerate(expected):
        where = (covered[index] * mask[index, :, None, None])[:, None].expand(-1, 3, -1, -1).numpy() > 0
        error = (prediction.rendered - stack.images)[index].square().numpy()[where].mean()
        assert row["stack/psnr"] == pytest.approx(-10 * math.log10(error))
        seen = torch.where(torch.from_numpy(where), prediction.rendered[index], stack.images[index])[mask[index]]
        assert row["stack/ssim"] == pytest.approx(float(ssim(seen, stack.images[index][mask[index]]).mean()), rel=1e-5)


# Image metrics


@laws
@given(seeds, st.floats(1e-4, 1), factors)
def test_psnr_is_the_mean_square_in_decibels(seed, offset, c):
    rand = drawn(seed)
    image, truth = rand(2, 3, 5, 6), rand(2, 3, 5, 6)
    close(psnr(image, image), torch.full((2,), 100.0).double())
    close(
        psnr(image + offset, image),
        torch.full((2,), min(100, -20 * math.log10(offset)), dtype=torch.float64),
        atol=1e-6,
    )
    close(psnr(image, truth), psnr(truth, image))
    close(psnr(c * image, c * truth), psnr(image, truth) - 20 * math.log10(c))
    blends = [psnr(torch.lerp(truth, image, w), truth) for w in (0.25, 0.5, 1.0)]
    assert bool((blends[0] > blends[1]).all()) and bool((blends[1] > blends[2]).all())


@laws
@given(seeds, factors, st.sampled_from([NAN, math.inf, 3.0]))
def test_the_weight_of_psnr_is_a_weight(seed, c, nonsense):
    """Its scale does not matter, zeros leave out whatever stands there, whole numbers count as repetitions."""
    rand = drawn(seed)
    image, truth, weight = rand(2, 20), rand(2, 20), torch.round(2 * rand(2, 20))
    weight[:, 0] = 1
    found = psnr(image, truth, weight)
    close(psnr(image, truth, c * weight), found)
    close(psnr(torch.where(weight > 0, image, nonsense), truth, weight), found)
    close(psnr(image, truth, torch.ones_like(image)), psnr(image, truth))
    for b in range(2):
        repeated = [x[b].repeat_interleave(weight[b].long())[None] for x in (image, truth)]
        close(psnr(*repeated), found[b : b + 1])


@settings(laws, max_examples=10)
@given(seeds, turns)
def test_ssim_is_symmetric_bounded_and_falls_with_noise(seed, turn):
    rand = drawn(seed)
    image, other = rand(2, 3, 14, 16), rand(2, 3, 14, 16)
    close(ssim(image, image), torch.ones(2), atol=1e-4)
    found = ssim(image, other)
    close(ssim(other, image), found, atol=1e-5)
    close(ssim(turn(image), turn(other)), found, atol=1e-4)
    assert bool((found.abs() <= 1).all())
    noisy = [ssim(torch.lerp(image, other, w), image) for w in (0.1, 0.4, 1.0)]
    assert bool((noisy[0] > noisy[1]).all()) and bool((noisy[1] > noisy[2]).all())


# Regions


@laws
@given(seeds, turns, factors, st.integers(0, 3))
def test_jumps_turn_with_the_image_and_have_no_unit(seed, turn, c, reach):
    rand = drawn(seed)
    depth_m = torch.where(rand(2, 11, 14) > 0.9, 1.5, 1.0) * torch.where(rand(2, 11, 14) > 0.95, 0.0, 1.0)
    found = near_depth_edges(depth_m, reach)
    assert torch.equal(near_depth_edges(turn(depth_m), reach), turn(found))
    assert torch.equal(near_depth_edges(c * depth_m, reach), found)
    unknown = torch.where(depth_m > 0, depth_m, NAN)
    assert torch.equal(near_depth_edges(unknown, reach), found)
    assert not (found & ~near_depth_edges(depth_m, reach + 1)).any()  # a wider reach holds the narrower
    beside = (
        torch.nn.functional.max_pool2d(near_depth_edges(depth_m, 0)[:, None].double(), 2 * reach + 1, 1, reach)[:, 0]
        > 0
    )
    assert torch.equal(found, beside)
    assert not near_depth_edges(torch.full_like(depth_m, c)).any()


@laws
@given(st.sampled_from([0.02, 0.029, 0.031, 0.05, 0.5]), st.floats(0.3, 9), st.booleans(), st.integers(1, 9))
def test_a_jump_is_three_percent_of_the_nearer_ones_inverse_depth(share, near, farther_first, column):
    far = near / (1 - share)
    depth_m = torch.full((1, 5, 11), near, dtype=torch.float64)
    depth_m[..., column:] = far
    found = near_depth_edges(depth_m.flip(-1) if farther_first else depth_m, 0)
    found = found.flip(-1) if farther_first else found
    expected = torch.zeros(11, dtype=torch.bool)
    expected[column - 1 : column + 1] = share > 0.03
    assert torch.equal(found, expected.expand(1, 5, 11))


@laws
@given(seeds, turns, st.floats(0, 0.2), st.integers(0, 20), st.integers(1, 24), st.integers(1, 24))
def test_plain_places_and_the_border(seed, turn, offset, px, height, width):
    rand = drawn(seed)
    aif = 0.4 + 0.15 * rand(1, 3, 12, 15) * (torch.arange(15) > 7)
    found = plain(aif)
    assert torch.equal(plain(turn(aif)), turn(found)) and torch.equal(plain(aif + offset), found)
    assert torch.equal(plain(aif[:, [2, 0, 1]]), found) and bool(plain(torch.full_like(aif, offset)).all())
    assert not (plain(1.5 * (aif - 0.4)) & ~found).any()  # more contrast is no plainer
    frame = border(height, width, px)
    distance = np.minimum.outer(*(np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in (height, width)))
    assert np.array_equal(frame.numpy(), distance < px)
    named = regions(1 + rand(1, 12, 15), aif)
    assert torch.equal(named["edges"], ~named["interior"]) and torch.equal(named["plain"], found)


# Losses


@settings(laws, max_examples=10)
@given(seeds, turns, st.floats(0, 1), st.integers(0, 4))
def test_the_photometric_error_is_a_bounded_symmetric_difference(seed, turn, weight, px):
    rand = drawn(seed)
    one, other = rand(2, 3, 14, 15), rand(2, 3, 14, 15)
    options = {"ssim_weight": weight, "border_px": px}
    found = photometric_error(one, other, **options)
    close(photometric_error(one, one, **options), torch.zeros(2).double(), atol=1e-6)
    close(photometric_error(other, one, **options), found, atol=1e-7)
    close(photometric_error(turn(one), turn(other), **options), found, atol=1e-7)
    close(photometric_error(one.flip(0), other.flip(0), **options), found.flip(0))
    ends = [photometric_error(one, other, ssim_weight=w, border_px=px) for w in (0.0, 1.0)]
    close(found, (1 - weight) * ends[0] + weight * ends[1])
    cut = (one - other).abs()[..., px : 14 - px, px : 15 - px]
    close(ends[0], cut.mean((1, 2, 3)))
    assert bool((found >= 0).all()) and bool((found <= 2).all())


@settings(laws, max_examples=10)
@given(seeds, st.permutations(range(3)), st.sampled_from([NAN, 5.0]))
def test_slices_have_no_order_in_a_loss_and_padding_ones_no_say(seed, order, nonsense):
    rand = drawn(seed)
    rendered, stack = rand(2, 3, 3, 12, 13), rand(2, 3, 3, 12, 13)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    blur = rand(2, 3, 12, 13) - 0.5
    spoilt = torch.where(mask[:, :, None, None, None], rendered, nonsense)
    for loss in (reconstruction, sharpness):
        found = loss(rendered, stack, mask)
        close(loss(rendered[:, order], stack[:, order], mask[:, order]), found)
        close(loss(spoilt, stack, mask), found)
        close(loss(stack, rendered, mask), found, atol=1e-7)
        close(loss(stack, stack, mask), torch.zeros(2).double(), atol=1e-6)
        each = torch.stack([loss(rendered[:, s : s + 1], stack[:, s : s + 1], mask[:, :1]) for s in range(3)], 1)
        close(found, torch.stack([each[0, :2].mean(), each[1].mean()]))
    sharpest = coarse_aif(stack, blur, mask)
    close(coarse_aif(stack[:, order], blur[:, order], mask[:, order]), sharpest)
    close(coarse_aif(stack, 3 * -blur, mask), sharpest)  # the size of the blur, not its side nor its unit
    assert not (sharpest[0] == stack[0, 2]).all(0).any()
    chosen = blur.abs().numpy()[1].argmin(0)
    close(sharpest[1], torch.from_numpy(np.take_along_axis(stack[1].numpy(), chosen[None, None], 0)[0]))


@laws
@given(seeds, turns, st.floats(-3, 3), st.floats(-5, 5))
def test_smoothness_is_a_seminorm_that_edges_of_the_guide_soften(seed, turn, c, offset):
    rand = drawn(seed)
    value, image = rand(2, 7, 9), rand(2, 3, 7, 9)
    found = depth_smoothness(value, image)
    close(depth_smoothness(c * value + offset, image), abs(c) * found, rtol=1e-8)
    close(depth_smoothness(turn(value), turn(image)), found)
    close(depth_smoothness(value, 1 - image), found)
    flat = depth_smoothness(value, torch.full_like(image, 0.3))
    close(flat, value.diff(dim=1).abs().mean((1, 2)) + value.diff(dim=2).abs().mean((1, 2)))
    assert bool((found < flat).all()) and bool((depth_smoothness(value, 0.5 * image) > found).all())


@laws
@given(seeds, turns, st.floats(1.1, 5), st.floats(-0.3, 0.3))
def test_blurriness_knows_neither_brightness_nor_side(seed, turn, c, offset):
    rand = drawn(seed)
    image = 0.5 + 0.3 * (rand(2, 3, 12, 13) - 0.5)
    for normalisation in ("variance", "released"):
        found = aif_blur(image, normalisation=normalisation)
        close(aif_blur(turn(image), normalisation=normalisation), found)
        assert bool((aif_blur(0.5 + c * (image - 0.5), normalisation=normalisation) < found).all())  # contrast is sharp
    close(aif_blur(image + offset), aif_blur(image), rtol=1e-6)


@settings(laws, max_examples=5)
@given(seeds, st.lists(st.floats(0.01, 3), min_size=5, max_size=5), factors)
def test_the_total_is_linear_in_its_weights(seed, weights, c):
    rand = drawn(seed)
    depth = 1 + 3 * rand(2, 12, 13)
    prediction, stack = both((depth, depth, torch.ones(2, 12, 13, dtype=torch.bool)), rand)
    names = ("reconstruction", "aif_consistency", "aif_blur", "smoothness", "sharpness")
    stack = replace(stack, near_m=stack.near_m.double(), far_m=stack.far_m.double())
    terms = SelfSupervisedLoss(**dict(zip(names, weights, strict=True)))(prediction, stack)
    scaled = SelfSupervisedLoss(**{name: c * w for name, w in zip(names, weights, strict=True)})(prediction, stack)
    close(scaled["total"], c * terms["total"])
    for name, weight in zip(names, weights, strict=True):
        alone = SelfSupervisedLoss(**{**dict.fromkeys(names, 0.0), name: weight})(prediction, stack)
        assert set(alone) == {name, "total"}
        close(alone["total"], weight * terms[name])
    # in inverse depth from far (0) to near (1); as released, in tens of metres
    position = (1 / depth - 0.1) / (1 / stack.near_m - 0.1)[:, None, None]
    close(terms["smoothness"], depth_smoothness(position, prediction.aif), rtol=1e-6)
    released = SelfSupervisedLoss(smoothness=1.0, smoothness_domain="depth", smoothness_factor=2.5)(prediction, stack)
    close(released["smoothness"], 0.25 * depth_smoothness(depth, prediction.aif))


# Left-out slices


@laws
@given(seeds, st.sampled_from([NAN, 9.0]), turns)
def test_a_left_out_slice_is_judged_where_it_shows_something(seed, nonsense, turn):
    rand = drawn(seed)
    photograph, rendered, one, other = (rand(3, 9, 11).float() for _ in range(4))
    covered = rand(9, 11) > 0.3
    covered[1:-1, 1:-1] = True
    found = judge(photograph, rendered, one, (one, other), covered, exposure=False).figures
    assert found.best_blend_psnr_db >= found.nearest_slice_psnr_db - 1e-6
    swapped = judge(photograph, rendered, one, (other, one), covered, exposure=False).figures
    assert swapped.as_dict() == pytest.approx(found.as_dict())
    spoilt = (torch.where(covered, image, nonsense) for image in (photograph, rendered))
    assert judge(*spoilt, one, (one, other), covered, exposure=False).figures == found
    images = (turn(image) for image in (photograph, rendered, one))
    turned = judge(*images, (turn(one), turn(other)), turn(covered), exposure=False).figures
    assert turned.as_dict() == pytest.approx(found.as_dict())
    cut = (photograph - rendered)[:, 1:-1, 1:-1].square().double().mean()  # the border of a pixel does not count
    assert found.psnr_db == pytest.approx(-10 * math.log10(float(cut)))
    exact = judge(torch.lerp(other, one, 0.3), rendered, one, (one, other), covered, exposure=False).figures
    assert exact.best_blend_psnr_db > 90 and exact.nearest_slice_psnr_db < 40


@laws
@given(
    st.lists(st.floats(0.3, 30), min_size=2, max_size=6, unique_by=lambda x: round(x, 2)),
    st.floats(0.2, 50), st.randoms(), st.sampled_from([0.25, 4.0]),
)  # fmt: skip
def test_neighbours_know_neither_order_nor_unit(inputs, focus, random, c):
    nearest, pair = neighbours(focus, inputs)
    gaps = sorted(abs(1 / one - 1 / focus) for one in inputs)
    assume(gaps[1] > gaps[0] * (1 + 1e-9))
    assert abs(1 / inputs[nearest] - 1 / focus) == gaps[0] and nearest in pair
    low, high = sorted(inputs[index] for index in pair)
    assert not any(low < one < high for one in inputs)
    if min(inputs) <= focus <= max(inputs):
        assert low <= focus <= high
    shuffled = random.sample(inputs, len(inputs))
    again, others = neighbours(c * focus, [c * one for one in shuffled])
    assert shuffled[again] == inputs[nearest] and {shuffled[i] for i in others} == {low, high}


# The diagnosis


@laws
@given(st.floats(0.01, 20), st.floats(0.01, 1), st.floats(0.5, 1.5))
def test_the_sensitivity_is_proportional_to_contrast_and_scales_with_the_periods(sigma, contrast, share):
    found = float(blur_sensitivity(np.array(sigma), contrast))
    assert float(blur_sensitivity(np.array(sigma))) == pytest.approx(0.1 * found / contrast)
    assert found >= 0 == float(blur_sensitivity(np.array(0.0)))
    both_ways = blur_sensitivity(np.array([[sigma], [share * sigma]]), contrast)
    assert both_ways.shape == (2, 1) and float(both_ways[0, 0]) == pytest.approx(found)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("longest", [16.0, 64.0])
def test_the_sensitivity_has_a_closed_form(sigma, longest):
    """With x = 2 pi s f, the integral of (x^2 / s)^2 exp(-x^2) d log x is 1 / (2 s^2) [-(x^2 + 1) exp(-x^2)]."""
    ends = 2 * math.pi * sigma / longest, math.pi * sigma
    primitive = [-(x * x + 1) * math.exp(-x * x) for x in ends]
    expected = 0.1 / sigma * math.sqrt((primitive[1] - primitive[0]) / 2 / math.log(longest / 2))
    assert float(blur_sensitivity(np.array(sigma), longest_px=longest)) == pytest.approx(expected, rel=1e-3)


ranges = st.tuples(st.floats(0.3, 2), st.floats(1.5, 20)).map(lambda pair: (pair[0], pair[0] * pair[1]))
slices = st.lists(st.floats(0.4, 12), min_size=2, max_size=5)


@laws
@given(ranges, slices, st.sampled_from([1.0, 4.0, 16.0, 100.0]), st.sampled_from([0.5, 2.0]), st.randoms())
def test_a_diagnosis_knows_neither_unit_nor_order(depth_range, focus, f_number, c, random):
    found = diagnose(Camera(0.05, f_number, 1.2e-5), focus, *depth_range)
    scaled = diagnose(
        Camera(c * 0.05, f_number, c * 1.2e-5), [c * one for one in focus], *(c * end for end in depth_range)
    )
    np.testing.assert_allclose(scaled.depth_step_m, c * found.depth_step_m, rtol=1e-9)
    np.testing.assert_allclose(scaled.blur_radius_px, found.blur_radius_px, rtol=1e-9, atol=1e-9)
    assert (scaled.verdict, scaled.covered_share) == (found.verdict, pytest.approx(found.covered_share))
    other = diagnose(Camera(0.05, f_number, 1.2e-5), random.sample(focus, len(focus)) + focus[:1], *depth_range)
    np.testing.assert_allclose(other.depth_step_m, found.depth_step_m)
    assert (other.verdict, other.unblurred_share) == (found.verdict, found.unblurred_share)
    for share in (found.unblurred_share, found.saturated_share, found.covered_share):
        assert 0 <= share <= 1
    assert found.depth_m[0] == pytest.approx(depth_range[0]) and found.depth_m[-1] == pytest.approx(depth_range[1])


@laws
@given(ranges, slices, st.sampled_from([2.0, 8.0]))
def test_the_shares_of_a_diagnosis_are_counted_from_its_radii(depth_range, focus, f_number):
    found = diagnose(Camera(0.05, f_number, 1.2e-5), focus, *depth_range)
    near, far = depth_range
    low, high = (min(max(1 / end, 1 / far), 1 / near) for end in (max(focus), min(focus)))
    assert found.covered_share == pytest.approx((high - low) / (1 / near - 1 / far), abs=1e-12)
    radii = np.array([[found.blur_radius_px[s, d] for d in range(64)] for s in range(len(focus))])
    assert found.unblurred_share == np.mean([max(column) < 1 for column in radii.T])
    assert found.saturated_share == np.mean(radii > 3)
    wider = diagnose(Camera(0.05, f_number / 2, 1.2e-5), focus, *depth_range)
    assert wider.unblurred_share <= found.unblurred_share and wider.saturated_share >= found.saturated_share


@settings(laws, max_examples=10)
@given(seeds, st.permutations(range(3)))
def test_texture_is_where_sharpness_changes_over_real_slices(seed, order):
    rand = drawn(seed)
    depth = 1 + rand(2, 24, 25)
    _, stack = both((depth, depth, torch.ones(2, 24, 25, dtype=torch.bool)), rand, slices=3)
    sharp = stack.images[:, :1]
    same = replace(stack, images=sharp.expand_as(stack.images))
    close(textured_share(same), torch.zeros(2))
    half = torch.where(torch.arange(25) < 12, sharp, 0.5)  # the right half is blurred away in every slice but the first
    images = torch.cat([sharp, half, half], 1)
    found = textured_share(replace(stack, images=images))
    assert bool((found > 0.3).all()) and bool((found < 0.9).all())
    close(textured_share(replace(stack, images=images[:, order])), found)
    padded = replace(
        stack, images=torch.cat([sharp, sharp, half], 1), slice_mask=torch.tensor([[True, True, False]] * 2)
    )
    close(textured_share(padded), torch.zeros(2))
