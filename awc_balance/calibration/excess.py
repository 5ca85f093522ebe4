"""How much more a modality is trusted than held-out data bear out, and the strength that follows: the rule's core."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import NamedTuple

from awc_balance.calibration.slopes import Slopes

LARGEST = 1.0
"""The strongest pull: as strong as the gradients of batches."""

KEPT = 0.8
"""Of the strength of the epoch before: what is not said again fades, so that a modality that is learned late, and fits
noise until then, is not kept from it."""

_LEAST_SLOPE = 0.05
"""Below it a part is all but noise, and its noise-to-signal ratio is taken to be that of this slope."""


class Excess(NamedTuple):
    """By how much a modality's slope on held-out data is below what training data say, with a 95 % interval."""

    value: float
    low: float
    high: float
    reference: float
    """The slope on training data, at most 1: what the held-out one is compared with."""

    @property
    def credible(self) -> bool:
        """Whether the modality overfits, as far as the data can tell."""
        return self.low > 0


def excess(training: Slopes, held_out: Slopes) -> dict[str, Excess]:
    """By modality, min(1, slope on training data) - slope on held-out data.

    A modality that is not learned yet has the same slope, whatever it is, on both; one that is learned well has 1 on
    both. Only one that fits what held-out data do not have is below its training slope there.

    Args:
        training: Slopes on data that the model is trained on.
        held_out: Slopes on data that it is not trained on.

    Example:
        >>> from awc_balance.calibration.slopes import Slopes
        >>> def slopes(value, low, high):
        ...     known, interval = {"wifi": value}, {"wifi": (low, high)}
        ...     return Slopes(known, interval, 1.0, (0.9, 1.1), {"wifi": 1.0})
        >>> excess(slopes(1.02, 0.98, 1.06), slopes(0.7, 0.6, 0.8))["wifi"].credible
        True
    """
    found = {}
    for modality, slope in held_out.items():
        known = training[modality]
        reference = min(1.0, known)
        # Between 1 and a training slope above it nothing hangs on how well the latter is known.
        margin = hypot(_half(held_out, modality), _half(training, modality) if known < 1.0 else 0.0)
        value = reference - slope
        found[modality] = Excess(value, value - margin, value + margin, reference)
    return found


def next_strengths(before: Mapping[str, float], training: Slopes, held_out: Slopes) -> dict[str, float]:
    """The strength of the pull of every modality in the coming epoch, 0 to 1, from that in the last one.

    A slope g on held-out data is signal over signal and noise, so 1/g - 1 is the noise-to-signal ratio of the
    modality's part; what of it is credible (the end of the 95 % interval that is nearest to none) is added to four
    fifths of the strength. By what a part is credibly too small, it falls further. Nothing is added where there is no
    interval, or where the whole prediction is not yet worth anything on either data.

    Args:
        before: Strengths of the last epoch.
        training: Slopes on data that the model is trained on.
        held_out: Slopes on data that it is not trained on.
    """
    if not all(_tells(slopes) for slopes in (training, held_out)):
        return {modality: KEPT * strength for modality, strength in before.items()}
    return {
        modality: min(LARGEST, max(0.0, KEPT * before[modality] + _step(found, held_out, modality)))
        for modality, found in excess(training, held_out).items()
    }


def _tells(slopes: Slopes) -> bool:
    return slopes.whole_interval is not None and slopes.whole_interval[0] > 0


def _step(found: Excess, held_out: Slopes, modality: str) -> float:
    """By how much the strength of one modality changes."""
    if found.credible:
        return found.reference / max(found.reference - found.low, _LEAST_SLOPE) - 1
    least = held_out[modality] - _half(held_out, modality)
    return 1 / least - 1 if least > 1 else 0.0


def _half(slopes: Slopes, modality: str) -> float:
    """Half the width of an interval."""
    if slopes.intervals is None:
        return float("inf")
    low, high = slopes.intervals[modality]
    return (high - low) / 2
