"""95 % intervals over the data, from the statistics of folds of the batches, without running the model again."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Interval: TypeAlias = Literal["jackknife", "bootstrap"]
Estimate: TypeAlias = Callable[[Tensor], Tensor]
"""From a weight per fold, float64, to the values `[M]` of the data with every fold counted that often."""

REPLICATES = 1000


def jackknife(estimate: Estimate, folds: int) -> tuple[Tensor, Tensor]:
    """From the values without each of the folds in turn.

    Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 11, with Student's t for few folds.

    Args:
        estimate: Values by the weights of the folds.
        folds: How many there are, at least 2.

    Returns:
        The lower and the upper ends, `[M]`.
    """
    ones = torch.ones(folds, dtype=torch.float64)
    values = estimate(ones)
    without = torch.stack([estimate(ones - one) for one in torch.eye(folds, dtype=torch.float64)])
    margin = jackknife_margin(without)
    return values - margin, values + margin


def jackknife_margin(without: Tensor) -> Tensor:
    """Half the width of the interval of every value, `[M]`, from the values without each of the folds, `[folds, M]`."""
    folds = len(without)
    return _student(folds) * ((folds - 1) * without.var(0, correction=0)).sqrt()


def bootstrap(estimate: Estimate, folds: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """From the values of folds drawn with replacement: percentiles, expanded for few folds.

    Hesterberg (2015), "What teachers should know about the bootstrap", The American Statistician 69: percentiles of
    few independent parts are too narrow by sqrt((n-1)/n) and by the normal quantile in place of Student's.

    Args:
        estimate: Values by the weights of the folds.
        folds: How many there are, at least 2.
        seed: Of the draw, which leaves the global random state alone.

    Returns:
        The lower and the upper ends, `[M]`.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(folds, (REPLICATES, folds), generator=generator)
    weights = torch.zeros(REPLICATES, folds, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(REPLICATES, folds, dtype=torch.float64)
    )
    values = torch.stack([estimate(row) for row in weights])
    tail = NormalDist().cdf(-sqrt(folds / (folds - 1)) * _student(folds))
    low, high = values.quantile(values.new_tensor([tail, 1 - tail]), 0)
    return low, high


def widened(value: Tensor, end: Tensor, error: Tensor) -> Tensor:
    """An end of an interval moved away from the value by an independent standard error."""
    margin = torch.hypot(end - value, NormalDist().inv_cdf(0.975) * error)
    return torch.where(end < value, value - margin, value + margin)


def _student(folds: int) -> float:
    from scipy.special import stdtrit  # of scikit-learn; here, because its import takes longer than the library's own

    return float(stdtrit(folds - 1, 0.975))
