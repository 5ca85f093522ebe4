"""The loss of a batch as a module, so that it can be differentiated by any of the model's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

from awc_balance.batches import Step, predict, sample_count

Criterion: TypeAlias = Callable[[Any, Any], Tensor]


class Objective(nn.Module):
    """From a batch to the scalar loss of its prediction."""

    def __init__(self, model: nn.Module, criterion: Criterion, step: Step) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        self._criterion = criterion
        self._step = step

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss."""
        return self.with_count(batch)[0]

    def with_count(self, batch: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        """The loss and the number of samples.

        Raises:
            ValueError: If the criterion returns anything but one number.
        """
        prediction, target = predict(self._step, self.model, batch)
        loss = self._criterion(prediction, target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"`criterion` should return one number, the mean loss of the batch. Got {got}. "
                "Reduce it, as in criterion=lambda prediction, target: loss(prediction, target).mean()."
            )
        return loss.reshape(()), sample_count(prediction, target, batch)
