"""What the gradients of single samples by an operation's parameters are made from, and how their squares add up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from awc_balance.precision import at_least_float32

CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE = 2**16, 2**25
"""Elements of per-sample gradients held at once, on a CPU and elsewhere: what stays in the CPU's cache costs least."""

ALONE = 2**14
"""Elements in the matrices of one sample from which it is multiplied by itself on a CPU: its product is squared while
it lies in the cache, and the factors need not lie together with those of other samples."""


@dataclass(slots=True, eq=False)
class Seen:
    """What one call of an operation has shown, samples first.

    Args:
        x: The input `[samples, k, ...]`, k rows of the operation's input to a sample; None if it has none.
        g: The gradient of the output, likewise.
        arguments: The operation's other arguments, by name.
        axis: Of the samples in the output as the operation gave it.
        shape: Of the parameter.
        shared: What an operation has found for all parameters of the call.
    """

    x: Tensor | None
    g: Tensor
    arguments: Mapping[str, Any]
    axis: int
    shape: torch.Size
    shared: dict[str, Any] = field(default_factory=dict)

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
        return chunk_of(seen.shape, seen.g.device)

    @abstractmethod
    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """The gradients `[samples, *shape]` by the parameter in that slot."""

    def joined(self, uses: Sequence[Seen]) -> Seen | None:  # noqa: ARG002
        """One use that has the gradients of several added up; None where there is no such use."""
        return None

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """The sum over samples of squared gradients."""
        return sum_of_squares([(self, slot, seen)])


def chunk_of(shape: torch.Size, device: torch.device, times: int = 1) -> int:
    """How many tensors of that shape are held at once, on a CPU in that many times the usual space."""
    space = times * CHUNK_ELEMENTS if device.type == "cpu" else CHUNK_ELEMENTS_ELSEWHERE
    return max(1, space // max(prod(shape), 1))


def sum_of_squares(uses: Sequence[tuple[Operation, str, Seen]]) -> Tensor:
    """The sum over samples of the squared gradient of a parameter that took part in several calls."""
    operation, slot, first = uses[0]
    if len(uses) > 1 and {use[:2] for use in uses} == {(operation, slot)}:
        joined = operation.joined([seen for _, _, seen in uses])
        if joined is not None:
            return operation.squares(slot, joined)
    total = first.g.new_zeros(first.shape)
    chunk = max(operation.chunk(seen) for operation, _, seen in uses)
    for start in range(0, len(first.g), chunk):
        part = slice(start, start + chunk)
        operation, slot, seen = uses[0]
        gradient = operation.gradient(slot, seen[part])
        for operation, slot, seen in uses[1:]:
            gradient = gradient + operation.gradient(slot, seen[part])
        add_up(gradient.square(), total)
    return total


def add_up(squares: Tensor, total: Tensor) -> None:
    """Add `[samples, ...]` to a total `[...]` in place, as a product with ones, which is faster than `sum`."""
    total.view(-1).addmv_(squares.reshape(len(squares), -1).T, squares.new_ones(len(squares)))


def add_squared_products(left: Tensor, right: Tensor, total: Tensor) -> None:
    """Add the squares of `left[i] @ right[i]` to a total `[groups, out, in]`, for every sample i.

    Args:
        left: `[samples, groups, out, n]`.
        right: `[samples, groups, n, in]`.
        total: Changed in place.
    """
    if total.device.type == "cpu" and total.numel() + left[0].numel() + right[0].numel() > ALONE:
        product = torch.empty_like(total)
        for one, other in zip(left.unbind(), right.unbind(), strict=True):
            torch.bmm(one, other, out=product)
            total.addcmul_(product, product)
        return
    chunk = min(len(left), chunk_of(total.shape, total.device, times=4))
    products = total.new_empty(chunk, *total.shape)
    for some, others in zip(left.split(chunk), right.split(chunk), strict=True):
        product = products[: len(some)]
        torch.bmm(some.flatten(0, 1), others.flatten(0, 1), out=product.flatten(0, 1))
        add_up(product.square_(), total)


def by_sample(gradients: Tensor, samples: int, rows: int) -> Tensor:
    """Sums over the rows of each sample."""
    return gradients if rows == 1 else gradients.reshape(samples, rows, *gradients.shape[1:]).sum(1)
