"""The operations whose per-sample gradients are known: linear, embedding, element-wise, and a table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from awc_balance.fisher.convolution import Convolution
from awc_balance.fisher.normalization import BatchNormalization, Normalization
from awc_balance.fisher.operation import Operation, Seen, add_squared_products

FEW_TOKENS = 3
"""Up to that many tokens their pairs are cheaper than the gradient of every sample."""


LEFT = 2**-6
"""What has to be left of a sum of squares by products of both signs, for their rounding not to matter."""


class Linear(Operation):
    """y = x W^T + b on vectors or, along further axes, on tokens."""

    def gradient(self, slot: str, seen: Seen) -> Tensor:
        """Sums over the tokens of a sample: of g x^T, and of g."""
        g = seen.g.flatten(1, -2)
        if slot == "bias":
            return g.sum(1)
        return g.mT @ seen.input.flatten(1, -2)

    def joined(self, uses: Sequence[Seen]) -> Seen:
        """Several uses are one with the tokens of all."""
        first = uses[0]
        x = torch.cat([seen.input.flatten(1, -2) for seen in uses], 1)
        g = torch.cat([seen.g.flatten(1, -2) for seen in uses], 1)
        return Seen(x, g, first.arguments, first.axis, first.shape)

    def squares(self, slot: str, seen: Seen) -> Tensor:
        """Of few tokens by their pairs, (sum_i g_i x_i^T)^2 = sum_ij (g_i g_j) (x_i x_j)^T, one product for each.

        So that without tokens the sum over samples is a single product of squares.
        """
        if seen.g.dim() == 3 and seen.g.shape[1] == 1:
            return self._squares_of_vectors(slot, seen)
        g = seen.g.flatten(1, -2)
        if slot == "bias":
            return g.sum(1).square_().sum(0)
        x = seen.input.flatten(1, -2)
        if g.shape[1] <= FEW_TOKENS:
            return _squares_by_pairs(g, x)
        total = g.new_zeros(1, *seen.shape)
        add_squared_products(g.mT.unsqueeze(1), x.unsqueeze(1), total)
        return total[0]

    @staticmethod
    def _squares_of_vectors(slot: str, seen: Seen) -> Tensor:
        """The sum over samples of the squares of g x^T, which are the products of their squares."""
        g = seen.g[:, 0]
        if "squares" not in seen.shared:  # for weight and bias
            seen.shared["squares"] = g * g
        squares: Tensor = seen.shared["squares"]
        if slot == "bias":
            return squares.sum(0)
        x = seen.input[:, 0]
        return squares.T @ (x * x)


def _squares_by_pairs(g: Tensor, x: Tensor) -> Tensor:
    """The sum over samples from `[samples, tokens, out]` and `[samples, tokens, in]`.

    The terms of pairs have signs. Where they cancel, which shows in the result, only roundings of the squares would be
    left of float32, so that everything is done again in double precision.
    """
    squares = x.new_zeros(g.shape[2], x.shape[2], dtype=g.dtype)
    products = torch.zeros_like(squares)
    for i in range(g.shape[1]):
        squares.addmm_((g[:, i] * g[:, i]).T, x[:, i] * x[:, i])
        for j in range(i):
            products.addmm_((g[:, i] * g[:, j]).T, x[:, i] * x[:, j], alpha=2)
    total = squares + products
    if g.dtype == torch.float64 or bool(products.add_(squares, alpha=1 - LEFT).min() >= 0):
        return total.clamp_(min=0)
    return _squares_by_pairs(g.double(), x.double()).to(g.dtype)


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
        F.batch_norm: BatchNormalization(f"{statistics} training momentum eps"),
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
