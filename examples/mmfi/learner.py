"""A model and what changes its parameters, a step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from awc_balance import AWCRegularizer
from examples.mmfi import processes
from examples.mmfi.batches import Parts
from examples.mmfi.models import build_model
from examples.mmfi.precision import autocast, awc_step
from examples.mmfi.settings import Settings
from examples.pose_metrics import mpjpe

Progress: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]


class Learner:
    """A model with its optimizer, schedule, loss scaler and, if wanted, AWC; equal in all processes.

    Attributes:
        model: The model, without a wrapper.
        awc: The regularizer; None for plain training.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        """Build all of it, with weights drawn from the seed."""
        self._device, self._precision = device, settings.precision
        torch.manual_seed(settings.seed)
        self.model = build_model(settings.modalities, settings.fusion, settings.preset).to(device)
        torch.manual_seed(settings.seed + processes.rank())  # dropout differs between processes
        self.awc: AWCRegularizer | None = None
        if settings.awc:
            step = awc_step(device, settings.precision)
            self.awc = AWCRegularizer(self.model, self.model.encoders, mpjpe, step=step, **settings.awc)
        self._optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimizer, settings.drop_every, 0.1)  # paper
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self._parallel = DistributedDataParallel(self.model) if processes.count() > 1 else self.model

    def start_epoch(self, batches: Iterable[Parts], progress: Progress | None = None) -> None:
        """Begin an epoch of AWC: anchors, strengths and Fisher diagonals.

        Args:
            batches: The same in all processes: each measures what a single one would.
            progress: A wrapper that shows the progress of a pass.
        """
        if self.awc is not None:
            self.awc.start_epoch(batches, progress=progress)
            processes.copy_buffers(self.awc)
            self.awc.set_extra_state(processes.gathered(self.awc.get_extra_state())[0])

    def update(self, parts: Parts) -> Tensor:
        """Take one optimizer step on a process's share of a batch; returns the task loss, without waiting for it."""
        self.model.train()
        total = torch.zeros((), device=self._device)
        for number, (inputs, target) in enumerate(parts, 1):
            with self._exchanging(number == len(parts)):
                with autocast(self._device, self._precision):
                    loss = mpjpe(self._parallel(inputs), target) / len(parts)
                self._scaler.scale(loss).backward()
            total += loss.detach()
        self._scaler.unscale_(self._optimizer)
        if self.awc is not None:
            self.awc.add_gradient_()  # once a step, however many parts and processes
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

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "scaler": self._scaler,
        }
        return parts if self.awc is None else parts | {"awc": self.awc}

    def _exchanging(self, exchanged: bool) -> AbstractContextManager[None]:
        """A context for a backward pass after which processes exchange gradients, or add more of their own first."""
        if exchanged or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = self._parallel.no_sync()
        return waiting
