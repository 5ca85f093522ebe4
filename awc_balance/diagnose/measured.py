"""The numbers that a diagnosis is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from awc_balance.checks import check_by_modality, check_numbers
from awc_balance.contributions import Contributions

Interval: TypeAlias = tuple[float, float]


class Measured(NamedTuple):
    """Contributions on one set of data as plain numbers, from wherever they are."""

    contributions: Mapping[str, float]
    intervals: Mapping[str, Interval] | None = None
    """95 % intervals by modality."""

    @property
    def size(self) -> float:
        """The sum of the absolute contributions."""
        return sum(abs(value) for value in self.contributions.values())

    def interval(self, modality: str) -> Interval | None:
        """The interval of a modality, if intervals are known."""
        return None if self.intervals is None else self.intervals[modality]


def as_measured(
    name: str, contributions: Contributions | Measured, modalities: Iterable[str] | None = None
) -> Measured:
    """Checked plain numbers.

    Args:
        name: What to call them in errors.
        contributions: To be read.
        modalities: Those that it has to name; None for any.

    Raises:
        TypeError: If it is something else.
        ValueError: If it names other modalities or none, or a number is not finite.
    """
    if not isinstance(contributions, Contributions | Measured):
        raise TypeError(
            f"`{name}` should be Contributions or Measured. Got {type(contributions).__name__}. "
            "Pass what ShapleyContribution(model, encoders).evaluate(loader) gives."
        )
    values = contributions.contributions if isinstance(contributions, Measured) else dict(contributions)
    modalities = list(values if modalities is None else modalities)
    values = check_numbers(name, values, modalities)
    if not values:
        raise ValueError(f"`{name}` should name at least one modality. Got none. Measure some.")
    return Measured(values, check_intervals(contributions.intervals, modalities))


def check_intervals(intervals: Mapping[str, Interval] | None, modalities: Iterable[str]) -> dict[str, Interval] | None:
    """Finite pairs by modality, if any.

    Raises:
        TypeError: If it is not a mapping to pairs of numbers.
        ValueError: If it names other modalities, or a bound is not finite.
    """
    if intervals is None:
        return None
    modalities = list(modalities)
    check_by_modality("intervals", intervals, modalities)
    for modality, pair in intervals.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"An interval should be a pair (low, high). Got {pair!r} for `{modality}`. Pass both.")
    low, high = (check_numbers("intervals", {m: intervals[m][side] for m in modalities}, modalities) for side in (0, 1))
    return {modality: (low[modality], high[modality]) for modality in modalities}
