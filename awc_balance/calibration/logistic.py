"""Factors of the parts of logits that make the cross-entropy smallest: `LogisticFit`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from awc_balance.calibration.fit import FOLDS, Fit, Minimum, newton_step, saved
from awc_balance.calibration.parts import Parts
from awc_balance.contributions.profits import check_classes, check_same_shape
from awc_balance.processes import Processes

_STEPS, _LARGEST_STEP, _CLOSE = 50, 0.5, 1e-7

IGNORED = -100
"""Targets of this class number are left out, as `torch.nn.functional.cross_entropy` does."""


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
        step = newton_step(curvature, slope)
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
        return saved(losses, counts * entropy)

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
            step = newton_step(curvature.unsqueeze(0), slope.unsqueeze(0)).squeeze(0)
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
