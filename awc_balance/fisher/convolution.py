"""Gradients of single samples by the parameters of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
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
        groups, (first, *rest) = seen.arguments.get("groups", 1), seen.shape[2:]
        total = seen.g.new_zeros(groups * first, seen.shape[0] // groups, seen.shape[1] * prod(rest))
        windows = torch.Size([groups * seen.shape[1:].numel(), seen.g.shape[3:].numel()])
        chunk = chunk_of(windows, seen.g.device, times=16)
        for start in range(0, len(seen.g), chunk):
            left, right = self._factors(seen[start : start + chunk])
            add_squared_products(left.flatten(1, 2), right.flatten(1, 2), total)
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
        """What to multiply for a kernel of size `[k, *rest]`, in matrices for each row, group and step along k.

        Returns:
            Output gradients `[rows, groups, k, out, positions]`, the same for all k.
            Windows `[rows, groups, k, positions, *rest * in]`, which overlap in memory where the stride allows it.
        """
        image, kernel = self._pair(seen)
        groups = seen.arguments.get("groups", 1)
        left = kernel.flatten(2).unflatten(1, (groups, 1, -1)).expand(-1, -1, seen.shape[2], -1, -1)
        return left, self._windows(image.unflatten(1, (groups, -1)), kernel.shape[2:], seen)

    def _windows(self, image: Tensor, places: torch.Size, seen: Seen) -> Tensor:
        """See `_factors`; of images `[rows, groups, in, *space]`, at that many places along each axis."""
        size, (before, after) = seen.shape[2:], self._padding(seen)
        stride, dilation = (self._each(seen.arguments.get(name, 1)) for name in ("stride", "dilation"))
        if max(size) == 1 and not any(before + after):  # nothing to copy
            for axis, step in enumerate(stride, start=3):
                image = image.unfold(axis, 1, step).squeeze(-1).narrow(axis, 0, places[axis - 3])
            return image.flatten(3).mT.unsqueeze(2)

        def slide(windows: Tensor, axis: int) -> Tensor:
            """Cut an axis of space into windows, which become the last axis."""
            span = (size[axis] - 1) * dilation[axis] + 1
            found = windows.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
            return found.narrow(2 + axis, 0, places[axis])

        last = 2 + self._dimensions
        windows = F.pad(image.movedim(2, -1), [0, 0, *_as_pad_takes_it(before, after)])
        for axis in range(1, self._dimensions):
            windows = slide(windows, axis)
        windows = windows.movedim(last, -1).flatten(last).contiguous()  # channels last, which are copied at once
        return slide(windows, 0).movedim(-1, 2).flatten(3, last)

    @staticmethod
    def _as_weight(products: Tensor, shape: torch.Size) -> Tensor:
        """From `[rows, groups * k, out, *rest * in]` to weights `[rows, *shape]`."""
        parts = products.reshape(len(products), -1, shape[2], products.shape[-2], *shape[3:], shape[1])
        return parts.movedim((3, -1), (2, 3)).flatten(1, 2)

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
    return shape[2:].numel() > 1 and shape[1] >= GROUPED_INPUTS and shape[0] * shape[1] <= GROUPED_PAIRS
