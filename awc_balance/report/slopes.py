"""The figure of a rule by calibration slopes: what it saw, and below that what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from awc_balance.history import SLOPES_SHOWN, Row, modalities_of
from awc_balance.report import charts
from awc_balance.report.charts import Estimate, Series
from awc_balance.report.figures import cell, figure
from awc_balance.report.markup import Markup, join
from awc_balance.wording import number

_LOW, _HIGH = SLOPES_SHOWN
_HEADER = ("epoch", "modality", "slope, held-out", "slope, training", "share of the prediction", "strength")


def slopes(rows: Sequence[Row]) -> Markup | None:
    """Slopes by epoch on held-out and on training data, and strengths; None where no rule looked at slopes."""
    known = [row for row in rows if row.slopes]
    if not known:
        return None
    names = modalities_of(known)
    styled = dict(zip(names, charts.pairs(len(names)), strict=True))
    training = [Series(m, _training(known, m), style=dashed) for m, (_, dashed) in styled.items()]
    held_out = [Series(m, _held_out(known, m), _band(known, m), unbroken) for m, (unbroken, _) in styled.items()]
    strengths = [
        Series(m, [(row.epoch, row.alphas.get(m, 0.0)) for row in known], style=unbroken)
        for m, (unbroken, _) in styled.items()
    ]
    caption = (
        "Slope of each modality at the start of each epoch: on held-out data, with 95 % intervals; dashed and hollow, "
        f"on training data. What lies beyond {_LOW:g} or {_HIGH:g} is drawn there. Below: the strength of the pull."
    )
    chart = join(
        charts.lines("Slopes by epoch", [*training, *held_out], y_label="slope", around=[1.0]),
        charts.lines("Strengths by epoch", strengths, y_label="strength", around=[0.0, 1.0]),
    )
    table = [_cells(row, modality) for row in known for modality in row.slopes]
    return figure(chart, caption, _HEADER, table, charts.legend(names, [unbroken for unbroken, _ in styled.values()]))


def _held_out(rows: Sequence[Row], modality: str) -> list[tuple[float, float]]:
    return [(row.epoch, _shown(row.slopes[modality])) for row in rows if modality in row.slopes]


def _training(rows: Sequence[Row], modality: str) -> list[tuple[float, float]]:
    return [(row.epoch, _shown(row.training_slopes[modality])) for row in rows if modality in row.training_slopes]


def _band(rows: Sequence[Row], modality: str) -> list[tuple[float, float, float]]:
    known = [(row.epoch, row.slope_intervals[modality]) for row in rows if modality in row.slope_intervals]
    return [(epoch, _shown(low), _shown(high)) for epoch, (low, high) in known]


def _shown(slope: float) -> float:
    return min(max(slope, _LOW), _HIGH)


def _cells(row: Row, modality: str) -> list[str]:
    held_out = _slope(row.slopes, row.slope_intervals, modality)
    training = _slope(row.training_slopes, row.training_slope_intervals, modality)
    share = f"{100 * row.shares[modality]:.3g} %" if modality in row.shares else "-"
    return [str(row.epoch), modality, held_out, training, share, number(row.alphas.get(modality, 0.0))]


def _slope(values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], modality: str) -> str:
    return cell(Estimate(values[modality], intervals.get(modality))) if modality in values else "-"
