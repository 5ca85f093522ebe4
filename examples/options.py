"""Kinds of options that the commands share."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A `type` for `argparse`: whole numbers from `least` on.

    >>> at_least(1)("5")
    5
    """

    def number(text: str) -> int:
        if not text.lstrip("+-").isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"should be a whole number of at least {least}, not {text!r}")
        return int(text)

    return number
