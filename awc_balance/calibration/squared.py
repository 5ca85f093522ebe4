"""Factors of the parts of predictions that make the squared error smallest: `SquaredFit`."""

from __future__ import annotations

from functools import reduce
from typing import TypeAlias

import torch
from torch import Tensor

from awc_balance.calibration.fit import FOLDS, Fit, Minimum, newton_step, saved
from awc_balance.calibration.parts import Parts
from awc_balance.contributions.profits import check_same_shape
from awc_balance.processes import Processes

_Fold: TypeAlias = tuple[Tensor, Tensor, Tensor]


class SquaredFit(Fit):
    """Squared error with a free constant in every output, so that only what varies between samples counts.

    A fold is its number of samples, the means of parts and errors by output, and their scatter matrix summed over
    outputs; the parts come first, the error of the prediction last.
    """

    def __init__(self) -> None:
        """Without samples."""
        self.kind = "squared"
        self._folds: list[_Fold] = []
        self._size = 0

    def add(self, parts: Parts, target: Tensor) -> None:
        """Add the samples of a batch, `[batch, ...]`.

        Raises:
            ValueError: If the target has another shape than the prediction.
        """
        error = torch.sub(*check_same_shape(parts.whole, target))
        values = torch.cat([parts.parts, error.unsqueeze(0)]).flatten(2 if error.dim() > 1 else 1)
        values = values.reshape(len(values), len(error), -1)
        if not self._size:
            self._size = -(-len(error) // FOLDS)
        self._folds += [_scatter(some) for some in values.split(self._size, 1)]
        while len(self._folds) > 2 * FOLDS:  # neighbours are put together
            self._folds = [reduce(_merged, self._folds[i : i + 2]) for i in range(0, len(self._folds), 2)]
            self._size *= 2

    def folds(self) -> int:
        """How many there are."""
        return len(self._folds)

    def minimum(self, directions: Tensor, weights: Tensor) -> Minimum:
        """In closed form; the loss is the squared error summed over outputs, mean over samples."""
        samples, scatter = self._pooled(weights)
        curvature, slope, rest = scatter[:, :-1, :-1], scatter[:, :-1, -1], scatter[:, -1, -1]
        ones = torch.ones(directions.shape[1], dtype=torch.float64)
        away = directions @ ones - 1
        step = newton_step(directions.T @ curvature @ directions, (curvature @ away + slope) @ directions)
        moved = (ones - step) @ directions.T - 1
        loss = rest + 2 * (moved * slope).sum(1) + torch.einsum("wm,wmk,wk->w", moved, curvature, moved)
        return Minimum(ones - step, loss / samples)

    def sizes(self, directions: Tensor) -> Tensor:
        """The variance of the parts along every direction, summed over outputs."""
        samples, scatter = self._pooled(torch.ones(1, self.folds(), dtype=torch.float64))
        return (directions.T @ scatter[0, :-1, :-1] @ directions).diagonal() / samples

    def explained(self, weights: Tensor) -> Tensor:
        """Which share of the variance of the target around what is predicted from nothing, summed over outputs."""
        scatter = self._pooled(weights)[1]
        signs = torch.ones(scatter.shape[1], dtype=torch.float64)
        signs[-1] = -1  # the target is the prediction without its error
        return saved(scatter[:, -1, -1], signs @ scatter @ signs)

    def over(self, processes: Processes) -> SquaredFit:
        """The folds of all processes, one after the other."""
        joint = SquaredFit()
        joint._folds = [fold for folds in processes.gathered(self._folds) for fold in folds]
        return joint

    def _pooled(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The number of samples `[W]` and the scatter `[W, M + 1, M + 1]` of all folds, as they are counted."""
        counts, means, scatters = (torch.stack(x) for x in zip(*self._folds, strict=True))
        away = means - (counts.view(-1, 1, 1) * means).sum(0) / counts.sum()
        products = torch.einsum("fkd,gld->fgkl", away, away)
        share = counts * weights
        samples = share.sum(1)
        scatter = torch.einsum("wf,fkl->wkl", weights, scatters)
        scatter += torch.einsum("wf,ffkl->wkl", share, products)
        scatter -= torch.einsum("wf,wg,fgkl->wkl", share, share, products) / samples.view(-1, 1, 1)
        return samples, scatter


def _scatter(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of samples, means and scatter of values `[k, samples, outputs]`, on the CPU."""
    mean = values.mean(1)
    away = (values - mean.unsqueeze(1)).flatten(1)
    return torch.tensor(values.shape[1], dtype=torch.float64), mean.cpu(), (away @ away.T).cpu()


def _merged(first: _Fold, second: _Fold) -> _Fold:
    """The same of the samples of both; Chan, Golub and LeVeque (1983), as in `contributions.moments`."""
    (n, mean_n, scatter_n), (m, mean_m, scatter_m) = first, second
    away = mean_m - mean_n
    return n + m, mean_n + m / (n + m) * away, scatter_n + scatter_m + n * m / (n + m) * away @ away.T
