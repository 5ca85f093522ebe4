"""The pull of parameters towards their anchors: its value and its gradient, by multi-tensor operations.

`torch._foreach_*` run one operation over a list of tensors, on a GPU in a few launches. Their names begin with an
underscore, but they are what every optimizer of torch and `clip_grad_norm_` run on, and there is no public substitute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.precision import at_least_float32
from awc_balance.sharded import placement, shards, summed_like

Tensors: TypeAlias = tuple[Tensor, ...]

CHUNK = 2**20
"""Elements worked on at once: what is needed beside the gradients is this much, or the largest parameter."""


class Pulled(NamedTuple):
    """A parameter, the anchor it is pulled to, and the weight of the pull, its Fisher diagonal."""

    parameter: nn.Parameter
    anchor: Tensor
    fisher: Tensor


class Bundle(NamedTuple):
    """Parameters of one device and dtype that are pulled with one alpha, with their anchors and Fisher diagonals."""

    alpha: float
    parameters: Tensors
    anchors: Tensors
    fishers: Tensors


def bundles(terms: Iterable[tuple[float, Pulled]]) -> list[Bundle]:
    """Put together what multi-tensor operations can work on at once, up to `CHUNK` elements.

    Args:
        terms: Pulled parameters, each with its alpha.
    """
    found: list[tuple[float, list[Pulled]]] = []
    latest: dict[object, list[Pulled]] = {}
    filled: dict[object, int] = {}
    for alpha, pulled in terms:
        kind = (alpha, placement(pulled.parameter), *((tensor.device, tensor.dtype) for tensor in pulled))
        size = filled.get(kind, CHUNK + 1) + pulled.parameter.numel()
        if size > CHUNK:
            latest[kind], size = [], pulled.parameter.numel()
            found.append((alpha, latest[kind]))
        latest[kind].append(pulled)
        filled[kind] = size
    return [_bundle(alpha, members) for alpha, members in found]


def _bundle(alpha: float, members: Sequence[Pulled]) -> Bundle:
    parameters, anchors, fishers = zip(*members, strict=True)
    return Bundle(alpha, parameters, shards(anchors), shards(fishers))


def penalty(parts: Iterable[Bundle], device: torch.device | None = None) -> Tensor:
    """The sum over parameters of alpha F |theta - anchor|^2, differentiable twice, in float32 or better.

    AWC, arXiv 2501.05264, Section 3.3. Its gradient is in closed form; beside the parameters, anchors and Fisher
    diagonals themselves nothing is kept for the backward pass.

    Args:
        parts: From `bundles`.
        device: Of the result; None for the CPU.
    """
    total = torch.zeros((), device=device)
    for part in parts:
        value = _Penalty.apply(part, *shards(part.parameters))  # type: ignore[no-untyped-call]
        total = total + summed_like(value, part.parameters[0]).to(total.device)
    return total


@torch.no_grad()
def add_penalty_gradient_(parts: Sequence[Bundle]) -> None:
    """Add 2 alpha F (theta - anchor), the gradient of `penalty(parts)`, to `.grad` in place.

    Raises:
        ValueError: If a gradient is sparse; nothing is added then.
    """
    for part in parts:
        _refuse_sparse(part.parameters)
    for part in parts:
        gradients = shards(tuple(_gradient(parameter) for parameter in part.parameters))
        fishers = _on(part.parameters[0].device, part.fishers)
        torch._foreach_addcmul_(
            gradients, _offsets(shards(part.parameters), part.anchors), fishers, value=2 * part.alpha
        )


def add_pull_gradient_(terms: Iterable[Pulled], alpha: float) -> None:
    """Add 2 alpha F (theta - anchor) to `.grad` in place.

    Raises:
        ValueError: If a gradient is sparse; nothing is added then.
    """
    add_penalty_gradient_(bundles((alpha, term) for term in terms))


class _Penalty(torch.autograd.Function):
    """The sum of alpha F |theta - anchor|^2 over a bundle; its parameters come once more, for autograd to see them."""

    @staticmethod
    def forward(ctx: Any, bundle: Bundle, *parameters: Tensor) -> Tensor:  # noqa: ANN401 - torch gives no type
        ctx.save_for_backward(*parameters)
        ctx.bundle = bundle
        terms = _offsets(parameters, bundle.anchors)
        torch._foreach_mul_(terms, terms)
        torch._foreach_mul_(terms, _on(parameters[0].device, bundle.fishers))
        # F is not negative: the modulus of a term is F |theta - anchor|^2, for complex parameters too.
        return bundle.alpha * torch.stack(torch._foreach_norm(terms, 1)).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        parameters: Tensors = ctx.saved_tensors
        offsets = _offsets(parameters, ctx.bundle.anchors)
        fishers = _on(parameters[0].device, ctx.bundle.fishers)
        scale = 2 * ctx.bundle.alpha * gradient
        if torch.is_grad_enabled():  # create_graph=True; torch 2.13 cannot differentiate foreach by a scalar tensor
            return (None, *(offset * fisher * scale for offset, fisher in zip(offsets, fishers, strict=True)))
        torch._foreach_mul_(offsets, fishers)
        torch._foreach_mul_(offsets, scale)
        return (None, *offsets)


def _offsets(parameters: Tensors, anchors: Tensors) -> Tensors:
    """Theta - anchor in float32 or better, to which the anchors promote."""
    anchors = _on(parameters[0].device, anchors)
    if at_least_float32(anchors[0]) is not anchors[0]:
        anchors = tuple(map(at_least_float32, anchors))
    return torch._foreach_sub(parameters, anchors)


def _on(device: torch.device, kept: Tensors) -> Tensors:
    """What is kept, all in one place, on the device."""
    return kept if kept[0].device == device else tuple(tensor.to(device, non_blocking=True) for tensor in kept)


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, one of zeros if it has none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _refuse_sparse(parameters: Tensors) -> None:
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.layout is not torch.strided:
            raise ValueError(
                f"The gradient of a pulled parameter should be dense. Got {gradient.layout}. "
                "Add awc() to the loss instead, or build the embedding with sparse=False."
            )
