"""The summary as figures: what tells whom to hold back, groups by cell, and strengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator

from awc_balance.report.files import write_whole
from benchmarks.ablation.conditions import GROUPS, STRENGTHS, USUAL
from benchmarks.ablation.predictors import core_rows, points
from benchmarks.ablation.tables import WAYS

Summary = dict[str, Any]
Axes = Any
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito, for all eyes."""
MARKERS = "osD^vP*X"
STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150}
TICKS = [sign * tick for tick in (0, 5, 10, 20, 50, 100, 200) for sign in (-1, 1)]
LABEL = "change of the test error, %"
KINDS = {"regression": True, "classes": False}
"""Rows of panels, and whether targets are numbers."""
LEGEND_COLUMNS = 3


def draw_slopes(summary: Summary, file: Path) -> Path:
    """One modality held back: the change of the test error against the excess of its slope in plain training."""
    plt.rcParams.update(STYLE)
    cells = {
        title: [name for name, cell in summary.items() if (cell["profit"] == "pearson") == numbers]
        for title, numbers in KINDS.items()
    }
    found = {title: names for title, names in cells.items() if names}
    legend = 0.2 * ceil(len(summary) / LEGEND_COLUMNS) + 0.2
    height = 4.2 * len(found) + legend
    figure, panels = plt.subplots(
        len(found), len(WAYS), figsize=(5.6 * len(WAYS), height), sharex="row", sharey="row", squeeze=False
    )
    looks = {name: _look(number) for number, name in enumerate(summary)}
    for row, (title, names) in zip(panels, found.items(), strict=True):
        for axes, (how, words) in zip(row, WAYS.items(), strict=True):
            _slopes_panel(axes, summary, how, {name: looks[name] for name in names})
            axes.set_title(f"{title}: {words}", loc="left", fontsize=10)
            axes.set_xlabel("excess (plain training)")
            axes.set_ylabel(LABEL)
    handles = [handle for row in panels for handle in row[0].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, ncols=LEGEND_COLUMNS, fontsize=8, frameon=False, loc="lower center")
    return _save(figure, file, below=legend / height)


def draw_groups(summary: Summary, file: Path) -> Path:
    """Superior or inferior modalities held back, by cell, with both ways of the core."""
    plt.rcParams.update(STYLE)
    figure, panels = plt.subplots(1, len(WAYS), figsize=(5.2 * len(WAYS), 0.5 * len(summary) + 1.6), sharey=True)
    for axes, (how, words) in zip(panels, WAYS.items(), strict=True):
        for place, cell in enumerate(summary.values()):
            for group, colour, shift in zip(GROUPS, PALETTE[1::-1], (0.13, -0.13), strict=False):
                rows = [row for row in core_rows(cell, how) if row["whom"] == group and row["percent"]]
                for row in rows:
                    _bar(axes, row["percent"], -place + shift, colour, group if place == 0 else None)
        axes.axvline(0, color="black", lw=0.8)
        _percent_scale(axes, "x")
        axes.set_ylim(0.5 - len(summary), 0.5)
        axes.set_yticks([-place for place in range(len(summary))], list(summary))
        axes.set_xlabel(LABEL)
        axes.set_title(words, loc="left", fontsize=10)
    panels[0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(-0.75, 1.1))
    return _save(figure, file)


