"""What is lost without a modality, and what it could tell beyond what the model predicts: `Refit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.fit import Fit, Kind
from awc_balance.calibration.logistic import one_hot
from awc_balance.calibration.parts import Parts
from awc_balance.contributions.intervals import jackknife_margin
from awc_balance.contributions.profits import check_same_shape
from awc_balance.processes import Processes

MOST_SAMPLES = 600
"""At most so many samples are used, at least half as many where there are so many."""

LEAST_SAMPLES = 40
"""Of fewer nothing is said."""

MOST_NUMBERS = 1024
"""Of predictions of more numbers a sample nothing is said."""

SMALL = 0.2
"""Modalities without which the squared error grows by less than this share are left out together as well."""

_FOLDS, _BLOCKS = 5, 20
_PENALTIES = torch.logspace(-3, 3, 13, dtype=torch.float64).tolist()
"""Of the kernel ridge."""

_TINY = torch.finfo(torch.float64).tiny


class Worth(NamedTuple):
    """What modalities are worth on some data, from models refitted there."""

    costs: dict[frozenset[str], Estimate]
    """By how much the squared error grows without some modalities."""
    unused: dict[str, Estimate]
    """Which share of the squared error could be predicted from the features of a modality."""
    added: dict[str, Estimate]
    """By which share the squared error falls with a modality, beside all others."""


class Rows(NamedTuple):
    """Samples."""

    base: Tensor
    """`[samples, outputs]`"""
    parts: Tensor
    """`[K, samples, outputs]`"""
    target: Tensor
    """`[samples, outputs]`"""
    features: tuple[Tensor, ...]
    """By modality, `[samples, width]`."""

    def some(self, rows: slice | Tensor) -> Rows:
        """A few of the samples."""
        features = tuple(x[rows] for x in self.features)
        return Rows(self.base[rows], self.parts[:, rows], self.target[rows], features)


class Refit:
    """What a new head on the features of some modalities would make of them, on data that the model is measured on.

    The prediction from a coalition is what the model predicts from it, with the parts of the modalities scaled at
    best; or what it predicts from all, with the parts that are left out predicted from the features of the coalition,
    if that is better, as where one modality repeats another: a part has no noise, and so is learned from few samples.
    To it comes a correction: the error that is left is predicted from the features of the coalition, pooled to one row
    per sample, by a kernel ridge regression (linear, or Gaussian with the median distance), five times from four
    fifths of the samples for the last fifth; kernel and penalty are those at which single samples are predicted best
    from the others. So the features of one modality can stand in for another as they could in a model that is trained
    without it, and what a model has not learned yet is found. Not found is what such a regression cannot learn from so
    few samples, or what encoders do not let through. For classes errors are those of probabilities.
    """

    def __init__(self) -> None:
        """Without samples."""
        self._rows: list[Rows] = []
        self._seen = 0
        self._every = 1

    def add(self, parts: Parts, target: Tensor, features: Sequence[Tensor], kind: Kind) -> None:
        """Add the samples of a batch; of many, every second, fourth and so on is kept.

        Args:
            parts: Of the predictions.
            target: Of the batch.
            features: By modality, one row per sample.
            kind: Of loss.
        """
        if parts.base[0].numel() > MOST_NUMBERS or (kind == "classes" and parts.base.dim() > 2):
            return
        classes = kind == "classes"
        target = one_hot(target, parts.base.shape[1]) if classes else check_same_shape(parts.base, target)[1]
        base, wanted = (x.double().reshape(len(x), -1).cpu() for x in (parts.base, target))
        rows = Rows(base, parts.parts.reshape(len(parts.parts), *base.shape).cpu(), wanted, tuple(features))
        self._add(rows.some(wanted.sum(1) > 0) if classes else rows)

    def over(self, processes: Processes) -> Refit:
        """The samples of all processes."""
        joint = Refit()
        for some in processes.gathered(self._rows):
            for rows in some:
                joint._add(rows)
        return joint

    def worth(self, fit: Fit, owners: Tensor, modalities: Sequence[str]) -> Worth | None:
        """What modalities are worth; None of too few samples.

        Args:
            fit: All samples.
            owners: The share of every part that belongs to each modality, `[K, M]`.
            modalities: Their names.
        """
        if not self._rows or sum(len(rows.base) for rows in self._rows) < LEAST_SAMPLES:
            return None
        return _Refitted(_joined(self._rows), fit, owners, list(modalities)).worth()

    def _add(self, rows: Rows) -> None:
        first = -self._seen % self._every
        self._seen += len(rows.base)
        self._rows.append(rows.some(slice(first, None, self._every)))
        while sum(len(rows.base) for rows in self._rows) > MOST_SAMPLES:
            self._rows = [_joined(self._rows).some(slice(0, None, 2))]
            self._every *= 2


class _Refitted:
    """Squared errors of samples, from coalitions."""

    def __init__(self, rows: Rows, fit: Fit, owners: Tensor, modalities: list[str]) -> None:
        self._rows, self._fit, self._owners, self._modalities = rows, fit, owners, modalities
        self._distances, self._products = zip(*map(_likeness, rows.features), strict=True)
        self._found: dict[tuple[str, tuple[int, ...]], _Kernel] = {}

    def worth(self) -> Worth:
        whole = self._error(frozenset())
        every = frozenset(self._modalities)
        best = self._squares(whole, every)
        without = {m: self._without(frozenset([m])) for m in self._modalities}
        costs = {frozenset([m]): _grown(squares, best) for m, squares in without.items()}
        for some in [*_subsets([m for m in self._modalities if costs[frozenset([m])][0] < SMALL]), every]:
            if some not in costs:
                costs[some] = _grown(self._without(some), best)
        plain = self._squares(whole, frozenset())
        unused = {m: _fallen(self._squares(whole, frozenset([m])), plain) for m in self._modalities}
        return Worth(costs, unused, {m: _fallen(best, squares) for m, squares in without.items()})

    def _without(self, left_out: frozenset[str]) -> Tensor:
        """Sums of squared errors by block without some modalities, all others doing what they can."""
        others = frozenset(self._modalities) - left_out
        squares = [self._squares(error, others) for error in (self._error(left_out), self._stood_in_for(left_out))]
        return min(squares, key=lambda some: some.sum().item())

    def _error(self, left_out: frozenset[str]) -> Tensor:
        """What is left of the target without some modalities, `[samples, outputs]`."""
        prediction = self._rows.base
        if left_out != frozenset(self._modalities):
            others = torch.tensor([m not in left_out for m in self._modalities])
            kept = self._owners[:, others] * ~self._touched(left_out).unsqueeze(1)
            prediction = prediction + torch.tensordot(kept @ self._factors(kept), self._rows.parts, 1)
        return self._missed(prediction)

    def _stood_in_for(self, left_out: frozenset[str]) -> Tensor:
        """The same where the others' features predict the parts that are left out."""
        scaled = self._factors(self._owners)
        without, lost = (
            torch.tensordot(self._owners @ scaled * touched, self._rows.parts, 1)
            for touched in (~self._touched(left_out), self._touched(left_out))
        )
        kernels = self._kernels([i for i, m in enumerate(self._modalities) if m not in left_out])
        stand_in = torch.empty_like(lost)
        for number in range(_FOLDS):
            stand_in[number::_FOLDS] = _predicted(kernels, lost, number)
        return self._missed(self._rows.base + without + stand_in)

    def _touched(self, left_out: frozenset[str]) -> Tensor:
        """Which parts belong to some modalities, if only among others, `[K]`."""
        out = torch.tensor([m in left_out for m in self._modalities])
        return (self._owners[:, out] > 0).any(1)

    def _factors(self, directions: Tensor) -> Tensor:
        return self._fit.minimum(directions, torch.ones(1, self._fit.folds(), dtype=torch.float64)).factors[0]

    def _missed(self, prediction: Tensor) -> Tensor:
        """What is left of the target."""
        if self._fit.kind == "classes":
            prediction = prediction.softmax(1)
        elif self._fit.kind == "binary":
            prediction = prediction.sigmoid()
        return self._rows.target - prediction

    def _kernels(self, used: list[int]) -> list[_Kernel]:
        """Linear and Gaussian in the features of some modalities, and sums of what is Gaussian in those of each."""
        shapes = [] if not used else ["linear", "joint"] if len(used) == 1 else ["linear", "joint", "sum"]
        return [self._kernel(shape, tuple(used)) for shape in shapes]

    def _kernel(self, shape: str, used: tuple[int, ...]) -> _Kernel:
        if (shape, used) not in self._found:
            of_each = torch.stack([(self._products if shape == "linear" else self._distances)[i] for i in used])
            of_each = torch.exp(-of_each) if shape == "sum" else of_each
            self._found[shape, used] = _Kernel(torch.exp(-of_each.mean(0)) if shape == "joint" else of_each.mean(0))
        return self._found[shape, used]

    def _squares(self, error: Tensor, coalition: frozenset[str]) -> Tensor:
        """Sums of squared errors by block of samples, after the features of a coalition have corrected them."""
        kernels = self._kernels([i for i, m in enumerate(self._modalities) if m in coalition])
        left = torch.cat([_left(kernels, error, number) for number in range(_FOLDS)])
        rows = torch.cat([torch.arange(len(error))[number::_FOLDS] for number in range(_FOLDS)])
        block = rows * _BLOCKS // len(error)
        return torch.zeros(_BLOCKS, dtype=torch.float64).index_add_(0, block, left)


