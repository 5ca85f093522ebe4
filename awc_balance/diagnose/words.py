"""A diagnosis in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable

from awc_balance.diagnose.diagnosis import NEGLIGIBLE, Diagnosis, Finding
from awc_balance.diagnose.measured import Interval


def sentences(diagnosis: Diagnosis) -> list[str]:
    """What a reader should know, the most important first; every claim with its number and 95 % interval.

    Example:
        >>> from awc_balance.diagnose import Measured, diagnose
        >>> measured = Measured({"rgb": 0.7, "wifi": 0.01}, {"rgb": (0.6, 0.8), "wifi": (0.0, 0.02)})
        >>> sentences(diagnose(measured))[0]
        'rgb carries the prediction: 0.7 [0.6, 0.8], 99 % of all contributions.'
    """
    return [
        *_whole(diagnosis),
        *_leaders(diagnosis),
        *(f"{f.modality} adds to it: {_measured(f)}." for f in diagnosis.named("contributing")),
        *(_harmful(f) for f in diagnosis.named("harmful")),
        *(_idle(f, diagnosis) for f in diagnosis.named("idle")),
        *_unclear(diagnosis),
        *_overfitting(diagnosis),
        *(_redundant(f) for f in diagnosis.findings if f.leave_out == "test first"),
        *_nothing_to_do(diagnosis),
    ]


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in whole percents."""
    return f"{100 * share:.0f} %"


def interval(bounds: Interval) -> str:
    """Both bounds in brackets."""
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def listed(names: Iterable[str]) -> str:
    """Names as in a sentence."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _measured(finding: Finding) -> str:
    bounds = "" if finding.interval is None else f" {interval(finding.interval)}"
    share = "less than 1 %" if abs(finding.share) < 0.01 else percent(finding.share)
    return f"{number(finding.contribution)}{bounds}, {share} of all contributions"


def _whole(diagnosis: Diagnosis) -> list[str]:
    if diagnosis.total > 0:
        return []
    remedy = "" if diagnosis.named("harmful") else " Look at the training before its balance."
    return [
        "With all modalities the model predicts no better than with none: the contributions sum to "
        f"{number(diagnosis.total)}.{remedy}"
    ]


def _leaders(diagnosis: Diagnosis) -> list[str]:
    leading = diagnosis.named("leading")
    if not leading:
        return ["Which modality carries the prediction: cannot tell from this much data."]
    if len(leading) == 1:
        return [f"{leading[0].modality} carries the prediction: {_measured(leading[0])}."]
    each = "; ".join(f"{finding.modality} {_measured(finding)}" for finding in leading)
    return [
        f"{listed(f.modality for f in leading)} carry the prediction: {each}. "
        "Which of them carries more: cannot tell from this much data."
    ]


def _harmful(finding: Finding) -> str:
    return f"{finding.modality} makes the prediction worse: {_measured(finding)}. Training without it is worth trying."


def _idle(finding: Finding, diagnosis: Diagnosis) -> str:
    start = f"{finding.modality} is idle: {_measured(finding)}."
    leading = diagnosis.named("leading")
    if len(leading) != 1:
        return f"{start} Training without it is worth trying."
    return (
        f"{start} Either it says nothing about the target, or it was not learned because {leading[0].modality} was "
        f"faster. Train on {finding.modality} alone to find out: if that predicts well, holding "
        f"{leading[0].modality} back is worth trying; if not, leave {finding.modality} out."
    )


def _unclear(diagnosis: Diagnosis) -> list[str]:
    unclear = diagnosis.named("unclear")
    if unclear and not diagnosis.has_intervals:
        values = ", ".join(f"{finding.modality} {number(finding.contribution)}" for finding in unclear)
        return [
            f"There are no intervals, so nothing is judged: {values}. Intervals need ShapleyContribution.evaluate on "
            "two batches or more; twenty make them narrower."
        ]
    return [
        f"Whether {finding.modality} matters: cannot tell from this much data: {_measured(finding)}."
        for finding in unclear
    ]


def _overfitting(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.has_held_out:
        return ["Whether a modality overfits was not measured: that takes training data and held-out data."]
    found = [_overfits(finding) for finding in diagnosis.findings if finding.overfits == "yes"]
    unclear = [f for f in diagnosis.findings if f.overfits == "unclear"]
    if unclear:
        gaps = "; ".join(f"{f.modality} {_gap(f)}" for f in unclear)
        found.append(f"Whether these overfit, by training minus held-out: cannot tell from this much data: {gaps}.")
    if not found:
        found.append(
            "No modality overfits: training minus held-out contribution is below "
            f"{percent(NEGLIGIBLE)} of all contributions for each."
        )
    return found


def _overfits(finding: Finding) -> str:
    training = number(finding.training or 0.0)
    return (
        f"{finding.modality} overfits, or the held-out data differ in it: {training} on training data, "
        f"{number(finding.contribution)} on held-out data, difference {_gap(finding)}. "
        "Holding it back in the first epochs is worth trying."
    )


def _gap(finding: Finding) -> str:
    bounds = "" if finding.gap_interval is None else f" {interval(finding.gap_interval)}"
    return f"{number(finding.gap or 0.0)}{bounds}"


def _nothing_to_do(diagnosis: Diagnosis) -> list[str]:
    if any({finding.hold_back, finding.leave_out} != {"no sign"} for finding in diagnosis.findings):
        return []
    return ["Nothing here speaks for holding a modality back, or for leaving one out."]


def _redundant(finding: Finding) -> str:
    return (
        f"The others may stand in for {finding.modality}: zeroing it alone costs {number(finding.cost or 0.0)} of "
        "profit (no interval is known). Train once without it to find out."
    )
