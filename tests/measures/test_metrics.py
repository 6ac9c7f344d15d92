"""Metrics against five-line NumPy twins."""

import numpy as np
import pytest
import torch

from sfdfd.measures.metrics import EvaluationMetrics, depth_metrics, image_metrics, psnr, ssim
from sfdfd.stack import FocalStack, Prediction
from tests.conftest import CAMERA


def twin(prediction, truth, valid):
    p, t = prediction[valid], truth[valid]
    r = np.maximum(p / t, t / p)
    return {
        "abs_rel": np.mean(np.abs(p - t) / t), "sq_rel": np.mean((p - t) ** 2 / t), "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(p) - np.log(t)) ** 2)), "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "delta1": np.mean(r < 1.25), "delta2": np.mean(r < 1.25**2), "delta3": np.mean(r < 1.25**3),
    }  # fmt: skip


def batch(size, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 10, (size, 13, 17))
    prediction = truth * np.exp(0.3 * rng.normal(size=truth.shape))
    valid = rng.random(truth.shape) > np.linspace(0.1, 0.8, size)[:, None, None]
    return prediction, np.where(valid, truth, np.nan), valid


def test_depth_metrics_are_their_numpy_twin_per_image():
    prediction, truth, valid = batch(4, 0)
    measured = depth_metrics(*(torch.from_numpy(x) for x in (prediction, truth, valid)))
    for index in range(4):
        for key, expected in twin(prediction[index], truth[index], valid[index]).items():
            assert float(measured[key][index]) == pytest.approx(expected, rel=1e-9), key


def sample(prediction, truth, valid, generator):
    size, height, width = prediction.shape
    aif, guess = torch.rand(2, size, 3, height, width, generator=generator)
    images, rendered = torch.rand(2, size, 2, 3, height, width, generator=generator)
    stack = FocalStack(
        images=images, focus_distances_m=torch.tensor([[1.0, 2.0]] * size), camera=(CAMERA,) * size,
        near_m=torch.full((size,), 0.5), far_m=torch.full((size,), 10.0), slice_mask=torch.ones(size, 2, dtype=torch.bool),
        name=tuple("abcdefgh"[:size]), depth_m=torch.from_numpy(truth).float(), aif=aif, valid=torch.from_numpy(valid),
    )  # fmt: skip
    depth = torch.from_numpy(prediction).float()
    return Prediction(depth, guess, torch.zeros(size, 2, height, width), rendered), stack


def test_uneven_batches_change_nothing_and_figures_are_means_over_images():
    prediction, truth, valid = batch(5, 1)
    guess, stack = sample(prediction, truth, valid, torch.Generator().manual_seed(0))
    whole, split = EvaluationMetrics(), EvaluationMetrics()
    whole.update(image_metrics(guess, stack))
    for index in range(5):
        one = Prediction(
            *(getattr(guess, key)[index : index + 1] for key in ("depth_m", "aif", "defocus_px", "rendered"))
        )
        split.update(image_metrics(one, stack[index]))
    first, second = whole.compute(), split.compute()
    assert first == pytest.approx(second, rel=1e-6) and first["samples"] == 5
    twins = [
        twin(p.astype(np.float32), t.astype(np.float32), v) for p, t, v in zip(prediction, truth, valid, strict=True)
    ]
    for key in twins[0]:
        assert first[f"depth/{key}"] == pytest.approx(np.mean([one[key] for one in twins]), rel=1e-4), key
        assert first[f"pooled/depth/{key}"] == pytest.approx(twin(prediction, truth, valid)[key], rel=1e-4), key


def test_without_truth_only_the_stack_is_measured():
    guess, stack = sample(*batch(2, 2), torch.Generator().manual_seed(0))
    metrics = EvaluationMetrics()
    metrics.update(image_metrics(guess, stack.without_truth()))
    assert set(metrics.compute()) == {"stack/psnr", "stack/ssim", "samples"}


def test_psnr_and_ssim_of_known_images():
    image = torch.rand(2, 3, 24, 24) * 0.8
    torch.testing.assert_close(psnr(image + 0.1, image), torch.full((2,), 20.0).double(), atol=1e-4, rtol=0)
    assert float(psnr(image, image)[0]) == pytest.approx(100)
    torch.testing.assert_close(ssim(image, image), torch.ones(2), atol=1e-5, rtol=0)
