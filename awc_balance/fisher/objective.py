"""The loss of a batch as a module, so that it can be differentiated by any of the model's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

from awc_balance.batches import Step, predict, sample_count

Criterion: TypeAlias = Callable[[Any, Any], Tensor]


def task_loss(criterion: Criterion, prediction: Any, target: Any) -> Tensor:  # noqa: ANN401
    """The loss as a scalar.

    Raises:
        ValueError: If the criterion returns anything but one number.
    """
    loss = criterion(prediction, target)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"`criterion` should return one number, the mean loss of the batch. Got {got}. "
            "Reduce it, as in criterion=lambda prediction, target: loss(prediction, target).mean()."
        )
    return loss.reshape(())


class Objective(nn.Module):
    """From a batch to the scalar loss of its prediction."""

    def __init__(self, model: nn.Module, criterion: Criterion, step: Step) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        self._criterion = criterion
        self._step = step

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss of a batch that should be a single sample.

        Raises:
            ValueError: If its prediction or target is of more than one.
        """
        prediction, target = predict(self._step, self.model, batch)
        for value in (prediction, target):
            if isinstance(value, Tensor) and value.dim() > 0 and len(value) != 1:
                raise ValueError(
                    "To take samples one by one, prediction and target of one sample should have the shape [1, ...]. "
                    f"Got {tuple(value.shape)}. Collate all of a batch into tensors [batch, ...], or use "
                    "form='corrected', which needs whole batches only."
                )
        return task_loss(self._criterion, prediction, target)

    def with_count(self, batch: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        """The loss of a batch, and its number of samples."""
        prediction, target = predict(self._step, self.model, batch)
        return task_loss(self._criterion, prediction, target), sample_count(prediction, target, batch)
