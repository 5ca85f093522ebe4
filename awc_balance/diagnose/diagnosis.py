"""From contributions to roles: who carries the prediction, who adds to it, who does next to nothing, who harms.

Every role is read off a 95 % interval. Where an interval reaches to both sides of a limit, or there is none, nothing
can be told. What to do about it is for a verdict to say (`calibration.verdict`), which needs more than contributions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from awc_balance.calibration.limits import NEGLIGIBLE
from awc_balance.contributions import Contributions
from awc_balance.diagnose.measured import Interval, Measured, as_measured

Role: TypeAlias = Literal["leading", "contributing", "negligible", "harmful", "unclear"]


@dataclass(frozen=True)
class Finding:
    """What is known about one modality, as plain values."""

    modality: str
    contribution: float
    interval: Interval | None
    """Its 95 % interval."""
    share: float
    """Of all contributions, counted by their size; negative for a negative one."""
    role: Role


@dataclass(frozen=True)
class Diagnosis:
    """The findings by modality, the highest contribution first."""

    findings: tuple[Finding, ...]
    total: float
    """The sum of the contributions: profit of all modalities minus profit of none."""
    has_intervals: bool

    def named(self, role: Role) -> list[Finding]:
        """The findings with this role."""
        return [finding for finding in self.findings if finding.role == role]


def diagnose(contributions: Contributions | Measured) -> Diagnosis:
    """The role of every modality of a trained model by its contribution.

    With s the sum of the absolute contributions, a modality is *negligible* if its interval lies within 5 % of s
    around 0, *harmful* if it lies below 0, and counts if it lies above 5 % of s; among those that count, the highest
    and all whose intervals meet its own are *leading*, the others *contributing*.

    Args:
        contributions: On data that the model was not trained on, if there are some. From `ShapleyContribution`, or as
            plain numbers in `Measured`.

    Returns:
        Plain values, the highest contribution first.

    Raises:
        TypeError: If contributions are of another kind.
        ValueError: If they name no modality, or a number is not finite.

    Example:
        >>> measured = Measured({"rgb": 0.7, "wifi": 0.01}, {"rgb": (0.6, 0.8), "wifi": (0.0, 0.02)})
        >>> [(finding.modality, finding.role) for finding in diagnose(measured).findings]
        [('rgb', 'leading'), ('wifi', 'negligible')]
    """
    judged = as_measured("contributions", contributions)
    roles = _roles(judged)
    order = sorted(roles, key=lambda modality: -judged.contributions[modality])
    findings = tuple(_finding(modality, judged, roles[modality]) for modality in order)
    return Diagnosis(findings, sum(judged.contributions.values()), judged.intervals is not None)


def _finding(modality: str, judged: Measured, role: Role) -> Finding:
    value = judged.contributions[modality]
    share = value / judged.size if judged.size else 0.0
    return Finding(modality, value, judged.interval(modality), share, role)


def _roles(judged: Measured) -> dict[str, Role]:
    """Every modality by where its interval lies."""
    values, intervals = judged.contributions, judged.intervals
    if intervals is None:
        return dict.fromkeys(values, "unclear")
    roles = {modality: _role(intervals[modality], NEGLIGIBLE * judged.size) for modality in values}
    counting = [modality for modality, role in roles.items() if role == "contributing"]
    if counting:
        lowest = intervals[max(counting, key=lambda modality: values[modality])][0]
        roles |= {modality: "leading" for modality in counting if intervals[modality][1] >= lowest}
    return roles


def _role(interval: Interval, limit: float) -> Role:
    low, high = interval
    if -limit <= low and high <= limit:
        return "negligible"
    if high < 0:
        return "harmful"
    return "contributing" if low > limit else "unclear"
