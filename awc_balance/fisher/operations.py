"""Gradients of single samples by the parameters of torch operations, from inputs and output gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from awc_balance.precision import at_least_float32

CHUNK_ELEMENTS = 2**20
"""Elements of per-sample gradients held at once: what stays in a processor's cache costs least."""


@dataclass(frozen=True)
class Seen:
    """What one call of an operation has shown, samples first.

    Args:
        x: The input `[samples, k, ...]`, k rows of the operation's input to a sample; None if it has none.
        g: The gradient of the output, likewise.
        arguments: The operation's other arguments, by name.
        axis: Of the samples in the output as the operation gave it.
        shape: Of the parameter.
    """

    x: Tensor | None
    g: Tensor
    arguments: Mapping[str, Any]
    axis: int
    shape: torch.Size

    def __getitem__(self, samples: slice) -> Seen:
        """Some of the samples."""
        return Seen(None if self.x is None else self.x[samples], self.g[samples], self.arguments, self.axis, self.shape)

    @property
    def input(self) -> Tensor:
        """The input in float32 or better, or as integers."""
        if self.x is None:
            raise RuntimeError("This operation should have an input. Got none. Please report it as a bug.")
        return at_least_float32(self.x)


class Operation(ABC):
    """A torch function with parameters, whose rows do not influence each other.

    Args:
        names: Of its arguments, in torch's order.
        options: Values of arguments under which this holds.
    """

    slots: ClassVar[tuple[str, ...]] = ("weight", "bias")
    """The arguments that may be parameters."""
    reads_input = True
    """Whether the gradient depends on the input, and not on the output gradient alone."""
    batch_first = False
    """Whether its samples have to be along the first axis."""
    broadcasts = False
    """Whether the input may be smaller than the output."""

    def __init__(self, names: str, **options: Any) -> None:  # noqa: ANN401
        """See the class."""
        self._names = names.split()
        self._options = options

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name."""
        return {**dict(zip(self._names, args, strict=False)), **kwargs}

    def applies(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it is covered with these arguments."""
        return all(arguments.get(name, value) == value for name, value in self._options.items())

    def operand(self, arguments: Mapping[str, Any], slots: set[str]) -> Any:  # noqa: ANN401, ARG002
        """The argument that holds the samples."""
        return arguments.get("input")

    def accepts(self, axis: int, out: torch.Size, shape: torch.Size) -> bool:  # noqa: ARG002
        """Whether samples may lie along that axis of the output."""
        return axis == 0 or not self.batch_first

    @abstractmethod
    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """The gradients `[samples, *shape]` of the summed loss by the parameter in that slot."""

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """The sum over samples of squared gradients."""
        return sum_of_squares([(self, slot, seen)])


