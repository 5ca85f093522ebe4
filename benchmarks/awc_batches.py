"""How close models end up that AWC measured on a few batches of every epoch, in place of all.

    python -m benchmarks.awc_batches --seeds 5 --result FILE

AWC in the paper's setting on the tasks of `benchmarks.compare`: test errors, and their paired differences to measuring
on all batches and to plain training. `--quick` is for trying it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from awc_balance.balancers import AWC, Balancer, Plain
from benchmarks.compare.methods import Setup
from benchmarks.compare.output import interval
from benchmarks.compare.summary import paired_interval
from benchmarks.compare.task import load_task
from benchmarks.compare.training import fit, prepare
from examples.machine import hardware, versions
from examples.report import cell, markdown_table, mean_and_sd
from examples.sweep import sweep, write_json

PLAIN, FAITHFUL = "plain", "all batches"


@dataclass(frozen=True)
class Run:
    """A way to measure, with a task and a seed."""

    task: str
    way: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """In file names and progress."""
        return f"{self.task} {self.way}"


def build(setup: Setup, way: str) -> Balancer:
    """Plain training, or AWC that measures on all batches, or on so many."""
    if way == PLAIN:
        return Plain(*setup.parts)
    batches = None if way == FAITHFUL else int(way.split()[0])
    return AWC(*setup.parts, window=setup.share(0.4), contributions=setup.task.profit, batches=batches)


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """One run."""
    task = load_task(run.task)
    setup = prepare(task, task.modalities, run.seed, run.epochs)
    return {"run": vars(run), **fit(setup, build(setup, run.way), tick)}


def summarize(results: list[dict[str, Any]], ways: list[str]) -> list[dict[str, Any]]:
    """Errors of every way, and differences to measuring on all batches and to plain training, seed by seed."""
    errors = {way: {r["run"]["seed"]: r["test"] for r in results if r["run"]["way"] == way} for way in ways}

    def difference(way: str, other: str) -> dict[str, float | None] | None:
        seeds = sorted(errors[way].keys() & errors[other].keys()) if way != other else []
        return paired_interval([errors[way][seed] - errors[other][seed] for seed in seeds]) if seeds else None

    return [
        {
            "way": way,
            "test": mean_and_sd(errors[way].values()),
            "to_faithful": difference(way, FAITHFUL),
            "to_plain": difference(way, PLAIN),
        }
        for way in ways
    ]


def main(arguments: list[str] | None = None) -> int:
    """Train, and print a table for every task; returns the exit status: 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    ways = [PLAIN, FAITHFUL, *(f"{count} batches" for count in options.batches)]
    seeds, share = (1, 0.05) if options.quick else (options.seeds, 1.0)
    runs = [
        Run(task, way, seed, max(2, round(share * load_task(task).epochs)))
        for task in options.tasks
        for seed in range(seeds)
        for way in ways
    ]
    results = sweep(train, runs, options.out / "runs", vars, options.workers)
    found = {task: summarize([r for r in results if r["run"]["task"] == task], ways) for task in options.tasks}
    for task, rows in found.items():
        columns = [f"{load_task(task).title}, {load_task(task).unit}", "test", "against all batches", "against plain"]
        cells = [
            [row["way"], cell(row["test"], 2), interval(row["to_faithful"]), interval(row["to_plain"])] for row in rows
        ]
        print(markdown_table(columns, cells), end="\n\n")
    if options.result:
        machine = {"versions": versions(), "hardware": hardware(torch.device("cpu"))}
        command = "python -m benchmarks.awc_batches " + " ".join(sys.argv[1:] if arguments is None else arguments)
        write_json(options.result, {"command": command.strip(), **machine, "seeds": seeds, "tasks": found})
    return 0 if len(results) == len(runs) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.awc_batches", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["mars", "mfeat_regression"], help="(%(default)s)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="to measure on (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one seed and few epochs")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/awc_batches"), help="of the runs (%(default)s)")
    parser.add_argument("--result", type=Path, help="JSON file to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
