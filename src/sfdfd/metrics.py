"""What we report: per-image metrics over valid pixels, averaged over images, and pooled over pixels as an extra.

Functional core: every function returns one value per image. :class:`EvaluationMetrics` is the thin stateful shell.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

__all__ = ["DEPTH_KEYS", "EvaluationMetrics", "depth_metrics", "psnr", "ssim"]

DEPTH_KEYS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3")
ROOTED = ("rmse", "rmse_log")


def _pixel_errors(prediction_m: Tensor, truth_m: Tensor) -> dict[str, Tensor]:
    """Per-pixel terms of which the metrics are (roots of) means."""
    difference = prediction_m - truth_m
    ratio = torch.maximum(prediction_m / truth_m, truth_m / prediction_m)
    log_error = torch.log(prediction_m) - torch.log(truth_m)
    return {
        "abs_rel": difference.abs() / truth_m,
        "sq_rel": difference.square() / truth_m,
        "rmse": difference.square(),
        "rmse_log": log_error.square(),
        "log10": log_error.abs() / torch.log(torch.tensor(10.0)),
        "delta1": (ratio < 1.25).to(difference),
        "delta2": (ratio < 1.25**2).to(difference),
        "delta3": (ratio < 1.25**3).to(difference),
    }


def _sums(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    safe_truth = torch.where(valid, truth_m, 1.0)
    errors = _pixel_errors(torch.where(valid, prediction_m, 1.0).double(), safe_truth.double())
    return {key: torch.where(valid, value, 0.0).sum((1, 2)) for key, value in errors.items()}, valid.sum((1, 2))


def _finish(key: str, mean: Tensor) -> Tensor:
    return mean.sqrt() if key in ROOTED else mean


def depth_metrics(
    prediction_m: Float[Tensor, "b h w"], truth_m: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]
) -> dict[str, Float[Tensor, "b"]]:
    """Depth metrics of each image over its valid pixels (Eigen et al., NeurIPS 2014).

    Args:
        prediction_m, truth_m: (B,H,W) depth in metres, > 0 where valid.
        valid: (B,H,W) pixels that count.

    Returns:
        (B,) float64 each: abs_rel, sq_rel (m), rmse (m), rmse_log (natural logarithm), log10, delta1..3 (shares in
        [0, 1]); NaN for an image without valid pixels.
    """
    sums, count = _sums(prediction_m, truth_m, valid)
    return {key: _finish(key, value / count) for key, value in sums.items()}


def psnr(image: Float[Tensor, "b *rest"], truth: Float[Tensor, "b *rest"]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio of each image in dB, peak 1.0, capped at 100 dB."""
    error = (image.double() - truth.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))


def ssim(image: Float[Tensor, "b c h w"], truth: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    """Structural similarity of each image, 11x11 Gaussian window with sigma 1.5, data range 1 (torchmetrics)."""
    value = structural_similarity_index_measure(image.double(), truth.double(), data_range=1.0, reduction="none")
    return value.reshape(image.shape[0])


class EvaluationMetrics(Metric):
    """Accumulates per-image metrics; :meth:`compute` gives their unweighted means and the pooled depth metrics.

    Images without truth contribute to the stack's metrics alone; a metric that no image has is left out.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("pooled", default=[], dist_reduce_fx="cat")

    KEYS = (
        *(f"depth/{key}" for key in DEPTH_KEYS),
        "aif/psnr",
        "aif/ssim",
        "stack/psnr",
        "stack/ssim",
    )

    def update(
        self,
        depth_m: Tensor,
        aif: Tensor,
        rendered: Tensor,
        stack: Tensor,
        slice_mask: Tensor,
        true_depth_m: Tensor | None = None,
        valid: Tensor | None = None,
        true_aif: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """Add a batch; shapes as in :class:`sfdfd.stack.FocalStack`. Returns one dict per image."""
        batch = depth_m.shape[0]
        row = torch.full((batch, len(self.KEYS)), torch.nan, dtype=torch.float64, device=depth_m.device)
        column = {key: index for index, key in enumerate(self.KEYS)}
        if true_depth_m is not None:
            if valid is None:
                valid = torch.isfinite(true_depth_m) & (true_depth_m > 0)
            sums, count = _sums(depth_m, true_depth_m, valid)
            for key in DEPTH_KEYS:
                row[:, column[f"depth/{key}"]] = _finish(key, sums[key] / count)
            self.pooled.append(torch.stack([*(sums[key] for key in DEPTH_KEYS), count.double()], dim=1))
        if true_aif is not None:
            row[:, column["aif/psnr"]] = psnr(aif, true_aif)
            row[:, column["aif/ssim"]] = ssim(aif, true_aif)
        for index in range(batch):
            real = slice_mask[index]
            row[index, column["stack/psnr"]] = psnr(rendered[index, real][None], stack[index, real][None])[0]
            row[index, column["stack/ssim"]] = ssim(rendered[index, real], stack[index, real]).mean()
        self.rows.append(row)
        return [dict(zip(self.KEYS, values, strict=True)) for values in row.tolist()]

    def compute(self) -> dict[str, float]:
        """Means over images by key, ``pooled/...`` over all pixels, and ``samples``."""
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        result: dict[str, float] = {}
        for index, key in enumerate(self.KEYS):
            known = rows[:, index][~rows[:, index].isnan()]
            if len(known):
                result[key] = float(known.mean())
        if len(self.pooled):
            pooled = torch.cat(self.pooled) if isinstance(self.pooled, list) else self.pooled
            total = pooled.sum(0)
            if total[-1] > 0:
                for index, key in enumerate(DEPTH_KEYS):
                    result[f"pooled/depth/{key}"] = float(_finish(key, total[index] / total[-1]))
        result["samples"] = len(rows)
        return result
