"""The command `python -m benchmarks.compare`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from awc_balance.report.files import write_whole
from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.output import draw, markdown
from benchmarks.compare.plan import Plan, final_runs, search_runs
from benchmarks.compare.summary import summarize
from benchmarks.compare.task import load_task
from benchmarks.compare.tasks import TASKS
from benchmarks.compare.training import describe, train
from examples.machine import hardware, versions
from examples.sweep import sweep, write_json


def main(arguments: list[str] | None = None) -> int:
    """Search, train, and write table, JSON and figure; returns the exit status: 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    try:
        for name in plan.tasks:
            load_task(name, dict(plan.data).get(name))  # fails early, and makes what is simulated only once
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    folder, tried = options.out / "runs", search_runs(plan)
    print(f"search: {len(tried)} runs", file=sys.stderr)
    searched = sweep(train, tried, folder, describe, options.workers)
    if len(searched) < len(tried):
        return 130
    wanted = final_runs(plan, searched)
    print(f"final: {len(wanted)} runs, of which the search has done some", file=sys.stderr)
    final = sweep(train, wanted, folder, describe, options.workers)
    if not final:
        return 130
    summary = summarize(plan, searched, final)
    table = markdown(summary)
    machine = {"versions": versions(), "hardware": hardware(torch.device("cpu"))}
    command = "python -m benchmarks.compare " + " ".join(sys.argv[1:] if arguments is None else arguments)
    write_json(options.out / "compare.json", {"command": command.strip(), **machine, "tasks": summary})
    write_whole(options.out / "compare.md", table + "\n")
    draw(summary, options.out / "compare.png")
    print(table, "", "written:", *(f"  {options.out}/compare.{kind}" for kind in ("md", "json", "png")), sep="\n")
    return 0 if len(final) == len(wanted) else 130


def _plan(options: argparse.Namespace) -> Plan:
    quick = {"seeds": 2, "share": 0.1, "search": False} if options.quick else {}
    asked = {"seeds": options.seeds, "share": options.share}
    chosen = {key: value for key, value in asked.items() if value is not None}
    return Plan(
        tuple(options.tasks),
        (PLAIN, *(method for method in options.methods if method != PLAIN)),
        data=tuple(tuple(pair.split("=", 1)) for pair in options.data),
        **{**quick, **chosen},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare plain training, every subset of the modalities and every method, each with the same "
        "number of strengths tried on a held-out part of the training data. Finished runs are kept and not done "
        "again; what was interrupted goes on. An hour or two on two cores; --quick takes minutes, and shows no more "
        "than that it works.",
    )
    parser.add_argument(
        "--tasks", nargs="+", default=list(TASKS), metavar="TASK",
        help=f"of {', '.join(TASKS)}, or package.module:function, a function of a data folder (or None) that returns "
        "a benchmarks.compare.task.Task (all that are here)",
    )  # fmt: skip
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="(all)")
    parser.add_argument("--seeds", type=int, help="final runs of each kind (5)")
    parser.add_argument("--share", type=float, help="of the epochs of every task (1)")
    parser.add_argument("--data", nargs="+", default=[], metavar="TASK=FOLDER", help="where the data of a task is")
    parser.add_argument("--quick", action="store_true", help="2 seeds, a tenth of the epochs, nothing searched")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/compare"),
        help="where results go, and finished runs, which are not done again: take another one for a task that you "
        "changed (%(default)s)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
