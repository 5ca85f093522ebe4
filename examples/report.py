"""What runs say together: means and spreads over seeds, differences by seed, and tables as text and markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

Results = Sequence[dict[str, Any]]
"""Results of runs, each with `run` (`name`, `seed`), `test`, `spread_mm` and `epochs`."""
Spread = dict[str, float | None]
"""`mean` and `sd`."""


def mean_and_sd(values: Iterable[float]) -> Spread | None:
    """Mean and sample standard deviation, which a single value has none of; None without values.

    >>> mean_and_sd([1.0, 3.0])
    {'mean': 2.0, 'sd': 1.4142135623730951}
    """
    values = list(values)
    if not values:
        return None
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def named(results: Results, name: str) -> list[dict[str, Any]]:
    """The results of one kind of run."""
    return [result for result in results if result["run"]["name"] == name]


def kind(results: Results, name: str, baseline: str | None = None) -> dict[str, Any]:
    """Errors of one kind of run over its seeds, and the differences to a baseline of the same seeds.

    Args:
        results: Of all runs.
        name: Of the kind.
        baseline: Name of the kind that it is compared with; itself or None for no comparison.
    """
    mine = {result["run"]["seed"]: result["test"] for result in named(results, name)}
    other = {result["run"]["seed"]: result["test"] for result in results if result["run"]["name"] == baseline}
    both = sorted(mine.keys() & other.keys()) if name != baseline else []
    return {
        "seeds": len(mine),
        "mpjpe_mm": mean_and_sd(test["mpjpe_mm"] for test in mine.values()),
        "pa_mpjpe_mm": mean_and_sd(test["pa_mpjpe_mm"] for test in mine.values()),
        "difference_mm": mean_and_sd(mine[seed]["mpjpe_mm"] - other[seed]["mpjpe_mm"] for seed in both),
    }


CONTRIBUTION_COLUMNS = ("Pearson", "negative MSE", "prediction sd, mm")


def contributions(results: Results, modalities: Iterable[str]) -> dict[str, Any]:
    """Who carries the prediction: contributions at the last epoch, and the spread of predictions from one modality.

    Args:
        results: Of one kind of run of all modalities; none is fine.
        modalities: Their names.

    Returns:
        `modalities`, for each its `pearson`, `negative_mse` and `spread_mm` over the seeds, and `target_spread_mm`.
    """
    last = [result["epochs"][-1] for result in results]
    target = mean_and_sd(result["spread_mm"]["target"] for result in results)
    by_modality = {
        modality: {
            "pearson": mean_and_sd(epoch["pearson"][modality] for epoch in last),
            "negative_mse": mean_and_sd(epoch["negative_mse"][modality] for epoch in last),
            "spread_mm": mean_and_sd(result["spread_mm"][modality] for result in results),
        }
        for modality in modalities
    }
    return {"modalities": by_modality if results else {}, "target_spread_mm": target and target["mean"]}


def contribution_rows(summary: dict[str, Any]) -> list[list[str]]:
    """What `contributions` gives as rows of text: a modality and `CONTRIBUTION_COLUMNS`."""
    rows = [
        [
            modality,
            f"{row['pearson']['mean']:.3f}",
            f"{row['negative_mse']['mean']:.4f}",
            f"{row['spread_mm']['mean']:.1f}",
        ]
        for modality, row in summary["modalities"].items()
    ]
    target = summary["target_spread_mm"]
    return rows if target is None else [*rows, ["true poses", "", "", f"{target:.1f}"]]


def cell(spread: Spread | None, digits: int = 1, *, sign: bool = False) -> str:
    """A mean and, if it is known, its spread as text; empty where there is none.

    >>> cell({"mean": 51.16, "sd": 0.31})
    '51.2 ± 0.3'
    """
    if spread is None:
        return ""
    mean = f"{spread['mean']:{'+' if sign else ''}.{digits}f}"
    return mean if spread["sd"] is None else f"{mean} ± {spread['sd']:.{digits}f}"


def cells(row: dict[str, Any]) -> list[str]:
    """MPJPE, PA-MPJPE, difference and number of seeds of what `kind` gives, as text."""
    difference = cell(row["difference_mm"], sign=True)
    return [cell(row["mpjpe_mm"]), cell(row["pa_mpjpe_mm"]), difference, str(row["seeds"])]


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: the first column to the left, the others to the right.

    >>> print(text_table(["who", "mm"], [["rgb", "63.6"], ["wifi", "166.9"]]))
    who      mm
    rgb    63.6
    wifi  166.9
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row in [columns, *rows]:
        others = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as markdown.

    >>> print(markdown_table(["who", "mm"], [["rgb", "63.6"]]))
    | who | mm |
    |:--|--:|
    | rgb | 63.6 |
    """
    rule = "|" + "|".join([":--", *["--:"] * (len(columns) - 1)]) + "|"
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in [columns, *rows]]
    return "\n".join([lines[0], rule, *lines[1:]])
