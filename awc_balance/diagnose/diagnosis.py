"""From contributions to verdicts: who carries the prediction, who is idle, who overfits, what is worth trying.

Every verdict is read off a 95 % interval. Where an interval reaches to both sides of a limit, or there is none, the
verdict is that nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal, TypeAlias

from awc_balance.checks import check_by_modality, check_numbers
from awc_balance.contributions import Contributions

Role: TypeAlias = Literal["leading", "contributing", "idle", "harmful", "unclear"]
Answer: TypeAlias = Literal["yes", "no", "unclear"]
Advice: TypeAlias = Literal["worth trying", "test first", "no sign", "cannot tell"]
Interval: TypeAlias = tuple[float, float]

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


def diagnose(contributions: Contributions, held_out: Contributions | None = None) -> Diagnosis:
    """Judge every modality of a trained model by its contribution.

    With s the sum of the absolute contributions, a modality is *idle* if its interval lies within 5 % of s around 0,
    *harmful* if it lies below 0, and counts if it lies above 5 % of s; among those that count, the highest and all
    whose intervals meet its own are *leading*, the others *contributing*. It *overfits* if the interval of
    training minus held-out contribution, half widths added in squares as for independent data, lies above 5 % of s.

    Args:
        contributions: On the training data; or on any data, if those are all.
        held_out: Of the same model on data that it was not trained on. Roles then rest on these.

    Returns:
        Plain values, the highest contribution first.

    Raises:
        TypeError: If contributions are not from `ShapleyContribution`.
        ValueError: If the two name different modalities, or a number is not finite.

    Example:
        >>> measured = Contributions({"rgb": 0.7, "wifi": 0.01}, {}, {"rgb": (0.6, 0.8), "wifi": (0.0, 0.02)}, {})
        >>> [(finding.modality, finding.role) for finding in diagnose(measured).findings]
        [('rgb', 'leading'), ('wifi', 'idle')]
    """
    _check("contributions", contributions, list(contributions) if isinstance(contributions, Contributions) else [])
    if held_out is not None:
        _check("held_out", held_out, list(contributions))
    judged = contributions if held_out is None else held_out
    roles = _roles(judged)
    order = sorted(judged, key=lambda modality: -judged[modality])
    size = _size(judged)
    findings = []
    for modality in order:
        gap, gap_interval = (None, None) if held_out is None else _gap(contributions, held_out, modality)
        overfits = None if gap is None else _above(gap_interval, NEGLIGIBLE * _size(contributions))
        cost = _cost(judged, modality)
        findings.append(
            Finding(
                modality=modality,
                contribution=judged[modality],
                interval=_interval(judged, modality),
                share=judged[modality] / size if size else 0.0,
                role=roles[modality],
                training=None if held_out is None else contributions[modality],
                gap=gap,
                gap_interval=gap_interval,
                overfits=overfits,
                cost=cost,
                hold_back=_hold_back(modality, roles, overfits),
                leave_out=_leave_out(roles[modality], cost, NEGLIGIBLE * size, len(roles)),
            )
        )
    return Diagnosis(tuple(findings), sum(judged.values()), held_out is not None, judged.intervals is not None)


def _roles(judged: Contributions) -> dict[str, Role]:
    """Every modality by where its interval lies."""
    limit = NEGLIGIBLE * _size(judged)
    roles = {modality: _role(_interval(judged, modality), limit) for modality in judged}
    counting = [modality for modality, role in roles.items() if role == "contributing"]
    if counting:
        lowest = _known(judged, max(counting, key=lambda modality: judged[modality]))[0]
        roles |= {modality: "leading" for modality in counting if _known(judged, modality)[1] >= lowest}
    return roles


def _role(interval: Interval | None, limit: float) -> Role:
    if interval is None:
        return "unclear"
    low, high = interval
    if -limit <= low and high <= limit:
        return "idle"
    if high < 0:
        return "harmful"
    return "contributing" if low > limit else "unclear"


def _gap(training: Contributions, held_out: Contributions, modality: str) -> tuple[float, Interval | None]:
    """Training minus held-out, with the interval for two independent sets of data."""
    gap = training[modality] - held_out[modality]
    if training.intervals is None or held_out.intervals is None:
        return gap, None
    (low_t, high_t), (low_h, high_h) = _known(training, modality), _known(held_out, modality)
    below = hypot(training[modality] - low_t, high_h - held_out[modality])
    above = hypot(high_t - training[modality], held_out[modality] - low_h)
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


def _cost(judged: Contributions, modality: str) -> float | None:
    everyone = frozenset(judged)
    whole, without = judged.profits.get(everyone), judged.profits.get(everyone - {modality})
    return None if whole is None or without is None else whole - without


def _size(contributions: Contributions) -> float:
    return sum(abs(value) for value in contributions.values())


def _interval(contributions: Contributions, modality: str) -> Interval | None:
    return None if contributions.intervals is None else _known(contributions, modality)


def _known(contributions: Contributions, modality: str) -> Interval:
    low, high = (contributions.intervals or {})[modality]
    return float(low), float(high)


def _check(name: str, contributions: Contributions, modalities: list[str]) -> None:
    if not isinstance(contributions, Contributions):
        raise TypeError(
            f"`{name}` should be Contributions. Got {type(contributions).__name__}. "
            "Pass what ShapleyContribution(model, encoders).evaluate(loader) gives."
        )
    check_numbers(name, contributions, modalities)
    if contributions.intervals is not None:
        check_by_modality(f"{name}.intervals", contributions.intervals, modalities)
        for side in (0, 1):
            bounds = {modality: interval[side] for modality, interval in contributions.intervals.items()}
            check_numbers(f"{name}.intervals", bounds, modalities)
