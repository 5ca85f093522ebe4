"""The summary as Markdown and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from awc_balance.report.files import write_whole
from benchmarks.compare.methods import METHODS, PLAIN
from examples.report import cell, markdown_table

Summary = dict[str, Any]
HARMS, HELPS, UNCLEAR = "#d55e00", "#009e73", "#777777"  # Okabe and Ito, for all eyes


def markdown(summary: Summary) -> str:
    """An overview, then of every task a table, and who carries the prediction of plain joint training."""
    return "\n\n".join([overview(summary), *(_task_markdown(task) for task in summary.values())])


def overview(summary: Summary) -> str:
    """The change of the test error in percent, by method and task; bold where its interval is off zero.

    Nothing where plain training makes no error with some seed.
    """
    methods = dict.fromkeys(row["method"] for task in summary.values() for row in task["rows"])
    rows = [["leaving out, as chosen on held-out data", *map(_chosen, summary.values())]]
    rows += [[m, *(_percent(task, m) for task in summary.values())] for m in methods if m != PLAIN]
    columns = ["change of the test error, %, by", *(task["title"] for task in summary.values())]
    return markdown_table(columns, rows)


def _chosen(task: Summary) -> str:
    chosen = task["subset_chosen_on_held_out"]
    left = [modality for modality in task["modalities"] if chosen is not None and modality not in chosen]
    return f"{', '.join(left)}: {bold(_row(task, PLAIN, chosen)['percent'])}" if left else "nothing"


def _percent(task: Summary, method: str) -> str:
    return bold(_row(task, method, task["modalities"])["percent"])


def _row(task: Summary, method: str, modalities: Sequence[str]) -> dict[str, Any]:
    """The row of a method; an empty one where it has none."""
    found = (row for row in task["rows"] if row["method"] == method and row["modalities"] == modalities)
    return next(found, {"percent": None})


def bold(value: dict[str, float | None] | None) -> str:
    """A mean and its interval, bold where that is off zero."""
    clear = value is not None and value["low"] is not None and value["low"] * (value["high"] or 0.0) > 0
    return f"**{interval(value)}**" if clear else interval(value)


def _task_markdown(task: Summary) -> str:
    samples = task["samples"]
    kind = "Simulated data: no result on real recordings. " if task["simulated"] else ""
    about = (
        f"{kind}{samples['train']} samples to train on, {samples['held_out']} held out from them to choose by, "
        f"{samples['test']} to test on."
    )
    columns = [f"test error ({task['unit']})", "mean ± sd", "against plain [95 %]", "in %", "strength", "time"]
    errors = markdown_table(columns, [_cells(row, task) for row in task["rows"]])
    alone = {row["modalities"][0]: row["test"] for row in task["rows"] if len(row["modalities"]) == 1}
    rows = [[modality, cell(task["contributions"][modality], 3), cell(alone.get(modality))] for modality in alone]
    carried = markdown_table([f"plain, all: contribution ({task['profit']})", "held-out", "error alone"], rows)
    return "\n\n".join([f"### {task['title']}", about, errors, *([carried] if rows else [])])


def label(row: dict[str, Any], task: Summary) -> str:
    """What a row is: a method, or the modalities of plain training."""
    if row["method"] != PLAIN:
        return str(row["method"])
    if row["modalities"] == task["modalities"]:
        return "**all, plain**"
    return "+".join(row["modalities"]) + (" (chosen)" if row["modalities"] == task["subset_chosen_on_held_out"] else "")


def _cells(row: dict[str, Any], task: Summary) -> list[str]:
    failed = f" ({row['failed']} failed)" if row["failed"] else ""
    strength = "" if row["strength"] is None else f"{METHODS[row['method']].strength} {row['strength']:g}"
    return [
        label(row, task),
        cell(row["test"]) + failed,
        interval(row["difference"]),
        interval(row["percent"]),
        strength,
        "" if row["time"] is None else f"{row['time']:.1f} x",
    ]


def interval(value: dict[str, float | None] | None) -> str:
    """A mean and its interval as text.

    >>> interval({"mean": 1.23, "low": -0.1, "high": 2.56})
    '+1.2 [-0.1, +2.6]'
    """
    if value is None:
        return ""
    bounds = "" if value["low"] is None else f" [{value['low']:+.1f}, {value['high']:+.1f}]"
    return f"{value['mean']:+.1f}{bounds}"


def draw(summary: Summary, file: Path) -> Path:
    """Differences to plain joint training in percent, with their intervals: methods, and the subset that was chosen."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150})
    shown = {name: [row for row in task["rows"] if _is_shown(row, task)] for name, task in summary.items()}
    rows, columns = -(-len(summary) // 2), min(2, len(summary))
    height = 0.28 * max(map(len, shown.values())) + 1.2
    figure, panels = plt.subplots(rows, columns, figsize=(5.2 * columns, height * rows), squeeze=False)
    for axes in panels.flat[len(summary) :]:
        axes.remove()
    for axes, (name, task) in zip(panels.flat, summary.items(), strict=False):
        _panel(axes, task, shown[name])
    figure.tight_layout()
    picture = BytesIO()
    figure.savefig(picture, format=file.suffix[1:])
    plt.close(figure)
    write_whole(file, picture.getvalue())
    return file


def _is_shown(row: dict[str, Any], task: Summary) -> bool:
    if row["percent"] is None:
        return False
    return bool(row["method"] != PLAIN or row["modalities"] == task["subset_chosen_on_held_out"])


def _panel(axes: Any, task: Summary, rows: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401 - matplotlib has no types
    for place, row in enumerate(reversed(rows)):
        value = row["percent"]
        low, high = (value["mean"] if value[end] is None else value[end] for end in ("low", "high"))
        colour = HARMS if low > 0 else HELPS if high < 0 else UNCLEAR
        axes.plot([low, high], [place, place], color=colour, lw=2)
        axes.plot(value["mean"], place, "o", color=colour)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [label(row, task) for row in reversed(rows)])
    axes.set_xlabel("change of the test error, %")
    axes.set_title(task["title"], loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
