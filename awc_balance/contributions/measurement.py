"""What was measured of the batches so far, by the fastest way that was seen to give the same as running everything."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor

from awc_balance.contributions.additive import (
    CHECKS,
    LEAST_MODALITIES,
    AdditivePearson,
    covariances,
    rows_to_run,
)
from awc_balance.contributions.designs import Design
from awc_balance.contributions.profits import Accumulation, Pearson, Profit, Statistics, check_same_shape
from awc_balance.contributions.result import Route
from awc_balance.contributions.runs import BatchRun, Measured, Runner, run_batch
from awc_balance.processes import Processes

FOLDS = 20
"""Batches are dealt to this many folds, over which intervals are taken."""

LEAST_FOLDS = 5

BYTES_OF_FOLDS = 2**28
"""Where the statistics of 20 folds would take more, there are fewer folds, but at least 5."""


class Measurement:
    """Statistics of the batches so far, dealt to folds.

    Args:
        measured: The model and how to run it.
        profit: Of a coalition.
        design: The coalitions.
        fast: Whether to take shortcuts, each checked on the data.
    """

    def __init__(self, measured: Measured, profit: Profit, design: Design, *, fast: bool) -> None:
        """See the class."""
        self._user, self._profit, self._design = measured, profit, design
        self._runner = Runner(together=fast)
        self._additive: AdditivePearson | None = None
        modalities = design.members.shape[1]
        runs = modalities + 2 + CHECKS
        if fast and type(profit) is Pearson and modalities >= LEAST_MODALITIES and runs < len(design.members):
            self._additive = AdditivePearson(design.members)
        self._most_folds = FOLDS
        self.folds: dict[int, Statistics] = {}
        self.batches = 0

    @property
    def accumulation(self) -> Accumulation:
        """What the folds hold, and what it says."""
        return self._additive or self._profit

    @property
    def route(self) -> Route:
        """How predictions from coalitions were had."""
        if self._additive is not None:
            return "additive"
        return "together" if self._runner.together and self._runner.checked else "one by one"

    def profits(self) -> Callable[[Tensor], Tensor]:
        """The profits `[coalitions, ...]` by weights of the folds, which say how often each fold is counted."""
        stacked = tuple(torch.stack(parts) for parts in zip(*self.folds.values(), strict=True))

        def weighted(weights: Tensor) -> Tensor:
            return self.accumulation.value(self.accumulation.pool(stacked, weights.to(stacked[0].device)))

        return weighted

    def over(self, processes: Processes) -> Measurement:
        """The same of the batches of all processes: a fold holds those of one turn in each of them."""
        if processes.count == 1:
            return self
        joint = copy(self)
        routes = processes.gathered(self.route)
        if self._additive is not None and set(routes) != {"additive"}:
            joint._run_all_from_now(self._additive)
        joint.folds = processes.merged(joint.folds, joint.accumulation.merge)
        return joint

    @torch.no_grad()
    def add(self, batch: Any) -> None:  # noqa: ANN401
        """Measure a batch. If that fails, all is as before."""
        before = {**vars(self), "folds": dict(self.folds), "_runner": copy(self._runner)}
        try:
            self._add(batch)
        except BaseException:
            vars(self).update(before)
            raise

    def _add(self, batch: Any) -> None:  # noqa: ANN401
        statistics = run_batch(self._user, batch, self._measure)
        self._keep(self.batches, statistics)
        self.batches += 1

    def _measure(self, run: BatchRun) -> tuple[Statistics, Tensor]:
        """The statistics of a batch, as the present accumulation has them, and the prediction from all features."""
        if self._additive is not None:
            rows = rows_to_run(self._design.members.shape[1], self.batches)
            predictions = torch.cat(list(self._runner.run(run, rows, self.batches)))
            check_same_shape(predictions[0], run.target)
            self._check_finite(rows, predictions, run.target.double().sum().expand(len(rows)))
            found = covariances(rows, predictions, run.target)
            if found is not None:
                return found, predictions[rows.all(1).to(predictions.device)][0]
            self._run_all_from_now(self._additive)
        return self._table(run)

    def _table(self, run: BatchRun) -> tuple[Statistics, Tensor]:
        """The statistics of every coalition, run one by one or together, and the prediction from all features."""
        parts, done = [], 0
        for predictions in self._runner.run(run, self._design.members, self.batches):
            statistics = self._profit.measure_each(predictions, run.target)
            self._check_finite(self._design.members[done : done + len(predictions)], *statistics)
            parts.append(statistics)
            done += len(predictions)
        return tuple(torch.cat(part) for part in zip(*parts, strict=True)), predictions[-1]

    def _keep(self, number: int, statistics: Statistics) -> None:
        if self.folds:
            _check_alike(self.accumulation.shape(statistics), self.accumulation.shape(next(iter(self.folds.values()))))
        else:
            size = sum(part.numel() * part.element_size() for part in statistics)
            self._most_folds = max(LEAST_FOLDS, min(FOLDS, BYTES_OF_FOLDS // size))
        fold = number % self._most_folds
        before = self.folds.get(fold)
        self.folds[fold] = statistics if before is None else self.accumulation.merge(before, statistics)

    def _run_all_from_now(self, additive: AdditivePearson) -> None:
        """Turn the covariances of earlier batches into the statistics of every coalition."""
        earlier, self.folds, self._additive = self.folds, {}, None
        for number, statistics in earlier.items():
            self._keep(number, additive.moments(statistics))

    def _check_finite(self, rows: Tensor, *values: Tensor) -> None:
        """Refuse what is not finite, by coalition along the first axis."""
        finite = torch.stack([part.isfinite().reshape(len(part), -1).all(1) for part in values]).all(0).tolist()
        if not all(finite):
            present = rows[finite.index(False)].tolist()
            coalition = sorted(m for m, here in zip(self._user.encoders, present, strict=True) if here)
            raise ValueError(
                f"Predictions, targets and profits should be finite. In batch {self.batches}, predicting from "
                f"{', '.join(coalition) or 'no modality'}, one is nan or infinite. "
                "Look for the cause in the inputs, the target or the parameters."
            )


def _check_alike(shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    if shape != before:
        raise ValueError(
            f"The outputs of all batches should have one shape. Got {shape} after {before}. "
            "Pad them, or reduce them in a profit of your own."
        )
