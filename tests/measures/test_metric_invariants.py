"""Laws of metrics and regions, over inputs that Hypothesis draws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.measures.strategies import NAN, both, close, depths, drawn, factors, laws, seeds, turns

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
def test_invalid_pixels_and_pixel_order_do_not_matter(scene, nonsense, seed):
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
def test_padding_slices_and_uncovered_pixels_are_not_measured(seed, nonsense):
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
def test_depth_edges_follow_flips_and_do_not_depend_on_units(seed, turn, c, reach):
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
def test_plain_regions_and_the_border(seed, turn, offset, px, height, width):
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
