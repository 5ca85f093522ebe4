"""Gradients of single samples by the weights and biases of norm layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from awc_balance.fisher.operation import Operation, Seen, by_sample, chunk_of
from awc_balance.precision import at_least_float32


class Normalization(Operation):
    """y = w n(x) + b with n the normalisation of each row by itself, or by statistics that are fixed."""

    def __init__(self, function: Callable[..., Tensor], names: str, *, channels: bool, **options: Any) -> None:  # noqa: ANN401
        """A function whose parameters belong to the channels, axis 1, or else to the last axes."""
        super().__init__(names, **options)
        self._function = function
        self._channels = self.batch_first = channels

    def chunk(self, seen: Seen) -> int:
        """The products are larger than the parameters."""
        return chunk_of(seen.g.shape[1:], seen.g.device)

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """Sums over a sample of n(x) g, and of g."""
        samples, rows = seen.g.shape[:2]
        g = seen.g.flatten(0, 1)
        if slot == "weight":
            fixed = {
                name: at_least_float32(value) if isinstance(value, Tensor) else value
                for name, value in seen.arguments.items()
            }
            g = g * self._function(seen.input.flatten(0, 1), **fixed)
        if self._channels:
            summed = g.flatten(2).sum(2) if g.dim() > 2 else g
        else:
            summed = g.reshape(len(g), -1, *seen.shape).sum(1)
        return by_sample(summed, samples, rows)


class BatchNormalization(Normalization):
    """Batch norm by its running statistics, which are the same for all samples."""

    def __init__(self, names: str) -> None:
        """See the class."""
        super().__init__(F.batch_norm, names, channels=True, training=False)

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """As torch's own gradients of one batch norm that has the channels of all samples side by side."""
        return by_sample(self._sums(seen)[self.slots.index(slot)], *seen.g.shape[:2])

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Of all samples at once: nothing is held that is larger than the parameters of each."""
        return self.gradient(slot, seen).square_().sum(0)

    def _sums(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The gradients by weight and bias of every row, which are found together, once for a call."""
        if "sums" not in seen.shared:
            rows, channels = seen.g.shape[:2].numel(), seen.g.shape[2]
            statistics = (seen.arguments["running_mean"], seen.arguments["running_var"])
            mean, var = (at_least_float32(each).repeat(rows) for each in statistics)
            g, x = (tensor.reshape(1, rows * channels, -1) for tensor in (seen.g, seen.input))
            eps = seen.arguments.get("eps", 1e-5)
            _, *sums = torch.ops.aten.native_batch_norm_backward(
                g, x, None, mean, var, None, None, False, eps, [False, True, True]
            )
            seen.shared["sums"] = [each.view(rows, channels) for each in sums]
        weight, bias = seen.shared["sums"]
        return weight, bias
