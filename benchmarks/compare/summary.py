"""What the runs say together: errors, and differences to plain joint training with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.plan import Plan, Results, chosen_strength
from benchmarks.compare.task import load_task
from examples.report import mean_and_sd

Row = dict[str, Any]


def paired_interval(differences: Sequence[float], level: float = 0.95) -> dict[str, float | None]:
    """Mean of paired differences and its interval by Student's t distribution; without one for a single pair.

    >>> paired_interval([1.0, 2.0, 3.0])
    {'mean': 2.0, 'low': -0.484..., 'high': 4.484...}
    """
    mean = fmean(differences)
    if len(differences) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(t.ppf(0.5 + level / 2, len(differences) - 1)) * stdev(differences) / sqrt(len(differences))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarize(plan: Plan, searched: Results, final: Results) -> dict[str, Any]:
    """By task: a row of every subset and method, the search, and who carries the prediction.

    Args:
        plan: What was asked for.
        searched: Results of the search.
        final: Results of plain training, the subsets and the chosen strengths.
    """
    return {name: _task_summary(plan, name, searched, final) for name in plan.tasks}


def _task_summary(plan: Plan, name: str, searched: Results, final: Results) -> dict[str, Any]:
    task = load_task(name, dict(plan.data).get(name))
    mine = [result for result in final if result["run"]["task"] == name]
    joint = [result for result in mine if _is_joint(result, task.modalities)]
    subsets = list(dict.fromkeys(tuple(r["run"]["modalities"]) for r in mine if r["run"]["method"] == PLAIN))
    plain = {result["run"]["seed"]: result for result in joint if result["run"]["method"] == PLAIN}
    kinds = [(PLAIN, subset) for subset in sorted(subsets, key=len)]
    kinds += [(method, task.modalities) for method in plan.methods if method != PLAIN]
    rows = [_row(method, subset, mine, plain) for method, subset in kinds]
    for row in rows:
        chosen = chosen_strength(plan, name, row["method"], searched)
        row["strength"] = chosen if METHODS[row["method"]].strength else None
    return {
        "title": task.title,
        "unit": task.unit,
        "simulated": task.simulated,
        "samples": {part: len(getattr(task.splits, part)) for part in ("train", "held_out", "test")},
        "modalities": list(task.modalities),
        "profit": task.profit,
        "contributions": {
            modality: mean_and_sd(result["contributions"][modality] for result in plain.values())
            for modality in task.modalities
        },
        "subset_chosen_on_held_out": _best_subset(rows),
        "rows": rows,
        "search": [
            {key: result[key] for key in ("held_out", "seconds")} | _said(result, "method", "strength", "seed")
            for result in searched
            if result["run"]["task"] == name
        ],
    }


def _row(method: str, modalities: Sequence[str], results: Results, plain: dict[int, dict[str, Any]]) -> Row:
    mine = [
        result
        for result in results
        if result["run"]["method"] == method and tuple(result["run"]["modalities"]) == tuple(modalities)
    ]
    return {"method": method, "modalities": list(modalities), **compared(mine, plain)}


def compared(results: Results, plain: dict[int, dict[str, Any]]) -> Row:
    """Errors of one kind of run, and the differences to plain training with the same seeds.

    Args:
        results: Of that kind; those without a test error failed.
        plain: Of plain training by seed.
    """
    done = {result["run"]["seed"]: result for result in results if result["test"] is not None}
    pairs = [
        (result, plain[seed]) for seed, result in done.items() if seed in plain and plain[seed]["test"] is not None
    ]
    differences = [result["test"] - other["test"] for result, other in pairs if result is not other]
    comparable = differences and all(other["test"] for _, other in pairs)  # nothing is a percentage of zero
    return {
        "seeds": len(done),
        "failed": len(results) - len(done),
        "test": mean_and_sd(result["test"] for result in done.values()),
        "held_out": mean_and_sd(result["held_out"] for result in done.values()),
        "difference": paired_interval(differences) if differences else None,
        "percent": paired_interval([100 * (r["test"] / p["test"] - 1) for r, p in pairs]) if comparable else None,
        "time": fmean(result["seconds"] / other["seconds"] for result, other in pairs) if pairs else None,
        "by_seed": {str(seed): {key: done[seed][key] for key in _KEPT} for seed in sorted(done)},
    }


_KEPT = ("test", "test_last_epoch", "held_out", "best_epoch")


def _best_subset(rows: Sequence[Row]) -> list[str] | None:
    """The modalities, perhaps all, whose plain training has the lowest mean held-out error."""
    plain = [row for row in rows if row["method"] == PLAIN and row["held_out"]]
    if not plain:
        return None
    best: list[str] = min(plain, key=lambda row: float(row["held_out"]["mean"]))["modalities"]
    return best


def _is_joint(result: dict[str, Any], modalities: Sequence[str]) -> bool:
    return tuple(result["run"]["modalities"]) == tuple(modalities)


def _said(result: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: result["run"][key] for key in keys}
