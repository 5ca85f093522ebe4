"""Whom to hold back, how much and how long, by calibration slopes: `CalibrationRule`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from awc_balance.batches import Step, iterate, refuse_iterator, refuse_same
from awc_balance.calibration.calibration import Calibration, CalibrationLoss
from awc_balance.calibration.elasticity import elasticities
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.excess import next_strengths
from awc_balance.calibration.judgement import Verdict
from awc_balance.calibration.pull import pull_to_zero
from awc_balance.calibration.slopes import Slopes
from awc_balance.calibration.verdict import verdict
from awc_balance.encoders import Encoders
from awc_balance.preserve import RandomState
from awc_balance.processes import ProcessGroup

_LOSSES: dict[str, CalibrationLoss] = {
    "pearson": "auto",  # the default of what the rule has no use for but to know the kind of targets
    "pearson_per_batch": "squared",
    "negative_mse": "squared",
    "negative_cross_entropy": "cross_entropy",
    "accuracy": "cross_entropy",
    "negative_binary_cross_entropy": "binary_cross_entropy",
}


def loss_of(profit: object) -> CalibrationLoss:
    """The loss for the targets of a profit of that name; any other object leaves that to the targets."""
    return _LOSSES.get(profit, "auto") if isinstance(profit, str) else "auto"


class Decision(NamedTuple):
    """Strengths, and the slopes that they come from."""

    strengths: dict[str, float]
    training: Slopes
    held_out: Slopes

    def row(self) -> dict[str, Any]:
        """Plain values for a history."""
        return {
            "slopes": {"training": dict(self.training), "held_out": dict(self.held_out)},
            "slope_intervals": {
                "training": {m: list(ends) for m, ends in (self.training.intervals or {}).items()},
                "held_out": {m: list(ends) for m, ends in (self.held_out.intervals or {}).items()},
            },
            "shares": dict(self.held_out.shares),
        }


class CalibrationRule:
    """Strengths for every epoch from the slopes on training and on held-out data; see `next_strengths`.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        profit: Name of the profit of the contributions, which says what kind of targets there are; any other object
            leaves that to the targets.
        held_out: Batches that the model is not trained on.
        step: How to read a batch.
        process_group: Which processes measure together.

    Raises:
        ValueError: If there are no held-out batches, or they can be read only once.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        profit: object,
        held_out: Iterable[Any] | None,
        step: Step | None,
        process_group: ProcessGroup,
    ) -> None:
        """See the class."""
        if held_out is None:
            raise ValueError(
                "rule='calibration' needs batches that the model is not trained on. Got none. "
                "Pass held_out=loader, of a part of the training data, never of the test data."
            )
        refuse_iterator("held_out", held_out)
        self.held_out = held_out
        self._calibration = Calibration(model, encoders, loss_of(profit), step=step, process_group=process_group)

    def refuse(self, loader: Iterable[Any]) -> None:
        """Refuse to measure where the training batches are those that are held out.

        Raises:
            ValueError: If they are.
        """
        self._calibration.processes.attempt(lambda: refuse_same(self.held_out, loader))

    def decide(self, before: Mapping[str, float], loader: Iterable[Any]) -> Decision:
        """The strengths of the coming epoch.

        Args:
            before: Those of the last one.
            loader: Training batches.

        Raises:
            TypeError: If a loader does not yield batches that can be read.
            ValueError: If one is empty, or a prediction or target is not finite.
        """
        training = self._calibration.evaluate(loader, costs=False)
        held_out = self._others(costs=False)
        for name, slopes in (("Held-out", held_out), ("The measured training", training)):
            if slopes.intervals is None:
                warnings.warn(
                    f"{name} batches should hold ten samples or more, better some hundred. Got fewer: nobody will be "
                    "held back.",
                    stacklevel=3,
                )
        strengths = next_strengths(before, training, held_out)
        encoders = self._calibration.measured.encoders
        trained = {m for m, encoder in encoders.items() if any(p.requires_grad for p in encoder.parameters())}
        strengths = {m: strength if m in trained else 0.0 for m, strength in strengths.items()}
        return Decision(strengths, training, held_out)

    def pull(self, diagonal: Mapping[str, Mapping[str, Tensor]], loader: Iterable[Any]) -> dict[str, dict[str, Tensor]]:
        """What the strengths are of: the weight of the pull of every parameter; see `pull_to_zero`.

        Args:
            diagonal: Mean squares of the gradients of batches.
            loader: Training batches, of which the first is read.
        """
        model, encoders, step, _ = self._calibration.measured
        processes, state = self._calibration.processes, RandomState(loader)
        try:
            found = processes.attempt(lambda: elasticities(model, encoders, step, next(iterate(loader))))
        finally:
            state.restore()
        return pull_to_zero(encoders, diagonal, processes.averaged(found))

    def verdict(self, loader: Iterable[Any], alone: Mapping[str, Estimate] | None) -> Verdict:
        """On the model as it is.

        Args:
            loader: Training batches.
            alone: See `verdict`.
        """
        self.refuse(loader)
        training = self._calibration.evaluate(loader, costs=False)
        return verdict(training, self._others(), alone)

    def _others(self, *, costs: bool = True) -> Slopes:
        """The slopes on held-out data; errors say that it is these."""
        try:
            return self._calibration.evaluate(self.held_out, costs=costs)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`held_out` could not be measured: {error}") from error
