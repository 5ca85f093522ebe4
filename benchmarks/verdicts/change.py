"""Another way to train a model of `tests/diagnose`: `Change`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awc_balance import AWCRegularizer

PULL = 100.0
"""Strength of the pull on who is held back: the middle one of `benchmarks.ablation`."""


class Change(NamedTuple):
    """What is done otherwise."""

    without: tuple[str, ...] = ()
    """Modalities whose features are zeros."""
    held: tuple[str, ...] = ()
    """Those whose encoders are pulled towards the start of every epoch, weighted by Fisher diagonals."""
    rule: bool = False
    """Whether the calibration rule looks for itself whom to hold back."""
    times: int = 1
    """As many epochs."""

    def applied(
        self,
        model: Any,  # noqa: ANN401 - of tests, untyped
        loss: Callable[[Tensor, Tensor], Tensor],
        epochs: int,
        held_out: list[Any],
    ) -> tuple[int, AWCRegularizer | None]:
        """Change the model, and give the number of epochs and what holds back encoders; None for nobody.

        Args:
            model: With its `encoders` by modality.
            loss: That it is trained with.
            epochs: The usual number.
            held_out: Batches for the rule.
        """
        encoders: nn.ModuleDict = model.encoders
        for modality in self.without:
            encoders[modality].register_forward_hook(lambda *call: torch.zeros_like(call[2]))
        epochs *= self.times
        if self.rule:
            return epochs, AWCRegularizer(model, encoders, loss, rule="calibration", held_out=held_out)
        if self.held:
            alphas = {m: PULL * (m in self.held) for m in encoders}
            return epochs, AWCRegularizer(model, encoders, loss, alphas=alphas, scale="root_mean", window=epochs)
        return epochs, None
