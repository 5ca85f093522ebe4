"""A straight axis: from values to places in a drawing, and where its ticks are."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

NOTHING = 1e-290
"""What is smaller is drawn as 0: a part of it could not be told from 0 in float64."""


class Axis(NamedTuple):
    """Values from `low` to `high` drawn at places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis(values: Iterable[float], start: float, end: float, *, most: int = 5, whole: bool = False) -> Axis:
    """An axis around the finite ones among the values, with at most `most + 1` round ticks inside it.

    Args:
        values: What is to be seen.
        start: The place of the lowest.
        end: The place of the highest.
        most: About how many ticks.
        whole: Whether ticks are whole numbers, as epochs are.

    Example:
        >>> axis([0.0, 0.83], 0, 100).ticks
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    finite = [value for value in values if isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest or largest < NOTHING:
        margin = 0.5 if whole or largest < NOTHING else 0.1 * abs(low)
        low, high = low - margin, high + margin
    elif not whole:  # a little room beyond the outermost values, but none below a zero
        room = 0.04 * (high - low)
        low, high = (low - room if low else low), (high + room if high else high)
    step = _round_step((high - low) / most)
    if whole:
        step = max(1.0, step)
    ticks = [round(k * step, 12) if step > 1e-9 else k * step for k in range(ceil(low / step), floor(high / step) + 1)]
    return Axis(low, high, start, end, ticks)


def _round_step(least: float) -> float:
    """The first of 1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) that is not less."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
