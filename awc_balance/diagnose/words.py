"""A diagnosis in plain sentences."""

from __future__ import annotations

from awc_balance.diagnose.diagnosis import Diagnosis, Finding
from awc_balance.wording import interval, listed, number, percent


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
        *(f"{f.modality} adds next to nothing: {_measured(f)}." for f in diagnosis.named("negligible")),
        *_unclear(diagnosis),
    ]


def _measured(finding: Finding) -> str:
    bounds = "" if finding.interval is None else f" {interval(finding.interval)}"
    share = "less than 1 %" if abs(finding.share) < 0.01 else percent(finding.share)
    return f"{number(finding.contribution)}{bounds}, {share} of all contributions"


def _whole(diagnosis: Diagnosis) -> list[str]:
    if diagnosis.total > 0 or not diagnosis.has_intervals:  # of a sample or two the sum is chance
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
