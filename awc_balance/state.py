"""Checking a saved state before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from awc_balance.checks import check_alpha, check_count, check_numbers
from awc_balance.grouping import check_groups


def buffer_name(kind: str, modality: str, name: str) -> str:
    """The name of a buffer: one without dots, which torch does not allow, and different for different parameters."""
    escaped = modality.replace("~", "~0").replace("/", "~1").replace(".", "~2")  # in the manner of RFC 6901
    return f"{kind}/{escaped}/{name.replace('.', '/')}"


def _is_fisher(key: str) -> bool:
    """Whether a key of a state, perhaps of a larger module's, is that of a Fisher diagonal."""
    return key.rpartition(".")[2].startswith("fisher/")


def check_state(found: Mapping[str, Any], own: Mapping[str, Any], extra: Mapping[str, type], *, strict: bool) -> None:
    """Refuse a state that does not fit.

    Args:
        found: The state that is to be loaded.
        own: The present one.
        extra: Names and types of the plain values in the entry that holds no tensor.
        strict: Whether keys have to be the same.

    Raises:
        TypeError: If it is not a mapping.
        ValueError: With every entry that is missing, unexpected, of another shape or not finite, or a Fisher diagonal
            that is negative.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"`state_dict` should be a mapping. Got {type(found).__name__}. Pass what state_dict() gave.")
    faults = {key: _fault(key, found[key], value, extra) for key, value in own.items() if key in found}
    if strict:
        faults |= {key: "missing" for key in own if key not in found}
        faults |= {key: "unexpected" for key in found if key not in own}
    listed = "\n  ".join(f"{key}: {fault}" for key, fault in faults.items() if fault)
    if listed:
        raise ValueError(
            f"`state_dict` should come from an object of the same kind and the same encoders. Got\n  {listed}\n"
            "Build the model and the encoders as they were when it was saved."
        )


def check_progress(found: Mapping[str, Any], modalities: Iterable[str], rule: str) -> None:
    """Refuse plain values of a saved regularizer that it could not go on from.

    Args:
        found: By name: "rule", "epoch", "contributions", "groups", "alphas".
        modalities: Their names.
        rule: That of the regularizer that is to go on.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If one is not finite, out of its range, or of other modalities, or the rule is another one.
    """
    if found["rule"] != rule:
        raise ValueError(
            f"`state_dict` should come from a regularizer of the same rule, {rule!r}. Got {found['rule']!r}. "
            f"Build the regularizer with rule={found['rule']!r}."
        )
    modalities = list(modalities)
    check_count("epoch", found["epoch"], 0)
    for modality, alpha in check_numbers("alphas", found["alphas"], modalities).items():
        check_alpha(f"alphas[{modality!r}]", alpha)
    if found["contributions"]:
        check_numbers("contributions", found["contributions"], modalities)
    if found["groups"]:
        check_groups(found["groups"], modalities)


def _fault(key: str, found: object, own: object, extra: Mapping[str, type]) -> str:
    """What is wrong with one entry; empty if nothing is."""
    if not isinstance(own, Tensor):
        if isinstance(found, Mapping) and all(isinstance(found.get(name), kind) for name, kind in extra.items()):
            return ""
        return f"should hold {', '.join(extra)}"
    if not isinstance(found, Tensor):
        return f"{type(found).__name__} in place of a tensor"
    if found.shape != own.shape:
        return f"shape {tuple(found.shape)} in place of {tuple(own.shape)}"
    if not _as_finite(found, own):
        return "not finite"
    return "negative" if _is_fisher(key) and bool((found < 0).any()) else ""


def _as_finite(found: Tensor, own: Tensor) -> bool:
    """Whether all numbers are finite but those that are not at present either, as in a frozen mask of -inf."""
    finite = found.isfinite()
    if finite.all():
        return True
    own = own.to(found)
    return bool((finite | (found == own) | (found.isnan() & own.isnan())).all())
