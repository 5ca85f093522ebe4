"""Checking Fisher diagonals that the user gives before they are used."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from awc_balance.checks import check_by_modality
from awc_balance.encoders import parameters_by_modality
from awc_balance.fisher.diagonal import Diagonal


def check_diagonal(given: Mapping[str, Mapping[str, Tensor]], encoders: Mapping[str, nn.Module]) -> Diagonal:
    """Fisher diagonals that the user gives, in the order of the parameters and where those are.

    Raises:
        TypeError: If it is not a mapping by modality of mappings by parameter name to tensors.
        ValueError: If one is missing, unknown, of another shape, negative or not finite.
    """
    check_by_modality("fisher", given, encoders)
    own = parameters_by_modality(encoders)
    faults: list[str] = []
    for modality, named in own.items():
        if not isinstance(given[modality], Mapping):
            raise TypeError(
                f"`fisher[{modality!r}]` should be a mapping from parameter name to tensor. "
                f"Got {type(given[modality]).__name__}. Pass what FisherDiagonal.compute() gave."
            )
        found = {name: _fault(given[modality].get(name), named.get(name)) for name in {**named, **given[modality]}}
        faults += [f"{name} of `{modality}`: {fault}" for name, fault in found.items() if fault]
    if faults:
        raise ValueError(
            "`fisher` should hold a finite tensor of at least 0 for every parameter. Got\n  "
            + "\n  ".join(faults)
            + "\nPass what FisherDiagonal.compute() gave for the same encoders."
        )
    return {m: {n: given[m][n].detach().to(p.device) for n, p in named.items()} for m, named in own.items()}


def _fault(value: object, parameter: nn.Parameter | None) -> str:
    """What is wrong with one Fisher diagonal; empty if nothing is."""
    if parameter is None:
        return "unexpected"
    if not isinstance(value, Tensor):
        return "missing" if value is None else f"{type(value).__name__} in place of a tensor"
    if value.shape != parameter.shape:
        return f"shape {tuple(value.shape)} in place of {tuple(parameter.shape)}"
    if not value.is_floating_point():
        return f"{value.dtype} in place of a floating-point dtype"
    if not value.isfinite().all():
        return "not finite"
    return "negative" if (value < 0).any() else ""
