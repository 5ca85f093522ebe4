"""Whether each part of the claim holds, by the limits of `protocol.md`."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from benchmarks.ablation.cells import Cell, load_cell
from benchmarks.claim.plan import LONG, PUBLISHED, RULE
from benchmarks.compare.methods import PLAIN
from benchmarks.compare.summary import paired_interval

Results = list[dict[str, Any]]
Errors = dict[int, float]
"""Test errors by seed."""

LIMITS = {"plain": 0.5, "published": 0.5, "subset": 1.0}
"""Per cent."""


def judged(cell: Cell, results: Results, seeds: int) -> dict[str, Any]:
    """What the runs of a cell say: errors, differences of the rule to the others, whether the claim holds.

    A part of the claim whose runs are not all there is left out.
    """
    task = load_cell(cell)
    everyone = list(task.modalities)
    rule, plain = _errors(results, RULE, everyone), _errors(results, PLAIN, everyone)
    others = {"plain": plain}
    if cell.task in PUBLISHED and len(found := _errors(results, PUBLISHED[cell.task][0], everyone)) == seeds:
        others["published"] = found
    subset: list[str] | None = None
    if cell in LONG:
        subset, others["subset"] = everyone, plain
    elif sum(r["run"]["method"] == PLAIN for r in results) == seeds * (2 ** len(everyone) - 1):
        subset, others["subset"] = _best_subset(results)
    return {
        "title": f"{task.title}, {cell.data}" + (", large encoders" if cell.size == "large" else ""),
        "unit": task.unit,
        "simulated": task.simulated,
        "training_samples": len(task.splits.train),
        "errors": {"rule": list(rule.values()), "plain": list(plain.values())},
        "published_method": PUBLISHED.get(cell.task),
        "best_subset": subset,
        "held_back": _held_back(results, everyone),
        **{name: _compared(rule, other, LIMITS[name]) for name, other in others.items()},
    }


def verdict(difference: dict[str, float | None], limit: float) -> str:
    """Whether a part of the claim holds: "holds", "failed" or "cannot tell".

    >>> verdict({"mean": -1.0, "low": -2.0, "high": 0.1}, 0.5), verdict({"mean": 0.3, "low": -2.0, "high": 2.6}, 0.5)
    ('holds', 'cannot tell')
    """
    mean, low, high = difference["mean"], difference["low"], difference["high"]
    if high is not None and high <= limit:
        return "holds"
    failed = mean is not None and (mean > limit or (low is not None and low > 0))
    return "failed" if failed else "cannot tell"


def _compared(rule: Errors, other: Errors, limit: float) -> dict[str, Any]:
    seeds = [seed for seed in rule if other.get(seed)]  # nothing is a percentage of zero
    found = paired_interval([100 * (rule[seed] / other[seed] - 1) for seed in seeds]) if seeds else None
    return {"percent": found, "seeds": len(seeds), "verdict": verdict(found, limit) if found else "cannot tell"}


def _errors(results: Results, method: str, modalities: list[str]) -> Errors:
    return {
        result["run"]["seed"]: result["test"]
        for result in results
        if result["run"]["method"] == method
        and list(result["run"]["modalities"]) == modalities
        and result["test"] is not None
    }


def _best_subset(results: Results) -> tuple[list[str], Errors]:
    """The modalities with the lowest mean test error of plain training."""
    subsets = {tuple(r["run"]["modalities"]) for r in results if r["run"]["method"] == PLAIN}
    errors = {subset: _errors(results, PLAIN, list(subset)) for subset in sorted(subsets)}
    best = min((subset for subset in errors if errors[subset]), key=lambda subset: fmean(errors[subset].values()))
    return list(best), errors[best]


def _held_back(results: Results, modalities: list[str]) -> dict[str, float]:
    """The mean over runs of the strongest pull of each modality."""
    runs = [result["strengths"] for result in results if result["run"]["method"] == RULE]
    return {m: fmean(max(row[m] for row in rows) for rows in runs) for m in modalities} if runs else {}
