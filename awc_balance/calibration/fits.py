"""Factors of the parts of predictions that make the loss smallest, from samples dealt to folds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from awc_balance.calibration.parts import Parts
from awc_balance.contributions.profits import check_classes, check_same_shape
from awc_balance.processes import Processes

FOLDS = 20
"""At least so many folds where there are so many samples; no more than twice as many."""

RIDGE = 1e-4
"""Of the mean curvature, added to every curvature: parts a hundred times smaller than the others keep the factor 1,
and what two parts cannot be told apart by is left alone."""

_STEPS, _LARGEST_STEP, _CLOSE = 50, 0.5, 1e-7

IGNORED = -100
"""Targets of this class number are left out, as `torch.nn.functional.cross_entropy` does."""

_ROUNDED = 1e-12
"""What is left of a sum of this size by rounding alone is no more than this share."""

_TINY = torch.finfo(torch.float64).tiny


Kind: TypeAlias = Literal["squared", "classes", "binary"]
_Fold: TypeAlias = tuple[Tensor, Tensor, Tensor]


class Minimum(NamedTuple):
    """Where the loss is smallest along some directions, for every weighting of the folds."""

    factors: Tensor
    """Coordinates by direction, `[W, k]`."""
    loss: Tensor
    """`[W]`."""


class Fit(ABC):
    """Samples with the parts of their predictions, and the loss as a function of the parts' factors.

    The loss is that of base + sum_k g_k q_k, with a factor g_k for every part q_k, and 1 for all of them in the model
    as it is.
    """

    kind: Kind

    @abstractmethod
    def add(self, parts: Parts, target: Tensor) -> None:
        """Add the samples of a batch."""

    @abstractmethod
    def folds(self) -> int:
        """How many there are; each holds samples that follow one another."""

    @abstractmethod
    def minimum(self, directions: Tensor, weights: Tensor) -> Minimum:
        """The smallest loss over g = A x.

        Args:
            directions: A, `[K, k]`, float64.
            weights: How often each fold is counted, `[W, folds]`, float64.
        """

    @abstractmethod
    def sizes(self, directions: Tensor) -> Tensor:
        """How much the loss changes along each of some directions `[K, k]`: its second derivative at 1, `[k]`."""

    @abstractmethod
    def explained(self, weights: Tensor) -> Tensor:
        """By which share the loss of the prediction as it is lies below that of the best constant, `[W]`.

        Args:
            weights: As for `minimum`.
        """

    @abstractmethod
    def over(self, processes: Processes) -> Fit:
        """The same with the samples of all processes."""


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
        step = _solve(directions.T @ curvature @ directions, (curvature @ away + slope) @ directions)
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
        return _saved(scatter[:, -1, -1], signs @ scatter @ signs)

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


class _Expansion(NamedTuple):
    """The loss around its minimum along some directions, by fold; sums over samples."""

    factors: Tensor
    samples: Tensor
    losses: Tensor
    slopes: Tensor
    curvatures: Tensor


class LogisticFit(Fit):
    """Cross-entropy of logits: of classes, or of yes-or-no outputs. All samples are kept.

    Args:
        classes: Whether outputs are a choice among classes, `[batch, classes, ...]`; else each is a yes or no.
    """

    def __init__(self, *, classes: bool) -> None:
        """Without samples."""
        self.kind = "classes" if classes else "binary"
        self._classes = classes
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._expansions: dict[tuple[float, ...], _Expansion] = {}

    def add(self, parts: Parts, target: Tensor) -> None:
        """Add the samples of a batch.

        Raises:
            ValueError: If prediction and target do not fit.
        """
        if self._classes:
            check_classes(parts.whole, target)
            wanted = one_hot(target, parts.base.shape[1])
            rows = parts.base.movedim(1, -1), wanted.movedim(1, -1), parts.parts.movedim(2, -1)
        else:
            rows = (*check_same_shape(parts.base, target), parts.parts)
        base, wanted = (x.double().reshape(-1, x.shape[-1] if self._classes else 1).cpu() for x in rows[:2])
        each = rows[2].reshape(-1, *base.shape).cpu()
        if self._classes:
            counted = wanted.sum(1) > 0
            base, wanted, each = base[counted], wanted[counted], each[:, counted]
        self._expansions.clear()
        self._batches.append((base, wanted, each))

    def folds(self) -> int:
        """How many there are.

        Raises:
            ValueError: If there are no samples, because all targets are to be ignored.
        """
        samples = sum(len(base) for base, _, _ in self._batches)
        if not samples:
            raise ValueError(
                f"Some targets should be class numbers. Got {IGNORED}, to be ignored, for every sample. Measure on "
                "data with known classes."
            )
        return min(FOLDS, samples)

    def minimum(self, directions: Tensor, weights: Tensor) -> Minimum:
        """By Newton's method for all samples; for other weights by one step more from there."""
        around = self._expansion(directions)
        total = weights @ around.samples
        slope = weights @ around.slopes / total.unsqueeze(1)
        curvature = torch.tensordot(weights, around.curvatures, 1) / total.view(-1, 1, 1)
        step = _solve(curvature, slope)
        loss = weights @ around.losses / total - (step * slope).sum(1) / 2
        return Minimum(around.factors - step, loss)

    def sizes(self, directions: Tensor) -> Tensor:
        """The variance of the logits along every direction, as probable as the model takes each outcome to be."""
        base, wanted, parts = self._samples()
        counted = torch.full((len(base),), 1 / len(base), dtype=torch.float64)
        along = torch.einsum("mk,mnc->knc", directions, parts)
        return self._derivatives(base + parts.sum(0), wanted, along, counted)[1].diagonal()

    def explained(self, weights: Tensor) -> Tensor:
        """Which share of the entropy of the outcomes."""
        base, wanted, parts = self._samples()
        members = self._members(len(base))
        losses = weights @ (members @ self._loss(base + parts.sum(0), wanted))
        counts = weights @ members.sum(1)
        often = (weights @ (members @ wanted)) / counts.unsqueeze(1)
        entropy = torch.special.entr(often).sum(1)
        if not self._classes:
            entropy = entropy + torch.special.entr(1 - often).sum(1)
        return _saved(losses, counts * entropy)

    def over(self, processes: Processes) -> LogisticFit:
        """The samples of all processes, one after the other."""
        joint = LogisticFit(classes=self._classes)
        joint._batches = [batch for batches in processes.gathered(self._batches) for batch in batches]
        return joint

    def _expansion(self, directions: Tensor) -> _Expansion:
        """Where the loss of all samples is smallest, and how that of every fold varies around it."""
        key = tuple(directions.flatten().tolist())
        if key not in self._expansions:
            base, wanted, parts = self._samples()
            parts = torch.einsum("mk,mnc->knc", directions, parts)
            factors = self._newton(base, wanted, parts)
            logits = base + torch.tensordot(factors, parts, 1)
            members = self._members(len(base))
            slopes, curvatures = zip(*(self._derivatives(logits, wanted, parts, one) for one in members), strict=True)
            self._expansions[key] = _Expansion(
                factors,
                samples=members.sum(1),
                losses=members @ self._loss(logits, wanted),
                slopes=torch.stack(slopes),
                curvatures=torch.stack(curvatures),
            )
        return self._expansions[key]

    def _newton(self, base: Tensor, wanted: Tensor, parts: Tensor) -> Tensor:
        """The best factors of parts `[k, samples, outputs]`, in steps that are not too long."""
        alike = torch.full((len(base),), 1 / len(base), dtype=torch.float64)
        factors = torch.ones(len(parts), dtype=torch.float64)
        for _ in range(_STEPS):
            logits = base + torch.tensordot(factors, parts, 1)
            slope, curvature = self._derivatives(logits, wanted, parts, alike)
            step = _solve(curvature.unsqueeze(0), slope.unsqueeze(0)).squeeze(0)
            longest = step.abs().amax().item()
            factors = factors - step * min(1.0, _LARGEST_STEP / max(longest, _CLOSE))
            if longest < _CLOSE:
                break
        return factors

    def _members(self, samples: int) -> Tensor:
        """Which samples a fold holds, 0 or 1, `[folds, samples]`."""
        fold = torch.arange(samples) * self.folds() // samples
        return F.one_hot(fold, self.folds()).double().T

    def _samples(self) -> tuple[Tensor, Tensor, Tensor]:
        base, wanted, parts = zip(*self._batches, strict=True)
        return torch.cat(base), torch.cat(wanted), torch.cat(parts, 1)

    def _derivatives(self, logits: Tensor, wanted: Tensor, parts: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient `[k]` and curvature `[k, k]` of the loss by the factors, summed over samples as they are counted."""
        expected = logits.softmax(1) if self._classes else logits.sigmoid()
        slope = torch.einsum("n,knc,nc->k", counted, parts, expected - wanted)
        spread = expected if self._classes else expected * (1 - expected)
        if self._classes:
            parts = parts - (parts * expected).sum(2, keepdim=True)
        weighted = (parts * (counted.unsqueeze(1) * spread)).flatten(1)
        return slope, weighted @ parts.flatten(1).T

    def _loss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Of every sample."""
        if self._classes:
            return -(wanted * logits.log_softmax(1)).sum(1)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").squeeze(1)


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Probabilities `[batch, classes, ...]` of class numbers, all 0 where they are to be ignored; others as they are.

    Raises:
        ValueError: If a number is of no class.
    """
    if target.is_floating_point():
        return target
    ignored = target == IGNORED
    bad = target[~ignored & ((target < 0) | (target >= classes))]
    if len(bad):
        raise ValueError(
            f"Class numbers should be 0 to {classes - 1}, as there are {classes} logits, or {IGNORED} to be ignored. "
            f"Got {int(bad[0])}. Look for the cause in the target, or give the model more outputs."
        )
    return (F.one_hot(target.masked_fill(ignored, 0).long(), classes) * ~ignored.unsqueeze(-1)).movedim(-1, 1)


def _saved(loss: Tensor, constant: Tensor) -> Tensor:
    """By which share a loss lies below another; 0 where nothing varies, so that nothing can be explained."""
    varies = constant > _ROUNDED * loss
    return torch.where(varies, 1 - loss / constant.clamp(min=_TINY), 0.0)


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


def _solve(curvature: Tensor, slope: Tensor) -> Tensor:
    """Newton steps `[W, k]`; 0 where nothing depends on the factors."""
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    # Of parts that are all 0 any ridge will do, but one too small to divide by.
    ridge = torch.where(mean > _TINY / RIDGE, RIDGE * mean, 1.0)
    step: Tensor = torch.linalg.solve(curvature + torch.diag_embed(ridge.expand_as(diagonal)), slope)
    return step
