"""Coalitions of modalities and exact Shapley values from a table of their profits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import factorial

import numpy as np
import torch
from torch import Tensor

MAX_MODALITIES = 16
"""2^16 coalitions are the most that the exact computation takes."""


def coalitions(modalities: Sequence[str]) -> list[frozenset[str]]:
    """All coalitions in the order of a table of profits: entry k holds the set bits of k, bit i being modality i."""
    refuse_too_many(len(modalities))
    return [
        frozenset(modality for i, modality in enumerate(modalities) if k >> i & 1) for k in range(2 ** len(modalities))
    ]


def refuse_too_many(modalities: int) -> None:
    """Refuse more modalities than the exact computation takes.

    Raises:
        ValueError: If there are more than `MAX_MODALITIES`.
    """
    if modalities > MAX_MODALITIES:
        raise ValueError(
            f"Exact Shapley values take at most {MAX_MODALITIES} modalities. Got {modalities}, which has "
            f"2^{modalities} coalitions. Treat related modalities as one, with an nn.ModuleList of their encoders."
        )


def shapley_values(profits: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Exact Shapley value of every modality.

    phi_m = sum over coalitions S without m of |S|! (M-|S|-1)! / M! * (v(S + m) - v(S)), for all M modalities as one
    matrix product with the table of profits v. Differentiable. Shapley (1953), "A value for n-person games".

    Args:
        profits: Table of 2^M profits along the first axis; entry k belongs to the coalition whose members are the
            set bits of k, bit i being modality i, so entry 0 is the empty coalition and the last the grand one.
            Further axes, such as output coordinates, pass through.

    Returns:
        The values, `[M, ...]`, in the dtype of the profits; float32 for half precision, float64 for integers.
        They sum to v(grand) - v(empty).

    Raises:
        ValueError: If the length of the first axis is not 2^M with M from 1 to 16.

    Example:
        >>> shapley_values([0.0, 10.0, 20.0, 50.0])  # {}, {0}, {1}, {0, 1}
        tensor([20., 30.], dtype=torch.float64)
    """
    table = profits if isinstance(profits, Tensor) else torch.as_tensor(np.asarray(profits))
    if not table.is_floating_point():
        table = table.double()
    elif table.dtype in (torch.float16, torch.bfloat16):
        table = table.float()
    length = len(table) if table.dim() else 0
    modalities = length.bit_length() - 1
    if modalities < 1 or length != 2**modalities:
        raise ValueError(
            "`profits` should hold one entry per coalition, 2^M along its first axis. "
            f"Got shape {tuple(table.shape)}. List the profits of all coalitions, the empty one first."
        )
    refuse_too_many(modalities)
    values: Tensor = torch.tensordot(shapley_weights(modalities).to(table), table, dims=1)
    return values


@lru_cache(maxsize=8)
def shapley_weights(modalities: int) -> Tensor:
    """The matrix `[M, 2^M]`, float64, that takes a table of profits to Shapley values."""
    with torch.inference_mode(False):  # kept for calls that are differentiated
        return _weight_matrix(modalities)


def _weight_matrix(modalities: int) -> Tensor:
    numbers = torch.arange(2**modalities)
    members = (numbers >> torch.arange(modalities).unsqueeze(1) & 1).bool()
    size = members.sum(0)
    orders = torch.tensor(
        [factorial(s) * factorial(modalities - s - 1) / factorial(modalities) for s in range(modalities)],
        dtype=torch.float64,
    )
    joined = orders[(size - 1).clamp(min=0)]  # m completes a coalition of size - 1 others
    missing = orders[size.clamp(max=modalities - 1)]  # m would join a coalition of size others
    return torch.where(members, joined, -missing)
