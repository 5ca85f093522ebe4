"""In which precision, and in how many parts, a model predicts from a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from examples.measures import Step
from examples.mmfi.batches import Parts
from examples.mmfi.dataset import Batch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context for a forward pass on a device in one of `settings.PRECISIONS`."""
    enabled = precision != "float32"
    return torch.autocast(device.type, getattr(torch, precision) if enabled else None, enabled=enabled)


def batch_step(device: torch.device, precision: str) -> Step:
    """A function from a model and a batch to prediction and target, for evaluation."""

    def step(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs, target = batch
        with autocast(device, precision):
            return model(inputs), target

    return step


def training_step(device: torch.device, precision: str) -> Step:
    """The same for training, and for a batch in parts that a method measures on at the start of an epoch.

    The gradient of a batch in parts takes the memory of one part: activations of a part are computed again for the
    backward pass. Never in float16, where gradients that are not scaled vanish: in float32 then.
    """
    trained, measured = (batch_step(device, name) for name in (precision, _measuring(precision)))

    def step(model: nn.Module, batch: Batch | Parts) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, list):
            return trained(model, batch)
        if len(batch) == 1:
            return measured(model, batch[0])
        pairs = [recomputed(measured, model, part, use_reentrant=False) for part in batch]
        predictions, targets = zip(*pairs, strict=True)
        return torch.cat(predictions), torch.cat(targets)

    return step


def _measuring(precision: str) -> str:
    return "float32" if precision == "float16" else precision
