"""The figures of a report: a chart, what it shows, and its numbers as a table; None where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

from torch import Tensor

from awc_balance.diagnose import Measured
from awc_balance.history import Row, layer_shares, modalities_of, shares, window_of
from awc_balance.report import charts
from awc_balance.report.charts import Bar, Estimate, Series
from awc_balance.report.markup import Markup, element
from awc_balance.wording import interval, number

MOST_LAYERS = 12
"""The layers with the highest shares are drawn; the others share a bar."""


def contributions(measured: tuple[Measured | None, Measured | None], profit: str) -> Markup | None:
    """Contributions with intervals, on one set of data or on training and held-out data."""
    known = [result for result in measured if result is not None]
    if not known:
        return None
    rows = {
        modality: [Estimate(result.contributions[modality], result.interval(modality)) for result in known]
        for modality in known[0].contributions
    }
    both = len(known) == 2
    caption = f"Contribution by modality ({profit}), with 95 % intervals."
    if both:
        caption += " Filled: on training data. Hollow: on held-out data."
    header = ["modality", *(["training", "held-out"] if both else ["contribution"])]
    table = [[modality, *(cell(estimate) for estimate in row)] for modality, row in rows.items()]
    return figure(charts.estimates(caption, rows, x_label=f"contribution, {profit}"), caption, header, table)


def contributions_by_epoch(rows: Sequence[Row], profit: str, window: int | None) -> Markup | None:
    """Contributions by epoch, with bands where intervals are known and the window shaded."""
    known = [row for row in rows if row.contributions]
    if not known:
        return None
    names = modalities_of(known)
    series = [
        Series(
            modality,
            [(row.epoch, row.contributions[modality]) for row in known if modality in row.contributions],
            [(row.epoch, *row.intervals[modality]) for row in known if modality in row.intervals],
        )
        for modality in names
    ]
    caption = f"Contributions ({profit}) at the start of each epoch{_shading(rows, window)}"
    if any(s.band for s in series):
        caption += " Bands are 95 % intervals."
    table = [
        [str(row.epoch), modality, number(value), row.groups.get(modality, "-")]
        for row in known
        for modality, value in row.contributions.items()
    ]
    chart = charts.lines(caption, series, y_label="contribution", window=_shaded(rows, window))
    return figure(chart, caption, ["epoch", "modality", "contribution", "group"], table, charts.legend(names))


def penalty(rows: Sequence[Row], window: int | None) -> Markup | None:
    """The mean penalty of each epoch against the mean task loss."""
    readers: dict[str, Callable[[Row], float | None]] = {
        "loss": lambda row: row.loss,
        "penalty": lambda row: row.penalty,
    }
    found = {
        name: [(float(row.epoch), value) for row in rows if (value := read(row)) is not None]
        for name, read in readers.items()
    }
    series = [Series(name, points) for name, points in found.items() if points]
    if not series:
        return None
    caption = f"Mean {' and '.join(s.name for s in series)} of each epoch{_shading(rows, window)}"
    ratios = [row.penalty / row.loss for row in rows if row.penalty is not None and row.loss]
    if any(map(isfinite, ratios)):
        caption += f" The penalty is at most {number(100 * max(filter(isfinite, ratios)))} % of the loss."
    table = [
        [str(row.epoch), *("-" if (value := read(row)) is None else number(value) for read in readers.values())]
        for row in rows
    ]
    chart = charts.lines(caption, series, y_label="loss", window=_shaded(rows, window))
    return figure(chart, caption, ["epoch", *readers], table, charts.legend([s.name for s in series]))


def fisher_by_modality(rows: Sequence[Row], window: int | None) -> Markup | None:
    """Each modality's share in the trace of all Fisher diagonals, by epoch."""
    known = [(row.epoch, shares(row.fisher)) for row in rows if row.fisher]
    if not known:
        return None
    names = modalities_of(row for row in rows if row.fisher)
    caption = "Share of each modality in the trace of the Fisher diagonals"
    table = [[str(epoch), m, f"{100 * share:.3g} %"] for epoch, row in known for m, share in row.items()]
    header = ["epoch", "modality", "share"]
    if len(known) == 1:
        caption += f", epoch {known[0][0]}."
        chart = charts.bars(caption, [Bar(m, share, names.index(m)) for m, share in known[0][1].items()])
        return figure(chart, caption, header, table)
    caption += _shading(rows, window)
    series = [Series(m, [(epoch, row[m]) for epoch, row in known if m in row]) for m in names]
    chart = charts.lines(caption, series, y_label="share", window=_shaded(rows, window))
    return figure(chart, caption, header, table, charts.legend(names))


def fisher_by_layer(diagonal: Mapping[str, Mapping[str, Tensor]] | None) -> Markup | None:
    """The layers with the highest shares in the trace of all Fisher diagonals."""
    if not diagonal:
        return None
    every = sorted(layer_shares(diagonal).items(), key=lambda item: -item[1])
    modalities = list(diagonal)
    drawn = [Bar(f"{m}: {layer}", share, modalities.index(m)) for (m, layer), share in every[:MOST_LAYERS]]
    rest = every[MOST_LAYERS:]
    if rest:
        drawn.append(Bar(f"{len(rest)} other layers", sum(share for _, share in rest), charts.COLOURS - 1))
    caption = "Share of each layer in the trace of the Fisher diagonals."
    table = [[m, layer, f"{100 * share:.3g} %"] for (m, layer), share in every]
    return figure(charts.bars(caption, drawn), caption, ["modality", "layer", "share"], table)


def figure(
    chart: Markup,
    caption: str,
    header: Sequence[str],
    table: Sequence[Sequence[str]],
    legend: Markup | None = None,
) -> Markup:
    """A chart under its caption, with its numbers as a table to unfold."""
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [element("tr", *(element("td", cell) for cell in cells)) for cells in table]
    numbers = element("details", element("summary", "Numbers"), element("table", head, *body))
    return element("figure", element("figcaption", caption), chart, legend, numbers)


def _shaded(rows: Sequence[Row], window: int | None) -> tuple[int, int] | None:
    """The first and last epoch of the window, as far as rows reach; None if it never was open."""
    last = window_of(rows) if window is None else min(window, rows[-1].epoch)
    return None if last is None or last < rows[0].epoch else (rows[0].epoch, last)


def _shading(rows: Sequence[Row], window: int | None) -> str:
    return "." if _shaded(rows, window) is None else "; the window is shaded."


def cell(estimate: Estimate) -> str:
    """A number and its interval, as they stand in a table."""
    return number(estimate.value) + ("" if estimate.interval is None else f" {interval(estimate.interval)}")
