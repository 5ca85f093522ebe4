"""Checking a saved state before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def buffer_name(kind: str, modality: str, name: str) -> str:
    """The name of a buffer: one without dots, which torch does not allow, and different for different parameters."""
    escaped = modality.replace("~", "~0").replace("/", "~1").replace(".", "~2")  # in the manner of RFC 6901
    return f"{kind}/{escaped}/{name.replace('.', '/')}"


def check_state(found: Mapping[str, Any], own: Mapping[str, Any], extra: Mapping[str, type], *, strict: bool) -> None:
    """Refuse a state that does not fit.

    Args:
        found: The state that is to be loaded.
        own: The present one.
        extra: Names and types of the plain values in the entry that holds no tensor.
        strict: Whether keys have to be the same.

    Raises:
        TypeError: If it is not a mapping.
        ValueError: With every entry that is missing, unexpected, of another shape or not finite.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"`state_dict` should be a mapping. Got {type(found).__name__}. Pass what state_dict() gave.")
    faults = {key: _fault(found[key], value, extra) for key, value in own.items() if key in found}
    if strict:
        faults |= {key: "missing" for key in own if key not in found}
        faults |= {key: "unexpected" for key in found if key not in own}
    listed = "\n  ".join(f"{key}: {fault}" for key, fault in faults.items() if fault)
    if listed:
        raise ValueError(
            f"`state_dict` should come from an object of the same kind and the same encoders. Got\n  {listed}\n"
            "Build the model and the encoders as they were when it was saved."
        )


def _fault(found: object, own: object, extra: Mapping[str, type]) -> str:
    """What is wrong with one entry; empty if nothing is."""
    if not isinstance(own, Tensor):
        if isinstance(found, Mapping) and all(isinstance(found.get(name), kind) for name, kind in extra.items()):
            return ""
        return f"should hold {', '.join(extra)}"
    if not isinstance(found, Tensor):
        return f"{type(found).__name__} in place of a tensor"
    if found.shape != own.shape:
        return f"shape {tuple(found.shape)} in place of {tuple(own.shape)}"
    return "" if found.isfinite().all() else "not finite"