class _Kernel:
    """How alike samples are, `[samples, samples]`, and its eigenvectors without each fold."""

    def __init__(self, values: Tensor) -> None:
        others = [_others(len(values), number) for number in range(_FOLDS)]
        self.parts = [torch.linalg.eigh(values[some][:, some]) for some in others]
        self.across = [values[number::_FOLDS][:, some] for number, some in enumerate(others)]


def _others(samples: int, number: int) -> Tensor:
    """All samples but those of a fold."""
    return torch.arange(samples)[torch.arange(samples) % _FOLDS != number]


def _left(kernels: list[_Kernel], error: Tensor, number: int) -> Tensor:
    """The squared errors of the samples of a fold, after all others have corrected them."""
    return (error[number::_FOLDS] - _predicted(kernels, error, number)).square().sum(1)


def _predicted(kernels: list[_Kernel], values: Tensor, number: int) -> Tensor:
    """The values of the samples of a fold, predicted from those of all others."""
    others = values[_others(len(values), number)]
    mean = others.mean(0)
    around = others - mean
    best, found = around.square().sum().item(), mean  # where no kernel does better
    for kernel in kernels:
        values, vectors = kernel.parts[number]
        turned = vectors.T @ around
        squared = vectors.square()
        for penalty in _PENALTIES:
            shrunk = 1 / (values.clamp(min=0) + penalty)
            weights = vectors @ (shrunk.unsqueeze(1) * turned)
            missed = (weights / (squared @ shrunk).unsqueeze(1)).square().sum().item()
            if missed < best:
                best, found = missed, mean + kernel.across[number] @ weights
    return found


