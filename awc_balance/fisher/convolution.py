"""Gradients of single samples by the parameters of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from awc_balance.fisher.operation import Operation, Seen, add_squared_products, by_sample, chunk_of

GROUPED_INPUTS, GROUPED_PAIRS = 8, 32 * 32
"""From that many input channels and up to that many pairs of channels, the weight gradients of single samples are fast
as groups of one large convolution."""


class Convolution(Operation):
    """A convolution in any number of dimensions: the weight gradient correlates input and output gradient."""

    batch_first = True

    def __init__(self, names: str, dimensions: int, *, transposed: bool = False) -> None:
        """See the class."""
        super().__init__(names)
        self._dimensions = dimensions
        self._transposed = transposed

    def applies(self, arguments: Mapping[str, Any]) -> bool:
        """Batches only: a single image has one axis less."""
        return isinstance(arguments["input"], Tensor) and arguments["input"].dim() == self._dimensions + 2

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """As a correlation of the input with the output gradient."""
        samples, rows = seen.g.shape[:2]
        if slot == "bias":
            return seen.g.flatten(3).sum((1, 3))
        if _is_grouped(seen.shape):
            return by_sample(self._grouped(seen), samples, rows)
        left, right = self._factors(seen)
        return by_sample(self._as_weight(left @ right, seen.shape), samples, rows)

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Products are squared as they come."""
        if slot == "bias" or _is_grouped(seen.shape) or seen.g.shape[1] > 1:
            return super().squares(slot, seen)
        groups = seen.arguments.get("groups", 1)
        total = seen.g.new_zeros(groups, seen.shape[0] // groups, seen.shape[1:].numel())
        windows = seen.shape[1:].numel() * groups * seen.g.shape[3:].numel()
        chunk = max(1, 4 * chunk_of(torch.Size([windows]), seen.g.device))
        for start in range(0, len(seen.g), chunk):
            add_squared_products(*self._factors(seen[start : start + chunk]), total)
        return self._as_weight(total.unsqueeze(0), seen.shape)[0]

    def chunk(self, seen: Seen) -> int:
        """More at once for groups of one convolution."""
        return super().chunk(seen) * (16 if _is_grouped(seen.shape) else 1)

    def _pair(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The image and what slides over it; the forward pass of a transposed convolution is a backward pass."""
        image, kernel = seen.input.flatten(0, 1), seen.g.flatten(0, 1)
        return (kernel, image) if self._transposed else (image, kernel)

    def _grouped(self, seen: Seen) -> Tensor:
        """The weight gradients `[rows, *shape]` of all rows as groups of one convolution."""
        image, kernel = self._pair(seen)
        n, (outs, *rest) = len(image), seen.shape
        before, after = self._padding(seen)
        if before != after:
            image, before = F.pad(image, _as_pad_takes_it(before, after)), (0,) * self._dimensions
        found = _WEIGHT_GRADIENTS[self._dimensions](
            image.flatten(0, 1).unsqueeze(0),
            (n * outs, *rest),
            kernel.flatten(0, 1).unsqueeze(0),
            stride=self._each(seen.arguments.get("stride", 1)),
            padding=before,
            dilation=self._each(seen.arguments.get("dilation", 1)),
            groups=n * seen.arguments.get("groups", 1),
        )
        return found.reshape(n, *seen.shape)

    def _factors(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Output gradients `[rows, groups, out, positions]` and windows `[rows, groups, positions, *size * in]`."""
        image, kernel = self._pair(seen)
        groups, size = seen.arguments.get("groups", 1), seen.shape[2:]
        stride, dilation = (self._each(seen.arguments.get(name, 1)) for name in ("stride", "dilation"))
        windows = F.pad(image, _as_pad_takes_it(*self._padding(seen))).unflatten(1, (groups, -1))
        windows = windows.movedim(2, -1).contiguous()  # channels last, which are copied at once
        for i in range(self._dimensions):
            span = (size[i] - 1) * dilation[i] + 1
            windows = windows.unfold(2 + i, span, stride[i])[..., :: dilation[i]].narrow(2 + i, 0, kernel.shape[2 + i])
        right = windows.movedim(2 + self._dimensions, -1).reshape(len(image), groups, kernel.shape[2:].numel(), -1)
        return kernel.flatten(2).unflatten(1, (groups, -1)), right

    @staticmethod
    def _as_weight(products: Tensor, shape: torch.Size) -> Tensor:
        """From `[rows, groups, out, *size * in]` to weights `[rows, *shape]`."""
        return products.reshape(len(products), shape[0], *shape[2:], shape[1]).movedim(-1, 2)

    def _each(self, value: Any) -> tuple[int, ...]:  # noqa: ANN401
        return (
            (value,) * self._dimensions
            if isinstance(value, int)
            else tuple(value) * (self._dimensions if len(value) == 1 else 1)
        )

    def _padding(self, seen: Seen) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Before and after the image, by axis."""
        padding = seen.arguments.get("padding", 0)
        if padding == "same":
            dilation = self._each(seen.arguments.get("dilation", 1))
            total = [d * (k - 1) for d, k in zip(dilation, seen.shape[2:], strict=True)]
            return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        each = self._each(0 if padding == "valid" else padding)
        return each, each


def _as_pad_takes_it(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Last axis first."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


_WEIGHT_GRADIENTS: dict[int, Callable[..., Tensor]] = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}


def _is_grouped(shape: torch.Size) -> bool:
    return len(shape) > 1 and shape[1] >= GROUPED_INPUTS and shape[0] * shape[1] <= GROUPED_PAIRS
