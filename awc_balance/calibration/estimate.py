"""A number with its 95 % interval: `Estimate`."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