def draw_strengths(cell: dict[str, Any], title: str, file: Path) -> Path:
    """Groups against the strength, by way to hold back."""
    plt.rcParams.update(STYLE)
    ways = [(how, anchor, window) for how, anchor, window in USUAL if how != "freeze"]
    figure, panels = plt.subplots(1, len(ways), figsize=(3.1 * len(ways), 3.2), sharey=True)
    for axes, (how, anchor, window) in zip(panels, ways, strict=True):
        mine = [row for row in cell["rows"] if (row["how"], row["anchor"], row["window"]) == (how, anchor, window)]
        for group, colour, marker in zip(GROUPS, (PALETTE[1], PALETTE[0], PALETTE[7]), MARKERS, strict=False):
            _line(axes, [row for row in mine if row["whom"] == group and row["percent"]], group, colour, marker)
        _zero(axes)
        axes.set_xscale("log")
        values = STRENGTHS[how, anchor]
        axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axes.set_xticks([], minor=True)
        if how == "slow":
            axes.invert_xaxis()
        _percent_scale(axes, "y")
        axes.set_xlabel("factor of the steps" if how == "slow" else "strength")
        kind = {"fisher": "Fisher pull", "plain": "plain pull", "slow": "smaller steps"}[how]
        towards = {"epoch": " to the epoch's start", "zero": " to zero", "": ""}[anchor]
        axes.set_title(f"{kind}{towards}, {100 * window:g} %", loc="left", fontsize=9)
    panels[0].set_ylabel(LABEL)
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return _save(figure, file)


def _slopes_panel(axes: Axes, summary: Summary, how: str, looks: dict[str, dict[str, Any]]) -> None:
    """One point for every cell and modality."""
    for name, look in looks.items():
        mine = [point for point in points(summary, how) if point["cell"] == name]
        _scatter(axes, mine, {"label": name, **look})
    _zero(axes)
    axes.axvline(0, color="black", lw=0.6, alpha=0.4)
    axes.set_xlim(max(axes.get_xlim()[0], -1), min(axes.get_xlim()[1], 1))
    _percent_scale(axes, "y")


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of a cell; beyond eight cells colours come again, with other markers."""
    again, place = divmod(number, len(PALETTE))
    return {"color": PALETTE[place], "marker": MARKERS[(place + again) % len(MARKERS)]}


def _scatter(axes: Axes, found: Sequence[dict[str, Any]], style: dict[str, Any]) -> None:
    """Points with intervals; those whose change is off zero have the name of their modality."""
    for point in found:
        across, up = point["excess"], point["percent"]
        sideways, away = ([[v["mean"] - v["low"]], [v["high"] - v["mean"]]] for v in (across, up))
        axes.errorbar(across["mean"], up["mean"], yerr=away, xerr=sideways, ms=5, lw=0.8, **style)
        if up["low"] > 0 or up["high"] < 0:
            place = (across["mean"], up["mean"])
            axes.annotate(
                point["modality"], place, (4, 4), textcoords="offset points", fontsize=6, color=style["color"]
            )
        style = style | {"label": None}  # one entry in the legend


def _bar(axes: Axes, value: dict[str, float], place: float, colour: str, label: str | None) -> None:
    axes.plot([value["low"], value["high"]], [place, place], color=colour, lw=1.6)
    axes.plot(value["mean"], place, "o", color=colour, ms=5, label=label)


def _line(axes: Axes, rows: Iterable[dict[str, Any]], label: str, colour: str, marker: str) -> None:
    rows = sorted(rows, key=lambda row: float(row["strength"]))
    if not rows:
        return
    x = [row["strength"] for row in rows]
    low, middle, high = ([row["percent"][end] for row in rows] for end in ("low", "mean", "high"))
    axes.plot(x, middle, color=colour, marker=marker, ms=4, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def _percent_scale(axes: Axes, side: str) -> None:
    """Even up to 10 %, then by powers, so that small changes and disasters are both seen."""
    low, high = getattr(axes, f"get_{side}lim")()
    getattr(axes, f"set_{side}scale")("symlog", linthresh=10)
    getattr(axes, f"set_{side}lim")(min(low, -10.0), max(high, 10.0))
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axes.grid(axis=side, alpha=0.3)


def _zero(axes: Axes) -> None:
    axes.axhline(0, color="black", lw=0.8)


def _save(figure: Any, file: Path, below: float = 0.0) -> Path:  # noqa: ANN401 - matplotlib has no types
    figure.tight_layout(rect=(0, below, 1, 1))
    picture = BytesIO()
    figure.savefig(picture, format=file.suffix[1:])
    plt.close(figure)
    write_whole(file, picture.getvalue())
    return file
