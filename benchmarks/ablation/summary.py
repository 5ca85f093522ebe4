"""What the runs say together: by cell, differences to plain training, and what was seen in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.ablation.cells import CELLS, Cell
from benchmarks.ablation.conditions import NOBODY, Condition
from benchmarks.ablation.plan import Plan
from benchmarks.compare.summary import compared
from examples.report import mean_and_sd

Result = dict[str, Any]
Row = dict[str, Any]

FEWEST_SEEDS = 5
"""Of a condition that is reported, where no fewer are asked for."""


def summarize(plan: Plan, results: Sequence[Result]) -> dict[str, Any]:
    """By cell, in which plain training has enough seeds: what was seen there, and a row of every condition.

    A condition without enough seeds is counted, and has no row.
    """
    enough = min(plan.seeds, FEWEST_SEEDS)
    found = {cell: [r for r in results if _cell(r) == cell] for cell in plan.cells}
    return {
        cell.name: _cell_summary(plan, cell, mine, enough)
        for cell, mine in found.items()
        if sum(_condition(r) == NOBODY for r in mine) >= enough
    }


def _cell_summary(plan: Plan, cell: Cell, results: Sequence[Result], enough: int) -> dict[str, Any]:
    task = plan.load(cell)
    by_condition: dict[Condition, list[Result]] = defaultdict(list)
    for result in results:
        by_condition[_condition(result)].append(result)
    plain = {result["run"]["seed"]: result for result in by_condition.pop(NOBODY)}
    done = {condition: mine for condition, mine in by_condition.items() if len(mine) >= enough}
    return {
        "title": task.title,
        "data": cell.data,
        "size": cell.size,
        "length": cell.length,
        "unit": task.unit,
        "simulated": task.simulated,
        "samples": {part: len(getattr(task.splits, part)) for part in ("train", "held_out", "test")},
        "modalities": list(task.modalities),
        "profit": task.profit,
        "plain": compared([*plain.values()], {}),
        "seen": _seen([result["probes"] for result in plain.values()], task.modalities),
        "rows": [_row(condition, mine, plain) for condition, mine in done.items()],
        "incomplete": len(by_condition) - len(done),
    }


def _row(condition: Condition, results: Sequence[Result], plain: dict[int, Result]) -> Row:
    return {
        **vars(condition),
        **compared(results, plain),
        "epochs_held": {m: fmean(r["epochs_held"][m] for r in results) for m in results[0]["epochs_held"]},
    }


def _seen(probes: Sequence[Sequence[dict[str, Any]]], modalities: Iterable[str]) -> list[dict[str, Any]]:
    """What was measured at every look of plain training: mean and spread over the seeds, by modality."""
    return [
        {
            "epoch": looks[0]["epoch"],
            "whole": {part: mean_and_sd(look[part]["whole"] for look in looks) for part in ("train", "held_out")},
            **{modality: _seen_of(modality, looks) for modality in modalities},
        }
        for looks in zip(*probes, strict=True)
    ]


def _seen_of(modality: str, looks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one modality, every quantity on training and on held-out samples, and what follows from both."""
    values = {
        f"{quantity}_{part}": [look[part][quantity][modality] for look in looks]
        for part in ("train", "held_out")
        for quantity in ("contributions", "slopes", "shares")
    }
    wholes = [look["train"]["whole"] for look in looks]
    slopes = [*zip(values["slopes_train"], values["slopes_held_out"], wholes, strict=True)]
    values["excess"] = [min(1.0, train) - other for train, other, _ in slopes]
    # Where classes are separated in training, all factors there are large, and what they are relative to says nothing.
    values["excess_unscaled"] = [min(1.0, whole * train) - other for train, other, whole in slopes]
    gaps = zip(values["contributions_train"], values["contributions_held_out"], strict=True)
    values["gap"] = [train - other for train, other in gaps]
    return {name: mean_and_sd(found) for name, found in values.items()}


def _cell(result: Result) -> Cell:
    return Cell(**{key: result["run"][key] for key in vars(CELLS[0])})


def _condition(result: Result) -> Condition:
    return Condition(**{key: result["run"][key] for key in vars(NOBODY)})
