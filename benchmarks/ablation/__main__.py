"""The command `python -m benchmarks.ablation`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from awc_balance.report.files import write_whole
from benchmarks.ablation.cells import CELLS, cell_named, cells_of
from benchmarks.ablation.conditions import PARTS, STRENGTHS, middle
from benchmarks.ablation.figures import draw_groups, draw_slopes, draw_strengths
from benchmarks.ablation.plan import Plan
from benchmarks.ablation.predictors import EXCESSES, claimed, points, ranks
from benchmarks.ablation.summary import summarize
from benchmarks.ablation.tables import WAYS, markdown
from benchmarks.ablation.training import describe, train
from examples.machine import machines
from examples.sweep import file_words, finished, sweep, write_json


def main(arguments: list[str] | None = None) -> int:
    """Train what is asked for, and write what all finished runs say; returns the exit status: 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        plan = _plan(options)
        for cell in plan.cells:
            plan.load(cell)  # fails early, and makes what is simulated only once
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    wanted, folder = plan.runs(), options.out / "runs"
    print(f"{len(wanted)} runs", file=sys.stderr)
    if options.finished:
        found = finished(wanted, folder, describe)
    else:
        found = sweep(train, wanted, folder, describe, options.workers)
    if not found:
        return 130
    command = "python -m benchmarks.ablation " + " ".join(sys.argv[1:] if arguments is None else arguments)
    _write(summarize(plan, found), plan, {"command": command.strip(), "machines": machines(found)}, options.out)
    return 0 if options.finished or len(found) == len(wanted) else 130


def _write(summary: dict[str, Any], plan: Plan, origin: dict[str, Any], out: Path) -> None:
    about = {**origin, "seeds": plan.seeds, "middle_strengths": _middles()}
    found = {how: points(summary, how) for how in WAYS}
    telling = {
        how: {"points": p, "ranks": ranks(p), "claimed": {key: claimed(p, key) for key in EXCESSES}}
        for how, p in found.items()
    }
    write_json(out / "ablation.json", {**about, "cells": summary, "telling": telling})
    write_whole(out / "ablation.md", markdown(summary) + "\n")
    draw_slopes(summary, out / "ablation_slopes.png")
    draw_groups(summary, out / "ablation_groups.png")
    for name, cell in summary.items():
        if any(row["strength"] not in (0.0, middle(row["how"], row["anchor"])) for row in cell["rows"]):
            draw_strengths(cell, name, out / f"ablation_strengths_{file_words(name)}.png")
    print(f"written: {out}/ablation.json, .md and figures")


def _middles() -> dict[str, float]:
    return {f"{how} {anchor}".strip(): middle(how, anchor) for how, anchor in STRENGTHS}


def _plan(options: argparse.Namespace) -> Plan:
    cells = [cell_named(name) for name in options.cells] or [
        cell for cell in CELLS if not options.tasks or cell.task in options.tasks
    ] + [cell for task in options.tasks if task not in {c.task for c in CELLS} for cell in cells_of(task)]
    parts = ("full",) if options.full else tuple(options.parts)
    folders = tuple(tuple(pair.split("=", 1)) for pair in options.data)
    return Plan(tuple(cells), parts, options.seeds, options.share, folders)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description="Hold encoders back: whom, how, how hard, how long, towards what. Finished runs are kept and not "
        "done again; what was interrupted goes on.",
    )
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="(all)")
    parser.add_argument("--cells", nargs="+", default=[], metavar="CELL", help="such as mars/scarce/small (all)")
    parser.add_argument("--parts", nargs="+", default=list(PARTS)[:-1], choices=PARTS, help="fractions, in order")
    parser.add_argument("--full", action="store_true", help="the whole factorial, which takes days")
    parser.add_argument("--finished", action="store_true", help="no training: write what finished runs say")
    parser.add_argument("--seeds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs of every task (1)")
    parser.add_argument("--data", nargs="+", default=[], metavar="TASK=FOLDER", help="where the data of a task is")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/ablation"), help="(%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
