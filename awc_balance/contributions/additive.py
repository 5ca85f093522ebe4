"""Pearson profits of all coalitions from a few predictions, where every modality adds its own part to the prediction.

With an additive fusion and head, f(S) = f({}) + sum over m in S of P_m, where P_m = f({m}) - f({}). The moments of f(S)
and the target are then sums of the covariances of P_m, f({}) and the target, which add up over batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from awc_balance.contributions.moments import Moments, correlation, rounding
from awc_balance.contributions.profits import Accumulation, Statistics

LEAST_MODALITIES = 4
"""With fewer, there are no more coalitions than are run to check the additivity."""

CHECKS = 2
"""Coalitions drawn in every batch to check the additivity, beside the grand one."""

FIRST_CHECKS = 16
"""The same in the first batch."""

ROUNDINGS = 16
"""How many rounding errors, of the largest prediction of an output, a sum of parts may be away from the prediction."""

MOST = 1e-4
"""The same as a share: in half precision rounding hides too much to tell whether a head is additive."""

_COALITIONS_AT_ONCE = 512
"""So many fit into a processor's cache with their outputs, which is twice as fast."""


class Covariances(NamedTuple):
    """Moments of k = M + 2 variables, float64: f({}), the part of each modality, and the target."""

    samples: Tensor
    """`[]`"""
    mean: Tensor
    """`[k, ...]`"""
    scatter: Tensor
    """Sums of products of deviations from the mean, `[k, k, ...]`."""
    rounding_p: Tensor
    rounding_t: Tensor


def rows_to_run(modalities: int, number: int) -> Tensor:
    """The coalitions that are run in a batch, `[M + 2 + checks, M]`: none, every modality alone, all, and drawn ones.

    Args:
        modalities: M.
        number: Of the batch; others are drawn for the next one.
    """
    generator = torch.Generator().manual_seed(number)
    checks = CHECKS if number else FIRST_CHECKS
    drawn = torch.rand(checks, modalities, generator=generator).argsort(1)
    sizes = torch.randint(2, modalities, (checks, 1), generator=generator)
    none, everyone = torch.zeros(1, modalities, dtype=torch.bool), torch.ones(1, modalities, dtype=torch.bool)
    return torch.cat([none, torch.eye(modalities, dtype=torch.bool), everyone, drawn < sizes])


def covariances(rows: Tensor, predictions: Tensor, target: Tensor) -> Covariances | None:
    """The covariances of one batch; None if predictions are not sums of parts, to the rounding of their dtype.

    Args:
        rows: From `rows_to_run`.
        predictions: `[len(rows), batch, ...]`.
        target: `[batch, ...]`.
    """
    modalities = rows.shape[1]
    p = predictions.double()
    base, parts = p[0], p[1 : modalities + 1] - p[0]
    checked = slice(modalities + 1, None)
    error = p[checked] - base - torch.tensordot(rows[checked].to(p), parts, 1)
    largest = p.abs().amax((0, 1))
    tolerance = min(ROUNDINGS * rounding(predictions), MOST)
    if tolerance == MOST or not (error.abs().amax((0, 1)) <= tolerance * largest).all():
        return None
    variables = torch.cat([base.unsqueeze(0), parts, target.double().unsqueeze(0)])
    mean = variables.mean(1)
    deviations = (variables - mean.unsqueeze(1)).flatten(2).permute(2, 0, 1)
    scatter = (deviations @ deviations.mT).permute(1, 2, 0)
    return Covariances(
        samples=p.new_tensor(p.shape[1]),
        mean=mean,
        scatter=scatter.reshape(*scatter.shape[:2], *mean.shape[1:]),
        rounding_p=p.new_tensor(rounding(predictions)),
        rounding_t=p.new_tensor(rounding(target)),
    )


def pool_covariances(folds: Covariances, weights: Tensor) -> Covariances:
    """Covariances of the samples of several folds, as `pool_moments`."""
    share = folds.samples * weights
    samples = share.sum()
    mean = torch.tensordot(share, folds.mean, 1) / samples
    step = folds.mean - mean
    between = torch.einsum("f,fi...,fj...->ij...", share, step, step)
    return Covariances(
        samples=samples,
        mean=mean,
        scatter=torch.tensordot(weights, folds.scatter, 1) + between,
        rounding_p=folds.rounding_p.amax(),
        rounding_t=folds.rounding_t.amax(),
    )


def coalition_moments(c: Covariances, members: Tensor) -> Moments:
    """The moments of the predictions from coalitions, `[coalitions, ...]`, with members `[coalitions, M]`."""
    rows = torch.cat([members.new_ones(len(members), 1), members], 1).to(c.mean)
    k, outputs = c.mean.shape[0] - 1, c.mean.shape[1:]
    ones = c.mean.new_ones(len(rows), *[1] * len(outputs))
    return Moments(
        samples=ones * c.samples,
        mean_p=torch.tensordot(rows, c.mean[:k], 1),
        mean_t=c.mean[k].expand(len(rows), *outputs),
        scatter_p=_quadratic(rows, c.scatter[:k, :k]),
        scatter_t=c.scatter[k, k].expand(len(rows), *outputs),
        scatter_pt=torch.tensordot(rows, c.scatter[:k, k], 1),
        rounding_p=ones * c.rounding_p,
        rounding_t=ones * c.rounding_t,
    )


def _quadratic(rows: Tensor, matrix: Tensor) -> Tensor:
    """x^T A x of every row x, never below 0, with matrices A `[k, k, ...]`."""
    weighted: Tensor = torch.tensordot(rows, matrix, 1)
    weighted *= rows.reshape(*rows.shape, *[1] * (weighted.dim() - 2))
    return weighted.sum(1).clamp(min=0.0)


class AdditivePearson(Accumulation):
    """Correlations of all coalitions from `Covariances`.

    Args:
        members: Of the coalitions, `[coalitions, M]`.
    """

    def __init__(self, members: Tensor) -> None:
        """See the class."""
        self._members = members

    def merge(self, first: Statistics, second: Statistics) -> Statistics:
        """Covariances of the samples of both."""
        both = tuple(map(torch.stack, zip(first, second, strict=True)))
        return self.pool(both, first[0].new_ones(2))

    def pool(self, folds: Statistics, weights: Tensor) -> Statistics:
        """Covariances of the samples of several folds."""
        return pool_covariances(Covariances(*folds), weights)

    def value(self, statistics: Statistics) -> Tensor:
        """Correlations, `[coalitions, ...]`."""
        return torch.cat([correlation(some) for some in self._moments(statistics)])

    def shape(self, statistics: Statistics) -> tuple[int, ...]:
        """The shape of one output."""
        return tuple(Covariances(*statistics).mean.shape[1:])

    def moments(self, statistics: Statistics) -> Moments:
        """What `Pearson` would have measured of every coalition."""
        return Moments(*map(torch.cat, zip(*self._moments(statistics), strict=True)))

    def _moments(self, statistics: Statistics) -> Iterator[Moments]:
        c = Covariances(*statistics)
        for some in self._members.to(c.mean.device).split(_COALITIONS_AT_ONCE):
            yield coalition_moments(c, some)
