"""From contributions to verdicts: who carries the prediction, who is idle, who overfits, what is worth trying.

Every verdict is read off a 95 % interval. Where an interval reaches to both sides of a limit, or there is none, the
verdict is that nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal, TypeAlias

from awc_balance.contributions import Contributions
from awc_balance.diagnose.measured import Interval, Measured, as_measured

Role: TypeAlias = Literal["leading", "contributing", "idle", "harmful", "unclear"]
Answer: TypeAlias = Literal["yes", "no", "unclear"]
Advice: TypeAlias = Literal["worth trying", "test first", "no sign", "cannot tell"]

NEGLIGIBLE = 0.05
"""A contribution, or a difference of two, below this share of all contributions is not worth acting upon. A choice."""


@dataclass(frozen=True)
class Finding:
    """What is known about one modality, as plain values."""

    modality: str
    contribution: float
    """On held-out data where there are some."""
    interval: Interval | None
    """Its 95 % interval."""
    share: float
    """Of all contributions, counted by their size; negative for a negative one."""
    role: Role
    training: float | None
    """The contribution on the training data, where there are held-out data beside them."""
    gap: float | None
    """Training minus held-out."""
    gap_interval: Interval | None
    overfits: Answer | None
    """None without held-out data."""
    cost: float | None
    """Profit lost where this modality alone is zeroed. It has no interval."""
    hold_back: Advice
    leave_out: Advice


@dataclass(frozen=True)
class Diagnosis:
    """The findings by modality, the highest contribution first."""

    findings: tuple[Finding, ...]
    total: float
    """The sum of the contributions: profit of all modalities minus profit of none."""
    has_held_out: bool
    has_intervals: bool

    def named(self, role: Role) -> list[Finding]:
        """The findings with this role."""
        return [finding for finding in self.findings if finding.role == role]


def diagnose(contributions: Contributions | Measured, held_out: Contributions | Measured | None = None) -> Diagnosis:
    """Judge every modality of a trained model by its contribution.

    With s the sum of the absolute contributions, a modality is *idle* if its interval lies within 5 % of s around 0,
    *harmful* if it lies below 0, and counts if it lies above 5 % of s; among those that count, the highest and all
    whose intervals meet its own are *leading*, the others *contributing*. It *overfits* if the interval of
    training minus held-out contribution, half widths added in squares as for independent data, lies above 5 % of s.

    Args:
        contributions: On the training data; or on any data, if those are all. From `ShapleyContribution`, or as plain
            numbers in `Measured`.
        held_out: Of the same model on data that it was not trained on. Roles then rest on these.

    Returns:
        Plain values, the highest contribution first.

    Raises:
        TypeError: If contributions are of another kind.
        ValueError: If the two name different modalities, or a number is not finite.

    Example:
        >>> measured = Measured({"rgb": 0.7, "wifi": 0.01}, {"rgb": (0.6, 0.8), "wifi": (0.0, 0.02)})
        >>> [(finding.modality, finding.role) for finding in diagnose(measured).findings]
        [('rgb', 'leading'), ('wifi', 'idle')]
    """
    training = as_measured("contributions", contributions)
    judged = training if held_out is None else as_measured("held_out", held_out, training.contributions)
    roles = _roles(judged)
    order = sorted(roles, key=lambda modality: -judged.contributions[modality])
    findings = tuple(_finding(modality, training, judged, roles) for modality in order)
    total = sum(judged.contributions.values())
    return Diagnosis(findings, total, judged is not training, judged.intervals is not None)


def _finding(modality: str, training: Measured, judged: Measured, roles: dict[str, Role]) -> Finding:
    value, cost = judged.contributions[modality], judged.cost(modality)
    gap, gap_interval = (None, None) if judged is training else _gap(training, judged, modality)
    overfits = None if gap is None else _above(gap_interval, NEGLIGIBLE * training.size)
    return Finding(
        modality=modality,
        contribution=value,
        interval=judged.interval(modality),
        share=value / judged.size if judged.size else 0.0,
        role=roles[modality],
        training=None if judged is training else training.contributions[modality],
        gap=gap,
        gap_interval=gap_interval,
        overfits=overfits,
        cost=cost,
        hold_back=_hold_back(modality, roles, overfits),
        leave_out=_leave_out(roles[modality], cost, NEGLIGIBLE * judged.size, len(roles)),
    )


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
        return "idle"
    if high < 0:
        return "harmful"
    return "contributing" if low > limit else "unclear"


def _gap(training: Measured, held_out: Measured, modality: str) -> tuple[float, Interval | None]:
    """Training minus held-out, with the interval for two independent sets of data."""
    here, there = training.contributions[modality], held_out.contributions[modality]
    if training.intervals is None or held_out.intervals is None:
        return here - there, None
    (low, high), (low_there, high_there) = training.intervals[modality], held_out.intervals[modality]
    gap, below, above = here - there, hypot(here - low, high_there - there), hypot(high - here, there - low_there)
    return gap, (gap - below, gap + above)


def _above(interval: Interval | None, limit: float) -> Answer:
    if interval is None:
        return "unclear"
    return "yes" if interval[0] > limit else "no" if interval[1] <= limit else "unclear"


def _hold_back(modality: str, roles: dict[str, Role], overfits: Answer | None) -> Advice:
    """Reasons to hold a modality back: it overfits, or it leads alone while another may be starved by it."""
    if overfits == "yes":
        return "worth trying"
    if roles[modality] == "unclear":
        return "cannot tell"
    if list(roles.values()).count("leading") == 1 and roles[modality] == "leading" and "idle" in roles.values():
        return "test first"
    return "no sign" if overfits == "no" else "cannot tell"


def _leave_out(role: Role, cost: float | None, limit: float, modalities: int) -> Advice:
    """Reasons to train without a modality: it harms, it is idle, or the others can stand in for it."""
    if role == "unclear":
        return "cannot tell"
    if modalities == 1:
        return "no sign"
    if role in ("idle", "harmful"):
        return "worth trying"
    return "test first" if cost is not None and cost <= limit else "no sign"
