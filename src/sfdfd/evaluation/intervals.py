"""Means over scenes with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["RESAMPLES", "mean_interval", "paired_interval"]

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over scenes, and the ends of its 95 % percentile bootstrap interval (Efron 1979).

    Scenes are drawn with replacement 10,000 times, with fixed random numbers. The interval always contains the mean.

    Examples:
        >>> mean, low, high = mean_interval([0.1, 0.2, 0.3])
        >>> low < mean < high
        True
    """
    array = np.asarray(values, float)
    mean = float(array.mean())
    drawn = np.random.default_rng(SEED).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.quantile(array[drawn].mean(1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return mean, min(float(low), mean), max(float(high), mean)


def paired_interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and interval of the difference between two methods on the same scenes.

    An interval without 0 means that the difference does not depend on which scenes were drawn.

    Examples:
        >>> paired_interval([0.1, 0.3], [0.1, 0.3])
        (0.0, 0.0, 0.0)
    """
    return mean_interval(np.subtract(values, others).tolist())
