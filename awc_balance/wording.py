"""Numbers and names as they stand in sentences."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[float, float]


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in whole percents."""
    return f"{100 * share:.0f} %"


def interval(bounds: Interval) -> str:
    """Both bounds in brackets."""
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def percents(value: float, bounds: Interval) -> str:
    """A share with its interval, in percents."""
    return f"{_digits(value)} % [{_digits(bounds[0])}, {_digits(bounds[1])}]"


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names as in a sentence."""
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last


def _digits(share: float) -> str:
    percentage = 100 * share
    return f"{percentage:.0f}" if abs(percentage) >= 10 else f"{percentage + 0.0:.1f}"
