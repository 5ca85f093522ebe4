"""Means, variances and covariances of predictions and targets, added up over batches without cancellation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """First and second moments of predictions p and targets t, float64, each in the shape of one output.

    Coalitions may come first: `[coalitions, ...]`. What is the same for all outputs has axes of length 1 for them.
    """

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
    """Moments of one batch, `[batch, ...]`, any dtype. Predictions may be of coalitions, `[coalitions, batch, ...]`."""
    axis = prediction.dim() - target.dim()
    p, t = prediction.double(), target.double()
    mean_p, mean_t = p.mean(axis), t.mean(0)
    p, t = p - mean_p.unsqueeze(axis), t - mean_t
    ones = mean_p.new_ones(mean_p.shape[:axis] + (1,) * mean_t.dim())
    return Moments(
        samples=ones * len(t),
        mean_p=mean_p,
        mean_t=mean_t.expand_as(mean_p),
        scatter_p=p.square().sum(axis),
        scatter_t=t.square().sum(0).expand_as(mean_p),
        scatter_pt=(p * t).sum(axis),
        rounding_p=ones * rounding(prediction),
        rounding_t=ones * rounding(target),
    )


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the samples of both."""
    together = Moments(*(torch.stack(torch.broadcast_tensors(x, y)) for x, y in zip(a, b, strict=True)))
    return pool_moments(together, together.samples.new_ones(2))


def pool_moments(folds: Moments, weights: Tensor) -> Moments:
    """Moments of the samples of several folds, each counted as often as its weight says.

    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", for any number of parts.

    Args:
        folds: With the folds along the first axis.
        weights: One per fold, at least 0, some above it.
    """
    share = folds.samples * weights.reshape(-1, *[1] * (folds.samples.dim() - 1))
    samples = share.sum(0)
    mean_p, mean_t = (share * folds.mean_p).sum(0) / samples, (share * folds.mean_t).sum(0) / samples
    step_p, step_t = folds.mean_p - mean_p, folds.mean_t - mean_t
    between = {"scatter_p": step_p.square(), "scatter_t": step_t.square(), "scatter_pt": step_p * step_t}
    scatter = {
        name: torch.tensordot(weights, getattr(folds, name), 1) + (share * step).sum(0)
        for name, step in between.items()
    }
    return Moments(
        samples=samples,
        mean_p=mean_p,
        mean_t=mean_t,
        rounding_p=folds.rounding_p.amax(0),
        rounding_t=folds.rounding_t.amax(0),
        **scatter,
    )


def correlation(m: Moments) -> Tensor:
    """Pearson correlation of every output; 0 where prediction or target varies no more than its dtype rounds."""
    constant = _constant(m.scatter_p, m.mean_p, m.rounding_p, m.samples)
    constant |= _constant(m.scatter_t, m.mean_t, m.rounding_t, m.samples)
    scale = m.scatter_p.sqrt() * m.scatter_t.sqrt()
    return torch.where(constant, 0.0, m.scatter_pt / torch.where(constant, 1.0, scale)).clamp(-1.0, 1.0)


def rounding(values: Tensor) -> float:
    """The relative rounding error of a tensor's dtype; 0 for integers."""
    return torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0


def _constant(scatter: Tensor, mean: Tensor, rounding: Tensor, samples: Tensor) -> Tensor:
    """Whether the standard deviation is within what rounding alone makes of equal values.

    Equal inputs can leave a matrix product with different last bits, row by row.
    """
    variance = scatter / samples
    return variance <= rounding.square() * (variance + mean.square())
