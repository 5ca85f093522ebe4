"""Means, variances and covariances of predictions and targets, added up over batches without cancellation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """First and second moments of predictions p and targets t, float64, each in the shape of one output."""

    samples: Tensor
    mean_p: Tensor
    mean_t: Tensor
    scatter_p: Tensor
    """Sum of squared deviations from the mean."""
    scatter_t: Tensor
    scatter_pt: Tensor
    """Sum of products of the deviations."""
    rounding_p: Tensor
    """Relative rounding error of the dtype."""
    rounding_t: Tensor


def moments(prediction: Tensor, target: Tensor) -> Moments:
    """Moments of one batch, `[batch, ...]`, any dtype."""
    p, t = prediction.double(), target.double()
    mean_p, mean_t = p.mean(0), t.mean(0)
    p, t = p - mean_p, t - mean_t
    return Moments(
        samples=torch.full_like(mean_p, len(p)),
        mean_p=mean_p,
        mean_t=mean_t,
        scatter_p=p.square().sum(0),
        scatter_t=t.square().sum(0),
        scatter_pt=(p * t).sum(0),
        rounding_p=torch.full_like(mean_p, _rounding(prediction)),
        rounding_t=torch.full_like(mean_t, _rounding(target)),
    )


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the samples of both. Chan, Golub and LeVeque (1983), "Algorithms for computing the variance"."""
    samples = a.samples + b.samples
    share = b.samples / samples
    step_p, step_t = b.mean_p - a.mean_p, b.mean_t - a.mean_t
    between = a.samples * share
    return Moments(
        samples=samples,
        mean_p=a.mean_p + share * step_p,
        mean_t=a.mean_t + share * step_t,
        scatter_p=a.scatter_p + b.scatter_p + between * step_p.square(),
        scatter_t=a.scatter_t + b.scatter_t + between * step_t.square(),
        scatter_pt=a.scatter_pt + b.scatter_pt + between * step_p * step_t,
        rounding_p=torch.maximum(a.rounding_p, b.rounding_p),
        rounding_t=torch.maximum(a.rounding_t, b.rounding_t),
    )


def correlation(m: Moments) -> Tensor:
    """Pearson correlation of every output; 0 where prediction or target varies no more than its dtype rounds."""
    constant = _constant(m.scatter_p, m.mean_p, m.rounding_p, m.samples)
    constant |= _constant(m.scatter_t, m.mean_t, m.rounding_t, m.samples)
    scale = m.scatter_p.sqrt() * m.scatter_t.sqrt()
    return torch.where(constant, 0.0, m.scatter_pt / torch.where(constant, 1.0, scale)).clamp(-1.0, 1.0)


def _constant(scatter: Tensor, mean: Tensor, rounding: Tensor, samples: Tensor) -> Tensor:
    """Whether the standard deviation is within what rounding alone makes of equal values.

    Equal inputs can leave a matrix product with different last bits, row by row.
    """
    variance = scatter / samples
    return variance <= rounding.square() * (variance + mean.square())


def _rounding(values: Tensor) -> float:
    return torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
