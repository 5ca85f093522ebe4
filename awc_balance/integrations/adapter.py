"""What all adapters do with a balancer: `Adapter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from awc_balance.balancers import AWC, Balancer, Plain
from awc_balance.batches import refuse_same
from awc_balance.encoders import unwrap
from awc_balance.integrations.measured import Measured, Prepared

GRADIENTS_ONLY = (AWC, Plain)
"""Balancers whose `loss` is the task loss, so that a loop may keep its own."""


class Adapter:
    """A balancer in somebody else's loop, where forgetting a call should not go unseen.

    Args:
        balancer: Any.
        loader: What to measure on at the start of an epoch. None: what the loop trains on.

    Raises:
        TypeError: If it is no balancer.
    """

    def __init__(self, balancer: Balancer, loader: Iterable[Any] | None = None) -> None:
        """See the class."""
        if not isinstance(balancer, Balancer):
            raise TypeError(
                f"`balancer` should be one of awc_balance.balancers. Got {type(balancer).__name__}. "
                "Pass one, such as AWC(model, encoders, criterion)."
            )
        self.balancer = balancer
        self._loader = loader
        self._seen = False

    def start_training(self, device: torch.device) -> None:
        """Bring the balancer's heads to the device, and make those of all processes equal.

        Args:
            device: That of the model.
        """
        for parameter in self.balancer.parameters():
            parameter.data = parameter.data.to(device)
            if _processes() > 1:
                dist.broadcast(parameter.data, src=0)

    def start_epoch(self, loader: Measured) -> None:
        """Begin an epoch; the loader counts where none was given, and how its batches are prepared in any case.

        Held-out batches are the user's own, and are prepared in the same way, since the same `step` reads them.
        """
        training = loader.source if self._loader is None else self._loader
        with _prepared_held_out(self.balancer, loader.prepare, training):
            self.balancer.start_epoch(loader if self._loader is None else self._loader)
        self._seen = False

    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - a batch can be anything
        """The balancer's loss of a batch."""
        loss = self.balancer.loss(batch)
        self._seen = True
        return loss

    def adjust_gradients_(self) -> None:
        """Change the gradients of a step, which are unscaled and those of all processes.

        Raises:
            RuntimeError: If no epoch was started, or the loss of the step was not the balancer's and should be.
        """
        name = type(self.balancer).__name__
        if self.balancer.epoch == 0:
            raise RuntimeError(
                f"{name} should have begun an epoch before a step. Got none yet. "
                "Call start_epoch(loader) at the start of every epoch."
            )
        if self.balancer.active and not self._seen and not isinstance(self.balancer, GRADIENTS_ONLY):
            raise RuntimeError(
                f"{name} works on the loss. It was not asked for the loss of this step. "
                "Let the loss be that of this adapter, as its documentation says."
            )
        self._seen = False
        self._exchange()
        self.balancer.adjust_gradients_()

    def train_through(self, model: nn.Module) -> None:
        """Call the model in this wrapper from now on, so that the wrapper exchanges gradients between processes.

        Args:
            model: The balancer's, as the framework wrapped it.

        Raises:
            TypeError: If the wrapper is `nn.DataParallel`, whose copies of the model no hook sees.
            ValueError: If it wraps another model.
        """
        _, inner, encoders = self.balancer._user
        if isinstance(model, nn.DataParallel):
            raise TypeError(
                "A balancer that works on the loss should see the model itself. Got nn.DataParallel around it. "
                "Start one process per device, with torchrun."
            )
        if unwrap(model) is not inner:
            raise ValueError(
                "The balancer should be made for the model that is trained. "
                f"Got a {type(inner).__name__} for the former and a {type(unwrap(model)).__name__} for the latter. "
                "Build it from the model that the framework is given."
            )
        self.balancer._user = (model, inner, encoders)

    def _exchange(self) -> None:
        """Average the gradients of heads, which belong to no model that a framework wraps."""
        if _processes() > 1 and self.balancer.active:
            for parameter in self.balancer.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= _processes()


@contextmanager
def _prepared_held_out(balancer: Balancer, prepare: Callable[[Any], Any], training: Iterable[Any]) -> Iterator[None]:
    """While this lasts, the batches that the balancer holds out come as the framework prepares its own."""
    holder: Any = balancer.regularizer._rule if isinstance(balancer, AWC) else balancer
    name = "held_out" if isinstance(balancer, AWC) else "_held_out"
    held_out = getattr(holder, name, None)
    if held_out is None:
        yield
        return
    refuse_same(held_out, training)
    setattr(holder, name, Prepared(held_out, prepare))
    try:
        yield
    finally:
        setattr(holder, name, held_out)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