def _subsets(modalities: Sequence[str]) -> Iterator[frozenset[str]]:
    """Of two or more."""
    for size in range(2, len(modalities) + 1):
        yield from map(frozenset, combinations(modalities, size))


def _joined(rows: list[Rows]) -> Rows:
    features = tuple(torch.cat(x) for x in zip(*(some.features for some in rows), strict=True))
    return Rows(
        torch.cat([some.base for some in rows]),
        torch.cat([some.parts for some in rows], 1),
        torch.cat([some.target for some in rows]),
        features,
    )


def _likeness(features: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances over their median, and products over their mean, of standardised features."""
    spread = features.std(0)
    features = torch.where(spread > 0, (features - features.mean(0)) / spread, 0.0)
    distances, products = torch.cdist(features, features).square(), features @ features.T
    apart = distances[distances > 0]
    return distances / (apart.median() if len(apart) else 1.0), products / products.diagonal().mean().clamp(min=_TINY)


def _fallen(squares: Tensor, before: Tensor) -> Estimate:
    """By which share a sum over blocks is smaller than another."""
    value, low, high = _grown(squares, before)
    return Estimate(-value, -high, -low)


def _grown(squares: Tensor, before: Tensor) -> Estimate:
    """By how much a sum over blocks is larger than another, relative to the latter."""
    value, without = (
        x / y.clamp(min=_TINY) - 1
        for x, y in ((squares.sum(), before.sum()), (squares.sum() - squares, before.sum() - before))
    )
    margin = jackknife_margin(without.unsqueeze(1)).item()
    return Estimate(value.item(), value.item() - margin, value.item() + margin)
