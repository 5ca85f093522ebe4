"""A model and what changes its parameters, a step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from awc_balance.balancers import AWC
from examples.mmfi import processes
from examples.mmfi.batches import Parts
from examples.mmfi.dataset import Batch
from examples.mmfi.methods import build_balancer
from examples.mmfi.models import build_model
from examples.mmfi.precision import training_step
from examples.mmfi.settings import Settings

Progress: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]


class Learner:
    """A model with its optimizer, schedule, loss scaler and balancing method; equal in all processes.

    Attributes:
        model: The model, without a wrapper.
        balancer: The method; `Plain` for plain training.
    """

    def __init__(self, settings: Settings, device: torch.device, held_out: Iterable[Batch] = ()) -> None:
        """Build all of it, with weights drawn from the seed; `held_out` is for methods that compare losses."""
        self._device = device
        torch.manual_seed(settings.seed)
        self.model = build_model(settings.modalities, settings.fusion, settings.preset, settings.wifi_encoder)
        self.model.to(device)
        self._parallel = DistributedDataParallel(self.model) if processes.count() > 1 else self.model
        step = training_step(device, settings.precision)
        self.balancer = build_balancer(settings, self._parallel, self.model, step, held_out)
        torch.manual_seed(settings.seed + processes.rank())  # dropout differs between processes
        self._optimizer = torch.optim.Adam(
            [*self.model.parameters(), *self.balancer.parameters()],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.balancer.check(self._optimizer)
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimizer, settings.drop_every, 0.1)  # paper
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")

    @property
    def awc_history(self) -> list[dict[str, Any]]:
        """What AWC measured and chose, by epoch of its window; empty for other methods."""
        return self.balancer.regularizer.history if isinstance(self.balancer, AWC) else []

    def start_epoch(self, batches: Iterable[Parts]) -> None:
        """Begin an epoch of the method, on what `method_batches` gives."""
        self.balancer.start_epoch(batches)

    def update(self, parts: Parts) -> Tensor:
        """Take one optimizer step on a process's share of a batch; returns the loss, without waiting for it."""
        self.model.train()
        total = torch.zeros((), device=self._device)
        for number, part in enumerate(parts, 1):
            with self._exchanging(number == len(parts)):
                loss = self.balancer.loss(part) / len(parts)
                self._scaler.scale(loss).backward()
            total += loss.detach()
        processes.average_gradients(self.balancer.parameters())  # those of the model were averaged by its wrapper
        self._scaler.unscale_(self._optimizer)
        self.balancer.adjust_gradients_()  # once a step, however many parts and processes
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        return total

    def end_epoch(self) -> None:
        """Move on in the schedule, and give all processes the same batch-norm statistics."""
        self._schedule.step()
        processes.copy_buffers(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts, by name."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def own_state(self) -> dict[str, Any]:
        """The plain values of the method, which may differ between processes in the middle of an epoch."""
        return processes.extra_states(self.balancer)

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Put back what `own_state` gave."""
        processes.set_extra_states(self.balancer, state)

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "scaler": self._scaler,
            "balancer": self.balancer,
        }

    def _exchanging(self, exchanged: bool) -> AbstractContextManager[None]:
        """A context for a backward pass after which processes exchange gradients, or add more of their own first."""
        if exchanged or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = self._parallel.no_sync()
        return waiting
