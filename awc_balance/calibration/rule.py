"""Whom to hold back, how much and how long, by calibration slopes: `CalibrationRule`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awc_balance.batches import Step
from awc_balance.calibration.calibration import Calibration, CalibrationLoss
from awc_balance.calibration.excess import next_strengths
from awc_balance.calibration.judgement import Verdict
from awc_balance.calibration.slopes import Slopes
from awc_balance.calibration.verdict import verdict
from awc_balance.encoders import Encoders, parameters_by_modality
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
        if isinstance(held_out, Iterator):
            raise ValueError(
                "`held_out` should be a loader, which is read anew in every epoch. "
                f"Got {type(held_out).__name__}, which can be read once. Pass the DataLoader itself, or a list."
            )
        self.held_out = held_out
        self._calibration = Calibration(model, encoders, loss_of(profit), step=step, process_group=process_group)

    def decide(self, before: Mapping[str, float], loader: Iterable[Any], held_out: Iterable[Any]) -> Decision:
        """The strengths of the coming epoch.

        Args:
            before: Those of the last one.
            loader: Training batches.
            held_out: The others, or the first few of them.
        """
        training, others = (self._calibration.evaluate(batches, costs=False) for batches in (loader, held_out))
        return Decision(next_strengths(before, training, others), training, others)

    def verdict(self, loader: Iterable[Any], alone: Mapping[str, Slopes] | None) -> Verdict:
        """On the model as it is.

        Args:
            loader: Training batches.
            alone: See `verdict`.
        """
        training = self._calibration.evaluate(loader, costs=False)
        return verdict(training, self._calibration.evaluate(self.held_out), alone)


def pull_to_zero(encoders: Mapping[str, nn.Module], traces: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
    """The weight of the pull s_m |theta|^2 of every parameter, in place of a Fisher diagonal.

    s_m = rms(g) / (2 rms(theta)) over the parameters of the encoder, so that at strength 1 the pull 2 s_m theta is as
    strong as the gradient g of a batch. The training is the same in any unit of the loss.

    Args:
        encoders: By modality.
        traces: The trace of the Fisher diagonal of every encoder, of the gradients of batches.
    """
    weights = {}
    for modality, named in parameters_by_modality(encoders).items():
        trained = [parameter.detach() for parameter in named.values() if parameter.requires_grad]
        size = sum(parameter.abs().double().square().sum().item() for parameter in trained)
        weight = sqrt(traces[modality] / size) / 2 if size > 0 else 0.0
        weights[modality] = {name: torch.full_like(p.detach().real, weight) for name, p in named.items()}
    return weights
