"""The pull of parameters towards their anchors: its value and its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awc_balance.precision import at_least_float32, squared


class Pulled(NamedTuple):
    """A parameter, the anchor it is pulled to, and the weight of the pull, its Fisher diagonal."""

    parameter: nn.Parameter
    anchor: Tensor
    fisher: Tensor


def pull(terms: Iterable[Pulled]) -> Tensor:
    """L_m = sum over parameters of F (theta - anchor)^2, differentiable, in float32 or better.

    AWC, arXiv 2501.05264, Section 3.3. On the device of the first parameter; 0 without any.
    """
    parts = [(fisher * squared(_offset(parameter, anchor))).sum() for parameter, anchor, fisher in terms]
    if not parts:
        return torch.zeros(())
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()


@torch.no_grad()
def add_pull_gradient_(terms: Iterable[Pulled], alpha: float) -> None:
    """Add 2 alpha F (theta - anchor), the gradient of `alpha * pull(terms)`, to `.grad` in place.

    Raises:
        ValueError: If a gradient is sparse; nothing is added then.
    """
    terms = list(terms)
    for parameter, *_ in terms:
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            raise ValueError(
                f"The gradient of a pulled parameter should be dense. Got {parameter.grad.layout}. "
                "Add awc() to the loss instead, or build the embedding with sparse=False."
            )
    for parameter, anchor, fisher in terms:
        gradient = (_offset(parameter, anchor) * fisher).mul_(2 * alpha).to(parameter.dtype)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.add_(gradient)


def _offset(parameter: Tensor, anchor: Tensor) -> Tensor:
    """Theta - anchor in float32 or better."""
    return at_least_float32(parameter) - at_least_float32(anchor)