def sum_of_squares(uses: list[tuple[Operation, str, Seen]]) -> Tensor:
    """The sum over samples of the squared gradient of a parameter that took part in several calls."""
    _, _, first = uses[0]
    chunk = max(1, CHUNK_ELEMENTS // max(prod(first.shape), 1))
    total: Tensor | None = None
    for start in range(0, len(first.g), chunk):
        part = slice(start, start + chunk)
        gradient = sum(operation.gradient(slot, seen[part]) for operation, slot, seen in uses)
        square = torch.as_tensor(gradient).square().sum(0)
        total = square if total is None else total.add_(square)
    return first.g.new_zeros(first.shape) if total is None else total


class Linear(Operation):
    """y = x W^T + b on vectors or, along further axes, on tokens."""

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """Sums over the tokens of a sample: of g x^T, and of g."""
        g = seen.g.flatten(1, -2)
        if slot == "bias":
            return g.sum(1)
        return g.transpose(1, 2) @ seen.input.flatten(1, -2)

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Without tokens a square is (g x^T)^2 = g^2 (x^2)^T, so that the sum over samples is one product."""
        g = seen.g.flatten(1, -2)
        if g.shape[1] != 1:
            return super().squares(slot, seen)
        if slot == "bias":
            return g.squeeze(1).square().sum(0)
        return g.squeeze(1).square().T @ seen.input.flatten(1, -2).squeeze(1).square()


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
        """As a product over positions of windows of the input with the output gradient."""
        samples, rows = seen.g.shape[:2]
        if slot == "bias":
            return seen.g.flatten(3).sum((1, 3))
        image, kernel = seen.input.flatten(0, 1), seen.g.flatten(0, 1)
        if self._transposed:  # its forward pass is the backward pass of a convolution
            image, kernel = kernel, image
        return self._correlate(image, kernel, seen).unflatten(0, (samples, rows)).sum(1)

    def _correlate(self, image: Tensor, kernel: Tensor, seen: Seen) -> Tensor:
        """From images `[n, in, ...]` and output gradients `[n, out, ...]` to weights `[n, out, in / groups, ...]`."""
        size, groups = seen.shape[2:], seen.arguments.get("groups", 1)
        stride, dilation = (self._each(seen.arguments.get(name, 1)) for name in ("stride", "dilation"))
        windows = F.pad(image, self._padding(seen, size, dilation))
        for i in range(self._dimensions):
            span = (size[i] - 1) * dilation[i] + 1
            windows = windows.unfold(2 + i, span, stride[i])[..., :: dilation[i]].narrow(2 + i, 0, kernel.shape[2 + i])
        positions = kernel.shape[2:].numel()
        # [n, in, *positions, *size] -> [n, groups, positions, in / groups * size]
        order = (0, 1, *range(3, 3 + self._dimensions), 2, *range(3 + self._dimensions, 3 + 2 * self._dimensions))
        right = windows.unflatten(1, (groups, -1)).permute(order).reshape(len(image), groups, positions, -1)
        left = kernel.flatten(2).unflatten(1, (groups, -1))
        return (left @ right).reshape(len(image), *seen.shape)

    def _each(self, value: Any) -> tuple[int, ...]:  # noqa: ANN401
        return (
            (value,) * self._dimensions
            if isinstance(value, int)
            else tuple(value) * (self._dimensions if len(value) == 1 else 1)
        )

    def _padding(self, seen: Seen, size: torch.Size, dilation: tuple[int, ...]) -> list[int]:
        """As `F.pad` takes it: last axis first, before and after."""
        padding = seen.arguments.get("padding", 0)
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        else:
            pairs = [(p, p) for p in self._each(0 if padding == "valid" else padding)]
        return [side for pair in reversed(pairs) for side in pair]


class Normalization(Operation):
    """y = w n(x) + b with n the normalisation of each row by itself, or by statistics that are fixed."""

    def __init__(self, function: Callable[..., Tensor], names: str, *, channels: bool, **options: Any) -> None:  # noqa: ANN401
        """A function whose parameters belong to the channels, axis 1, or else to the last axes."""
        super().__init__(names, **options)
        self._function = function
        self._channels = self.batch_first = channels

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
        return summed.unflatten(0, (samples, rows)).sum(1)


class Embedding(Operation):
    """Rows of a table by their indices."""

    slots = ("weight",)

    def gradient(self, slot: str, seen: Seen) -> Tensor:  # noqa: ARG002
        """The output gradients, added up where a sample has an index several times."""
        index, g = self._flat(seen)
        found = g.new_zeros(len(g), *seen.shape)
        return found.scatter_add_(1, index.unsqueeze(-1).expand_as(g), g)

    def squares(self, slot: str, seen: Seen) -> Tensor:  # noqa: ARG002
        """By the pairs of sample and index that occur, since a table of every sample would be large."""
        index, g = self._flat(seen)
        size = seen.shape[0]
        pairs = index + size * torch.arange(len(index), device=index.device).unsqueeze(1)
        found, inverse = pairs.flatten().unique(return_inverse=True)
        sums = g.new_zeros(len(found), seen.shape[1]).index_add_(0, inverse, g.flatten(0, 1))
        return g.new_zeros(seen.shape).index_add_(0, found % size, sums.square_())

    @staticmethod
    def _flat(seen: Seen) -> tuple[Tensor, Tensor]:
        """Indices `[samples, n]` and gradients `[samples, n, width]`, zero at the padding."""
        index, g = seen.input.flatten(1).long(), seen.g.flatten(1, -2)
        padding = seen.arguments.get("padding_idx")
        if padding is not None and padding >= 0:
            g = g.masked_fill((index == padding).unsqueeze(-1), 0)
        return index, g


class Elementwise(Operation):
    """A parameter that is added to features, multiplies them, or is repeated for every sample."""

    slots = ("input", "other")
    broadcasts = True

    def __init__(self, names: str, *, multiplies: bool = False) -> None:
        """See the class."""
        super().__init__(names)
        self.reads_input = multiplies

    def applies(self, arguments: Mapping[str, Any]) -> bool:
        """Without factors or given outputs."""
        return not {"alpha", "out"} & set(arguments)

    def operand(self, arguments: Mapping[str, Any], slots: set[str]) -> Any:  # noqa: ANN401
        """Whichever is no parameter."""
        return next((arguments[name] for name in self.slots if name in arguments and name not in slots), None)

    def accepts(self, axis: int, out: torch.Size, shape: torch.Size) -> bool:
        """If the parameter is the same for all samples."""
        return _aligned(shape, len(out))[axis] == 1

    def gradient(self, slot: str, seen: Seen) -> Tensor:  # noqa: ARG002
        """Sums over the elements that a parameter has met."""
        g = seen.g * seen.input if self.reads_input else seen.g
        aligned = _aligned(seen.shape, g.dim() - 1)
        del aligned[seen.axis]
        summed = [1, *(2 + i for i, size in enumerate(aligned) if size == 1)]
        return g.sum(summed).reshape(len(g), *seen.shape)


def _aligned(shape: torch.Size, dimensions: int) -> list[int]:
    """A shape as broadcasting aligns it with that many dimensions."""
    return [1] * (dimensions - len(shape)) + list(shape)


def _operations() -> dict[Callable[..., Any], Operation]:
    convolution = "input weight bias stride padding dilation groups"
    transposed = "input weight bias stride padding output_padding groups dilation"
    statistics = "input running_mean running_var weight bias"
    add, multiply = Elementwise("input other"), Elementwise("input other", multiplies=True)
    return {
        F.linear: Linear("input weight bias"),
        **{
            function: Convolution(convolution, dimensions)
            for dimensions, function in enumerate((torch.conv1d, torch.conv2d, torch.conv3d), start=1)
        },
        **{
            function: Convolution(transposed, dimensions, transposed=True)
            for dimensions, function in enumerate(
                (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), start=1
            )
        },
        F.layer_norm: Normalization(F.layer_norm, "input normalized_shape weight bias eps", channels=False),
        F.rms_norm: Normalization(F.rms_norm, "input normalized_shape weight eps", channels=False),
        F.group_norm: Normalization(F.group_norm, "input num_groups weight bias eps", channels=True),
        F.instance_norm: Normalization(F.instance_norm, f"{statistics} use_input_stats momentum eps", channels=True),
        F.batch_norm: Normalization(F.batch_norm, f"{statistics} training momentum eps", channels=True, training=False),
        F.embedding: Embedding(
            "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
            max_norm=None,
            scale_grad_by_freq=False,
        ),
        torch.add: add,
        torch.Tensor.add: add,
        torch.mul: multiply,
        torch.Tensor.mul: multiply,
        torch.Tensor.expand: Elementwise("input"),
    }


OPERATIONS = _operations()
"""The operations that are covered, by the functions that `torch.overrides` reports."""
