"""Which quantity of plain training tells what holding back one modality will do: ranks over cells and modalities."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import fmean
from typing import Any

from scipy.stats import spearmanr, t

Summary = dict[str, Any]
Quantity = Callable[[dict[str, dict[str, float]], dict[str, dict[str, float]]], float]

QUANTITIES: dict[str, Quantity] = {
    "slope, held out, below training": lambda own, _: own["excess"]["mean"],
    "the same, training slope not relative": lambda own, _: own["excess_unscaled"]["mean"],
    "slope, held out (negative)": lambda own, _: -own["slopes_held_out"]["mean"],
    "slope, held out, not relative (negative)": lambda own, whole: (
        -own["slopes_held_out"]["mean"] * whole["held_out"]["mean"]
    ),
    "contribution, held out": lambda own, _: own["contributions_held_out"]["mean"],
    "contribution, training minus held out": lambda own, _: own["gap"]["mean"],
    "this gap as a share of the one on training": lambda own, _: (
        own["gap"]["mean"] / max(abs(own["contributions_train"]["mean"]), 1e-9)
    ),
    "size of the part": lambda own, _: own["shares_held_out"]["mean"],
}
"""From what was seen of a modality and of the whole prediction at the best epoch; more should mean a larger gain."""


EXCESSES = {"excess": "excess", "excess_unscaled": "excess, training slope not relative"}
"""Two forms of one quantity; the second was thought of when the first had failed for classes."""


def points(summary: Summary, how: str) -> list[dict[str, Any]]:
    """Every cell and modality: the change of the test error when it alone is held back, and all quantities.

    Args:
        summary: By cell.
        how: "plain", to zero in all epochs, or "fisher", to the epoch's start in 40 % of them; middle strengths.
    """
    found = []
    for name, cell in summary.items():
        seen = cell["seen"][-1]
        for row in core_rows(cell, how):
            modality = row["whom"]
            if modality in cell["modalities"] and row["percent"] is not None:
                quantities = {key: quantity(seen[modality], seen["whole"]) for key, quantity in QUANTITIES.items()}
                ends = {key: interval_of(seen[modality][key], row["seeds"]) for key in EXCESSES}
                found.append({"cell": name, "modality": modality, **quantities, **ends, "percent": row["percent"]})
    return found


def core_rows(cell: dict[str, Any], how: str) -> list[dict[str, Any]]:
    """The rows of a cell with one way of `conditions.CORE`."""
    from benchmarks.ablation.conditions import CORE, middle

    ways = {way: (way, middle(way, anchor), window, anchor) for way, anchor, window in CORE}
    keys = ("how", "strength", "window", "anchor")
    return [row for row in cell["rows"] if tuple(row[key] for key in keys) == ways[how]]


def ranks(found: list[dict[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """By quantity: Spearman's rank correlation with the gain, over all points and as a mean of those within cells.

    And in how many cells the quantity names the modality that is best held back.

    The gain is the negative change of the test error; 1 would be a perfect ranking of all cells and modalities, which
    are not independent of one another.
    """
    result: dict[str, dict[str, float | int | None]] = {}
    cells = list(dict.fromkeys(point["cell"] for point in found))
    for key in QUANTITIES:
        result[key] = {
            "rho": _rho(found, key) if len(found) > 2 else None,
            "within": fmean(_rho([p for p in found if p["cell"] == cell], key) for cell in cells) if cells else None,
            "best_named": sum(_names_best(cell, found, key) for cell in cells),
        }
    return result


def interval_of(value: dict[str, float], seeds: int) -> dict[str, float]:
    """A mean over seeds with its 95 % interval by Student's t distribution."""
    half = float(t.ppf(0.975, seeds - 1)) * value["sd"] / sqrt(seeds)
    return {"mean": value["mean"], "low": value["mean"] - half, "high": value["mean"] + half}


def claimed(found: list[dict[str, Any]], excess: str = "excess") -> dict[str, dict[str, int]]:
    """How often holding back one modality helped, did not matter or harmed, by the sign of its excess.

    Both by 95 % intervals: "unclear" is what holds zero.
    """
    said, done = ("above 0", "unclear", "below 0"), ("harms", "unclear", "helps")
    counts = {word: dict.fromkeys(done[::-1], 0) for word in said}
    for point in found:
        counts[said[_sign(point[excess])]][done[_sign(point["percent"])]] += 1
    return counts


def _sign(value: dict[str, float]) -> int:
    """0 where an interval is above zero, 2 where it is below, else 1."""
    return 0 if value["low"] > 0 else 2 if value["high"] < 0 else 1


def _rho(found: list[dict[str, Any]], key: str) -> float:
    values, gains = ([point[key] for point in found], [-point["percent"]["mean"] for point in found])
    if len(set(values)) < 2 or len(set(gains)) < 2:
        return 0.0
    return float(spearmanr(values, gains).statistic)


def _names_best(cell: str, found: list[dict[str, Any]], key: str) -> bool:
    mine = [point for point in found if point["cell"] == cell]
    return max(mine, key=lambda point: point[key]) is min(mine, key=lambda point: point["percent"]["mean"])
