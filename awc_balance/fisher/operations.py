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
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from awc_balance.precision import at_least_float32

CHUNK_ELEMENTS = {"cpu": 2**16}
"""Elements of per-sample gradients held at once, by type of device: on a CPU what stays in its cache costs least."""
CHUNK_ELEMENTS_ELSEWHERE = 2**25

GROUPED_INPUTS, GROUPED_PAIRS = 8, 32 * 32
"""From that many input channels and up to that many pairs of channels, the weight gradients of single samples are fast
as groups of one large convolution."""


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

    def chunk(self, seen: Seen) -> int:
        """How many samples to take at once."""
        return _chunk_of(seen.shape, seen.g.device)

    @abstractmethod
    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """The gradients `[samples, *shape]` by the parameter in that slot."""

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """The sum over samples of squared gradients."""
        return sum_of_squares([(self, slot, seen)])


def _chunk_of(shape: torch.Size, device: torch.device) -> int:
    """How many tensors of that shape are held at once."""
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS_ELSEWHERE) // max(prod(shape), 1))


def sum_of_squares(uses: list[tuple[Operation, str, Seen]]) -> Tensor:
    """The sum over samples of the squared gradient of a parameter that took part in several calls."""
    _, _, first = uses[0]
    total = first.g.new_zeros(first.shape)
    chunk = max(operation.chunk(seen) for operation, _, seen in uses)
    for start in range(0, len(first.g), chunk):
        part = slice(start, start + chunk)
        operation, slot, seen = uses[0]
        gradient = operation.gradient(slot, seen[part])
        for operation, slot, seen in uses[1:]:
            gradient = gradient + operation.gradient(slot, seen[part])
        if len(gradient) == 1:
            total.addcmul_(gradient[0], gradient[0])
        else:
            total.add_(gradient.square().sum(0))
    return total


def add_squared_products(left: Tensor, right: Tensor, total: Tensor) -> None:
    """Add the squares of `left[i] @ right[i]` to a total `[groups, out, in]`, for every sample i.

    Args:
        left: `[samples, groups, out, n]`.
        right: `[samples, groups, n, in]`.
        total: Changed in place.
    """
    chunk = min(len(left), _chunk_of(total.shape, total.device))
    products = total.new_empty(chunk, *total.shape)
    for start in range(0, len(left), chunk):
        part = slice(start, start + chunk)
        product = products[: len(left[part])]
        torch.bmm(left[part].flatten(0, 1), right[part].flatten(0, 1), out=product.flatten(0, 1))
        if len(product) == 1:
            total.addcmul_(product[0], product[0])
        else:
            total.add_(product.square_().sum(0))


def _by_sample(gradients: Tensor, samples: int, rows: int) -> Tensor:
    """Sums over the rows of each sample."""
    return gradients if rows == 1 else gradients.reshape(samples, rows, *gradients.shape[1:]).sum(1)


class Linear(Operation):
    """y = x W^T + b on vectors or, along further axes, on tokens."""

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """Sums over the tokens of a sample: of g x^T, and of g."""
        g = seen.g.flatten(1, -2)
        if slot == "bias":
            return g.sum(1)
        return g.mT @ seen.input.flatten(1, -2)

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Without tokens a square is (g x^T)^2 = g^2 (x^2)^T, so that the sum over samples is one product."""
        g = seen.g.flatten(1, -2)
        if slot == "bias":
            return g.sum(1).square().sum(0)
        x = seen.input.flatten(1, -2)
        if g.shape[1] == 1:
            return g.squeeze(1).square().T @ x.squeeze(1).square()
        total = g.new_zeros(1, *seen.shape)
        add_squared_products(g.mT.unsqueeze(1), x.unsqueeze(1), total)
        return total[0]


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
            return _by_sample(self._grouped(seen), samples, rows)
        left, right = self._factors(seen)
        return _by_sample(self._as_weight(left @ right, seen.shape), samples, rows)

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Products are squared as they come."""
        if slot == "bias" or _is_grouped(seen.shape) or seen.g.shape[1] > 1:
            return super().squares(slot, seen)
        groups = seen.arguments.get("groups", 1)
        total = seen.g.new_zeros(groups, seen.shape[0] // groups, seen.shape[1:].numel())
        windows = seen.shape[1:].numel() * groups * seen.g.shape[3:].numel()
        chunk = max(1, 4 * _chunk_of(torch.Size([windows]), seen.g.device))
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


class Normalization(Operation):
    """y = w n(x) + b with n the normalisation of each row by itself, or by statistics that are fixed."""

    def __init__(self, function: Callable[..., Tensor], names: str, *, channels: bool, **options: Any) -> None:  # noqa: ANN401
        """A function whose parameters belong to the channels, axis 1, or else to the last axes."""
        super().__init__(names, **options)
        self._function = function
        self._channels = self.batch_first = channels

    def chunk(self, seen: Seen) -> int:
        """The products are larger than the parameters."""
        return _chunk_of(seen.g.shape[1:], seen.g.device)

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
        return _by_sample(summed, samples, rows)


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
