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


def awc_step(device: torch.device, precision: str) -> Step:
    """The same for a batch in parts, whose gradient takes the memory of one part.

    Activations of a part are computed again for the backward pass. Never in float16, where gradients that are
    not scaled vanish: in float32 then.
    """
    step = batch_step(device, "float32" if precision == "float16" else precision)

    def joined(model: nn.Module, parts: Parts) -> tuple[Tensor, Tensor]:
        if len(parts) == 1:
            return step(model, parts[0])
        pairs = [recomputed(step, model, part, use_reentrant=False) for part in parts]
        predictions, targets = zip(*pairs, strict=True)
        return torch.cat(predictions), torch.cat(targets)

    return joined
