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
FEWEST_FOLDS = 5
"""To which folds are put together; of fewer, Student's t says hardly anything."""


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
    """Half the width of the interval of every value, also where folds that follow one another are alike.

    What a fold adds to a value is, to first order, the mean of the values without a fold minus that without it. As long
    as this is credibly alike between neighbours, as in the frames of a recording (a correlation above 1.64 /
    sqrt(folds), one in twenty by chance), neighbours are put together, two and two, and the margin is that of the
    fewer, larger folds, if it is wider: batch means, with fewer batches until they are independent (Fishman 1978,
    "Grouping observations in digital simulation", Management Science 24).

    Args:
        without: The values without each of the folds, in the order of the samples, `[folds, M]`.
    """
    folds, added = len(without), without.mean(0) - without
    margin, alike = _margin(added, folds), torch.ones(without.shape[1:], dtype=torch.bool)
    while len(added) >= 2 * FEWEST_FOLDS and (alike := alike & _neighbours_are_alike(added)).any():
        added = torch.stack([some.sum(0) for some in added.tensor_split(len(added) // 2)])
        margin = torch.where(alike, torch.maximum(margin, _margin(added, folds)), margin)
    return margin


def _margin(added: Tensor, folds: int) -> Tensor:
    """From what groups of folds add, `[groups, M]`."""
    return _student(len(added)) * (folds - 1) / folds * (len(added) * added.var(0)).sqrt()


def _neighbours_are_alike(added: Tensor) -> Tensor:
    away = added - added.mean(0)
    correlation = (away[1:] * away[:-1]).sum(0) / away.square().sum(0).clamp(min=torch.finfo(added.dtype).tiny)
    return correlation > NormalDist().inv_cdf(0.95) / sqrt(len(added))


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
