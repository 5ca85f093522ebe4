"""The command `python -m benchmarks.claim.splits`: the rule against plain training where every run has its own split.

The runs of `benchmarks.claim` differ in initial weights and in the order of the samples, on one split of every set.
Here the samples of a set are dealt anew for every seed, in parts of the same sizes. Only sets are taken whose samples
can be dealt at random: poses of MARS and MM-Fi belong to persons, who are in one part each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch

from benchmarks.ablation.cells import Cell, as_cell
from benchmarks.claim.judgement import LIMITS, verdict
from benchmarks.claim.plan import BUNDLED, RULE
from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.output import bold
from benchmarks.compare.summary import paired_interval
from benchmarks.compare.task import Task, load_task
from benchmarks.compare.tasks.mfeat import standardised
from benchmarks.compare.training import fit, prepare
from examples.machine import machine, machines
from examples.report import markdown_table
from examples.samples import Samples, Splits
from examples.sweep import sweep, write_json

CELLS = (
    *(Cell("mfeat_regression", data, size) for data in ("full", "scarce") for size in ("small", "large")),
    *(Cell("mfeat_classification", data) for data in ("full", "scarce")),
    *(Cell(f"{BUNDLED}:{name}") for name in ("diabetes", "breast_cancer", "digits")),
)
_NORMAL = 1.96
"""Half the width of a 95 % interval of the normal, in standard errors."""


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        cell: Task, data and size of the encoders.
        rule: Whether the calibration rule is on.
        seed: Of the split, the initial weights and the order of the samples.
    """

    cell: Cell
    rule: bool
    seed: int

    @property
    def epochs(self) -> int:
        """Passes over the training part."""
        return load_task(self.cell.task).epochs

    @property
    def name(self) -> str:
        """In file names and progress."""
        return f"{self.cell.name.removeprefix(f'{BUNDLED}:')} {RULE if self.rule else PLAIN}"


def redrawn(task: Task, seed: int) -> Task:
    """The task with its samples dealt anew to parts of the same sizes, standardised over the new training part."""
    parts = task.splits.train, task.splits.held_out, task.splits.test
    tables = {m: torch.cat([part.inputs[m] for part in parts]) for m in task.modalities}
    target = torch.cat([part.target for part in parts])
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    train, held_out, test = order.split([len(part) for part in parts])
    inputs = {m: standardised(table, train) for m, table in tables.items()}
    samples = Samples(inputs, standardised(target, train) if target.is_floating_point() else target)
    return replace(task, splits=Splits(samples.take(train), samples.take(held_out), samples.take(test)))


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train, and test the epoch that is best on the held-out part."""
    task = as_cell(redrawn(load_task(run.cell.task), run.seed), run.cell)
    setup = prepare(task, task.modalities, run.seed, task.epochs)
    fitted = fit(setup, METHODS[RULE if run.rule else PLAIN].build(setup, 0.0), tick)
    return {"run": asdict(run), "machine": machine(torch.device("cpu")), "unit": task.unit, **fitted}


def summarize(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By set, errors of both by seed, their difference, whether the first part of the claim holds, and the time."""
    found: dict[str, dict[bool, dict[int, dict[str, Any]]]] = {}
    for result in results:
        name = Cell(**result["run"]["cell"]).name.removeprefix(f"{BUNDLED}:")
        found.setdefault(name, {True: {}, False: {}})[result["run"]["rule"]][result["run"]["seed"]] = result
    return [_row(name, of_set) for name, of_set in found.items()]


def _row(name: str, of_set: dict[bool, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    rule, plain = ({seed: result["test"] for seed, result in of_set[how].items()} for how in (True, False))
    seeds = sorted(seed for seed in rule.keys() & plain.keys() if plain[seed])  # nothing is a percentage of zero
    changes = [100 * (rule[seed] / plain[seed] - 1) for seed in seeds]
    times = [of_set[True][seed]["seconds"] / of_set[False][seed]["seconds"] for seed in seeds]
    percent = paired_interval(changes)
    return {
        "set": name,
        "unit": next(iter(of_set[False].values()))["unit"],
        "splits": seeds,
        "errors": {"plain": [plain[seed] for seed in seeds], "rule": [rule[seed] for seed in seeds]},
        "changes": changes,
        "percent": percent,
        "verdict": verdict(percent, LIMITS["plain"]),
        "seconds": {
            way: median(of_set[how][seed]["seconds"] for seed in seeds)
            for way, how in (("plain", False), ("rule", True))
        },
        "times_as_long": median(times),
    }


def table(summary: list[dict[str, Any]]) -> str:
    """Change of the test error in per cent, paired by split, the worst and best of all splits, and what it costs."""
    columns = ["set", "plain", "rule", "change of the test error, %", "", "worst split", "best split", "times as long"]
    rows = [
        [
            f"{row['set']}, {row['unit']}",
            *(f"{fmean(row['errors'][key]):.4g}" for key in ("plain", "rule")),
            *(bold(row["percent"]), row["verdict"], f"{max(row['changes']):+.1f}", f"{min(row['changes']):+.1f}"),
            f"{row['times_as_long']:.1f}",
        ]
        for row in summary
    ]
    return markdown_table(columns, rows)


def together(summary: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean change of several sets, each weighted by its precision, with a 95 % interval of the normal."""
    errors = [(row["percent"]["mean"], stdev(row["changes"]) / sqrt(len(row["changes"]))) for row in summary]
    weights = [1 / error**2 for _, error in errors]
    mean = sum(w * change for w, (change, _) in zip(weights, errors, strict=True)) / sum(weights)
    return {"mean": mean, "low": mean - _NORMAL / sqrt(sum(weights)), "high": mean + _NORMAL / sqrt(sum(weights))}


def main(arguments: list[str] | None = None) -> int:
    """Train, and write table and JSON; returns the exit status: 130 if it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claim.splits", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--splits", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--first", type=int, default=200, help="first seed (%(default)s)")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/claim_splits"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.splits)
    try:
        runs = [Run(cell, rule, seed) for cell in CELLS for seed in seeds for rule in (False, True)]
        results = sweep(train, runs, options.out / "runs", asdict, options.workers)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    summary = summarize(results)
    print(table(summary))
    classes = [row for row in summary if row["unit"] == "errors, %"]
    if classes and all(len(row["splits"]) > 1 for row in classes):
        print(f"\nSets of classes together: {bold(together(classes))}")
    write_json(options.out / "claim_splits.json", {"machines": machines(results), "sets": summary})
    return 0 if len(results) == len(runs) else 130


if __name__ == "__main__":
    sys.exit(main())
