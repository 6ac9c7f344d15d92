"""Metrics: per image over valid pixels, averaged over images, and pooled over pixels as an extra.

Every function returns one value per image; :class:`EvaluationMetrics` accumulates them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from sfdfd.measures.psnr import psnr
from sfdfd.measures.regions import REGIONS, regions
from sfdfd.stack import FocalStack, Prediction

__all__ = ["DEPTH_KEYS", "KEYS", "EvaluationMetrics", "ImageMetrics", "depth_metrics", "image_metrics", "psnr", "ssim"]

DEPTH_KEYS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3")
ROOTED = ("rmse", "rmse_log")
"""Metrics that are the root of a mean."""


def _pixel_errors(prediction_m: Tensor, truth_m: Tensor) -> dict[str, Tensor]:
    """Return the terms per pixel of which the metrics are (roots of) means."""
    difference = prediction_m - truth_m
    ratio = torch.maximum(prediction_m / truth_m, truth_m / prediction_m)
    log_error = torch.log(prediction_m) - torch.log(truth_m)
    return {
        "abs_rel": difference.abs() / truth_m,
        "sq_rel": difference.square() / truth_m,
        "rmse": difference.square(),
        "rmse_log": log_error.square(),
        "log10": log_error.abs() / math.log(10),
        "delta1": (ratio < 1.25).to(difference),
        "delta2": (ratio < 1.25**2).to(difference),
        "delta3": (ratio < 1.25**3).to(difference),
    }


def _sums(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    prediction_m, truth_m, valid = prediction_m.cpu(), truth_m.cpu(), valid.cpu()  # float64, which not every device has
    safe_truth = torch.where(valid, truth_m, 1.0)
    errors = _pixel_errors(torch.where(valid, prediction_m, 1.0).double(), safe_truth.double())
    return {key: torch.where(valid, value, 0.0).sum((1, 2)) for key, value in errors.items()}, valid.sum((1, 2))


def _finish(key: str, mean: Tensor) -> Tensor:
    return mean.sqrt() if key in ROOTED else mean


def depth_metrics(
    prediction_m: Float[Tensor, "b h w"], truth_m: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]
) -> dict[str, Float[Tensor, "b"]]:
    """Return the depth metrics of each image over its valid pixels (Eigen et al., NeurIPS 2014).

    Args:
        prediction_m, truth_m: (B,H,W) depth in metres, > 0 where valid.
        valid: (B,H,W) pixels that count.

    Returns:
        (B,) float64 each: abs_rel, sq_rel (m), rmse (m), rmse_log (natural logarithm), log10, delta1..3 (shares in
        [0, 1]); NaN for an image without valid pixels.

    Examples:
        >>> truth = torch.full((1, 2, 2), 2.0)
        >>> metrics = depth_metrics(1.1 * truth, truth, torch.ones(1, 2, 2, dtype=torch.bool))
        >>> round(metrics["abs_rel"].item(), 3), round(metrics["rmse"].item(), 3), metrics["delta1"].item()
        (0.1, 0.2, 1.0)
    """
    sums, count = _sums(prediction_m, truth_m, valid)
    return {key: _finish(key, value / count) for key, value in sums.items()}


def ssim(image: Float[Tensor, "b c h w"], truth: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    """Return the structural similarity of each image, 11x11 Gaussian window with sigma 1.5, data range 1 (torchmetrics).

    Examples:
        >>> image = torch.rand(1, 3, 16, 16)
        >>> round(ssim(image, image).item(), 3)
        1.0
    """
    value = structural_similarity_index_measure(image.float(), truth.float(), data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(image.shape[0])


REGION_KEYS = tuple(f"depth/abs_rel_{region}" for region in REGIONS)
KEYS = (*(f"depth/{key}" for key in DEPTH_KEYS), *REGION_KEYS, "aif/psnr", "aif/ssim", "stack/psnr", "stack/ssim")


class ImageMetrics(NamedTuple):
    """Metrics of a batch: ``rows`` (B, len(KEYS)), NaN without truth, and for pooling ``sums`` (B, len(DEPTH_KEYS) + 1)."""

    rows: Tensor
    sums: Tensor

    def as_dicts(self) -> list[dict[str, float]]:
        """Return one dict per image."""
        return [dict(zip(KEYS, values, strict=True)) for values in self.rows.tolist()]


def image_metrics(prediction: Prediction, stack: FocalStack) -> ImageMetrics:
    """Return every metric of every image of a batch for which the stack has truth.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.networks import classical_network
        >>> from sfdfd.networks.interface import predict_stack
        >>> from sfdfd.optics import DefocusRenderer
        >>> prediction = predict_stack(classical_network, DefocusRenderer(sigma_scale=0.5), stack)
        >>> row = image_metrics(prediction, stack).as_dicts()[0]
        >>> 0 < row["depth/abs_rel"] < 1 and row["stack/psnr"] > 20
        True
    """
    stack, prediction = stack.in_full_precision(), prediction.in_full_precision()
    batch = len(stack)
    rows = torch.full((batch, len(KEYS)), torch.nan, dtype=torch.float64)
    sums = torch.zeros(batch, len(DEPTH_KEYS) + 1, dtype=torch.float64)
    column = {key: index for index, key in enumerate(KEYS)}
    if stack.depth_m is not None:
        assert stack.valid is not None  # it goes with the depth
        totals, count = _sums(prediction.depth_m, stack.depth_m, stack.valid)
        for index, key in enumerate(DEPTH_KEYS):
            rows[:, column[f"depth/{key}"]] = _finish(key, totals[key] / count)
            sums[:, index] = totals[key]
        sums[:, -1] = count
        for region, mask in regions(stack.depth_m, stack.aif).items():
            inside = _sums(prediction.depth_m, stack.depth_m, stack.valid & mask)
            rows[:, column[f"depth/abs_rel_{region}"]] = inside[0]["abs_rel"] / inside[1]
    if stack.aif is not None:
        rows[:, column["aif/psnr"]] = psnr(prediction.aif, stack.aif)
        rows[:, column["aif/ssim"]] = ssim(prediction.aif, stack.aif).cpu().double()
    if prediction.rendered is not None:
        weight = stack.coverage()
        for index in range(batch):
            real = stack.slice_mask[index]
            rendered, images = prediction.rendered[index, real], stack.images[index, real]
            shown = weight[index, real][:, None].expand_as(images)
            rows[index, column["stack/psnr"]] = psnr(rendered[None], images[None], shown[None])[0]
            seen = torch.where(shown > 0.5, rendered, images)  # uncovered pixels are no difference
            rows[index, column["stack/ssim"]] = ssim(seen, images).mean().cpu().double()
    return ImageMetrics(rows, sums)


class EvaluationMetrics(Metric):
    """Accumulate :func:`image_metrics`; compute their unweighted means over images and the pooled depth metrics.

    Metrics that no image has are left out. ``options`` are those of :class:`torchmetrics.Metric`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.networks import classical_network
        >>> from sfdfd.networks.interface import predict_stack
        >>> from sfdfd.optics import DefocusRenderer
        >>> metrics = EvaluationMetrics()
        >>> metrics.update(image_metrics(predict_stack(classical_network, DefocusRenderer(sigma_scale=0.5), stack), stack))
        >>> metrics.compute()["samples"]
        1
    """

    full_state_update = False
    rows: list[Tensor]
    sums: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("sums", default=[], dist_reduce_fx="cat")

    def update(self, measured: ImageMetrics) -> None:
        """Add a batch."""
        self.rows.append(measured.rows)
        self.sums.append(measured.sums)

    def compute(self) -> dict[str, float]:
        """Return means over images by key, ``pooled/...`` over all valid pixels, and ``samples``."""
        rows, sums = (torch.cat(state) if isinstance(state, list) else state for state in (self.rows, self.sums))
        result: dict[str, float] = {}
        for index, key in enumerate(KEYS):
            values = rows[:, index][~rows[:, index].isnan()]
            if len(values):
                result[key] = float(values.mean())
        total = sums.sum(0)
        if total[-1] > 0:
            for index, key in enumerate(DEPTH_KEYS):
                result[f"pooled/depth/{key}"] = float(_finish(key, total[index] / total[-1]))
        result["samples"] = len(rows)
        return result
