"""The loss of a batch as a module, so that it can be differentiated by any of the model's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import vmap

from awc_balance.batches import Step, predict, sample_count, split_samples
from awc_balance.fisher.criteria import losses_by_element
from awc_balance.nested import leaves_of
from awc_balance.threads import SharedSetting

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


@contextmanager
def _without_talk_of_loops() -> Iterator[None]:
    with warnings.catch_warnings():
        # An operation without a batching rule is run sample by sample inside, which is slower but right.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


loops_allowed = SharedSetting(_without_talk_of_loops)
"""Around `vmap`."""


class Objective(nn.Module):
    """From a batch to the scalar loss of its prediction."""

    def __init__(self, model: nn.Module, criterion: Criterion, step: Step) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        self._criterion = criterion
        self._step = step
        self._by_element = True
        """Until the criterion turns out to be something else."""

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

    def predict(self, batch: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """The prediction and target of a batch."""
        return predict(self._step, self.model, batch)

    def losses(self, prediction: Any, target: Any, samples: int) -> Tensor:  # noqa: ANN401
        """The loss `[samples]` of every sample by itself, whatever the criterion makes of a batch.

        Raises:
            ValueError: If prediction and target are not of that many samples each, along the first axis.
        """
        count, leaves, rebuild = split_samples((prediction, target))
        if count != samples or any(leaf.dim() == 0 for leaf in leaves_of(prediction) if isinstance(leaf, Tensor)):
            raise ValueError(f"A prediction should be of {samples} samples. Got {count}. Use form='corrected'.")

        if self._by_element:
            losses = losses_by_element(self._criterion, prediction, target)
            if losses is not None:
                return losses
            self._by_element = False

        def loss_of(*sample: Tensor) -> Tensor:
            return task_loss(self._criterion, *rebuild(list(sample)))

        try:
            with loops_allowed():
                return vmap(lambda *sample: loss_of(*(leaf.unsqueeze(0) for leaf in sample)))(*leaves)
        except (RuntimeError, ValueError):  # such as a choice of elements that depends on their values
            return torch.stack([loss_of(*(leaf[i : i + 1] for leaf in leaves)) for i in range(samples)])

    def with_count(self, batch: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        """The loss of a batch, and its number of samples."""
        prediction, target = predict(self._step, self.model, batch)
        return task_loss(self._criterion, prediction, target), sample_count(prediction, target, batch)
