"""Gradients of a loss by parameter, in float32 or better, leaving `.grad` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.encoders import in_words
from awc_balance.precision import at_least_float32
from awc_balance.sharded import is_sharded, local

Key: TypeAlias = tuple[str, str]
"""Modality, and name of the parameter inside its encoder."""

Gradients: TypeAlias = dict[Key, Tensor]
"""Shaped like the parameters, float32 or better."""


class Measured(NamedTuple):
    """What one batch says about the Fisher diagonal."""

    values: Gradients
    """The gradients of the mean loss, or sums of squared gradients."""
    samples: int
    loss: Tensor | None
    reached: set[Key]
    """The parameters that the loss depends on."""


def gradients(
    loss: Tensor, parameters: Mapping[Key, nn.Parameter], others: Iterable[Tensor] = ()
) -> tuple[Gradients, set[Key]]:
    """The gradients of a scalar loss, zeros where it does not depend on a parameter, and those it does depend on.

    Args:
        loss: Of a batch.
        parameters: What to differentiate by.
        others: All further leaves that the loss may depend on; needed where parameters are sharded.
    """
    found: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if loss.requires_grad and any(map(is_sharded, parameters.values())):
        found = _by_backward(loss, list(parameters.values()), others)
    elif loss.requires_grad:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return collect(parameters, found)


def _by_backward(loss: Tensor, parameters: Sequence[Tensor], others: Iterable[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of sharded parameters, which exist as `.grad` only; that is as before afterwards.

    They are the means over the processes already.
    """
    leaves = dict.fromkeys([*parameters, *others])
    before = {leaf: leaf.grad for leaf in leaves}
    try:
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        return tuple(parameter.grad for parameter in parameters)
    finally:
        for leaf, gradient in before.items():
            leaf.grad = gradient


def collect(parameters: Mapping[Key, nn.Parameter], found: Iterable[Tensor | None]) -> tuple[Gradients, set[Key]]:
    """The found gradients as dense tensors, zeros for missing ones, and the parameters that have one."""
    named = dict(zip(parameters, found, strict=True))
    values = {key: as_dense(gradient, parameters[key]) for key, gradient in named.items()}
    return values, {key for key, gradient in named.items() if gradient is not None}


def as_dense(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    """A dense copy in float32 or better of a gradient that may be sparse, low in precision or missing.

    Of sharded parameters it is this process's shard.
    """
    if gradient is None:
        return at_least_float32(torch.zeros_like(local(parameter.detach()), requires_grad=False))
    gradient = local(gradient.detach())
    dense = gradient.detach().to_dense() if gradient.layout != torch.strided else gradient.detach().clone()
    return at_least_float32(dense)


def non_finite(values: Gradients) -> list[Key]:
    """The parameters whose value is nan or infinite, by a single wait for each device."""
    flags: dict[torch.device, list[Tensor]] = {}
    for value in values.values():
        flags.setdefault(value.device, []).append(value.sum().isfinite())  # a sum that overflows is looked at below
    if all(bool(torch.stack(on_device).all()) for on_device in flags.values()):
        return []
    return [key for key, value in values.items() if not value.isfinite().all()]


def refuse_non_finite(measured: Measured, where: str) -> None:
    """Raise if a loss or a gradient is nan or infinite, naming the batch or step as `where` has it.

    Raises:
        ValueError: With the modalities and parameters concerned.
    """
    bad = non_finite(measured.values)
    loss = measured.loss
    if not bad and (loss is None or bool(loss.isfinite())):
        return
    raise ValueError(
        f"Loss and gradients should be finite. In {where} "
        + (f"the loss is {float(loss):g}" if loss is not None else "")
        + (" and " if loss is not None and bad else "")
        + (f"the gradient of {in_words(bad)} is nan or infinite" if bad else "")
        + ". Look for the cause in the batch or the parameters; what was measured before is kept."
    )
