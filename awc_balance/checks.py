"""Checks of arguments; each error gives the rule, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from numbers import Integral, Real
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse anything but one of the choices, with a ValueError."""
    if value not in choices:
        raise ValueError(f"`{name}` should be one of {', '.join(map(repr, choices))}. Got {value!r}. Choose one.")


def check_count(name: str, value: int, least: int) -> None:
    """Refuse anything but an integer of at least `least`, with a ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` should be an integer of at least {least}. Got {value!r}. Pass such an int.")


def check_callable(name: str, value: T, remedy: str) -> T:
    """The value, if it can be called.

    Raises:
        TypeError: If it cannot.
    """
    if not callable(value):
        raise TypeError(f"`{name}` should be callable. Got {type(value).__name__}. {remedy}")
    return value


def check_by_modality(name: str, values: Mapping[str, object], modalities: Iterable[str]) -> None:
    """Refuse a mapping that does not hold exactly the modalities.

    Raises:
        TypeError: If it is not a mapping.
        ValueError: If modalities are missing or unknown.
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            f"`{name}` should be a mapping by modality. Got {type(values).__name__}. "
            f"Pass one such as {{{', '.join(f'{modality!r}: ...' for modality in modalities)}}}."
        )
    expected = set(modalities)
    if set(values) != expected:
        raise ValueError(
            f"`{name}` should name exactly the modalities {', '.join(sorted(expected))}. "
            f"Got {', '.join(sorted(map(str, values))) or 'none'}. Name each of them once."
        )


def check_numbers(name: str, values: Mapping[str, float], modalities: Iterable[str]) -> dict[str, float]:
    """A finite float by modality, in the order of the modalities.

    Raises:
        TypeError: If it is not a mapping to numbers.
        ValueError: If modalities are missing or unknown, or a number is not finite.
    """
    modalities = list(modalities)
    check_by_modality(name, values, modalities)
    numbers = {modality: _number(name, values[modality]) for modality in modalities}
    for modality, number in numbers.items():
        if not isfinite(number):
            raise ValueError(
                f"`{name}` should be finite. Got {number} for `{modality}`. "
                "Look for the cause in its inputs, or give the numbers yourself."
            )
    return numbers


def check_alpha(name: str, value: float) -> float:
    """The strength of a pull as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    number = _number(name, value)
    if not (isfinite(number) and number >= 0):
        raise ValueError(f"`{name}` should be finite and at least 0. Got {value!r}. 0 switches the pull off.")
    return number


def _number(name: str, value: object) -> float:
    """A float of any real number, also of a tensor that holds one."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` should be made of numbers. Got {type(value).__name__}. Pass a float.")
    try:
        return float(value)
    except OverflowError:  # an int may be larger than any float
        return inf
