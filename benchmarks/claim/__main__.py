"""The command `python -m benchmarks.claim`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from awc_balance.report.files import write_whole
from benchmarks.ablation.cells import Cell, load_cell
from benchmarks.claim.judgement import judged
from benchmarks.claim.plan import CELLS, SEEDS, Run, describe, part, runs_of, train
from benchmarks.compare.output import bold
from examples.machine import machines
from examples.sweep import finished, sweep, write_json


def main(arguments: list[str] | None = None) -> int:
    """Train, and write table and JSON; returns the exit status: 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    cells = [cell for cell in CELLS if not options.cells or cell.name in options.cells]
    seeds = SEEDS[: options.seeds]
    try:
        wanted = {cell: runs_of(cell, seeds) for cell in cells}  # makes what is simulated only once
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    folder, every = options.out / "runs", sorted((run for runs in wanted.values() for run in runs), key=part)
    done = [] if options.finished else sweep(train, every, folder, describe, options.workers)
    found = {cell: finished(runs, folder, describe) for cell, runs in wanted.items()}
    begun = {cell for cell, runs in wanted.items() if all(_kept(run, folder) for run in runs if part(run) == 1)}
    whole = {cell.name: judged(cell, results, len(seeds)) for cell, results in found.items() if cell in begun}
    command = "python -m benchmarks.claim " + " ".join(sys.argv[1:] if arguments is None else arguments)
    origin = {"command": command.strip(), "machines": machines(r for results in found.values() for r in results)}
    write_json(options.out / "claim.json", {**origin, "seeds": seeds, "cells": whole})
    write_whole(options.out / "claim.md", markdown(whole, [c for c in cells if c.name not in whole]) + "\n")
    print(f"written: {options.out}/claim.json and .md")
    return 0 if options.finished or len(done) == len(every) else 130


def _kept(run: Run, folder: Path) -> bool:
    return bool(finished([run], folder, describe))


def markdown(cells: dict[str, Any], missing: list[Cell]) -> str:
    """The tables."""
    lines = [
        "| set | plain | rule | against plain, % | | against the best published method, % | "
        "| against the best subset, % | |",
        "|:--|--:|--:|--:|:--|--:|:--|--:|:--|",
    ]
    for cell in cells.values():
        title = cell["title"] + (", simulated" if cell["simulated"] and "simulated" not in cell["title"] else "")
        parts = [_mean(cell["errors"]["plain"]), _mean(cell["errors"]["rule"])]
        for name in ("plain", "published", "subset"):
            part = cell.get(name)
            parts += [bold(part["percent"]), _said(name, cell)] if part else ["", ""]
        lines.append(f"| {title}, {cell['unit']} | " + " | ".join(parts) + " |")
    held = ["", "Strongest pull of each modality, mean over runs (0 is none, 1 as strong as the gradients):", ""]
    held += [
        f"- {cell['title']}: " + ", ".join(f"{m} {value:.2f}" for m, value in cell["held_back"].items())
        for cell in cells.values()
    ]
    unfinished = [f"\nNot finished: {', '.join(load_cell(cell).title for cell in missing)}."] if missing else []
    return "\n".join([*lines, *held, *unfinished])


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def _said(name: str, cell: dict[str, Any]) -> str:
    who: list[str] = []
    if name == "published":
        who = cell["published_method"][:1]
    elif name == "subset":
        who = cell["best_subset"]
    return str(cell[name]["verdict"]) + (f" ({', '.join(who)})" if who else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claim",
        description="Test the claim of the calibration rule by benchmarks/claim/protocol.md. Finished runs are kept "
        "and not done again; what was interrupted goes on.",
    )
    parser.add_argument("--cells", nargs="+", default=[], metavar="CELL", help="such as mars/scarce/small (all)")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the ten (%(default)s)")
    parser.add_argument("--finished", action="store_true", help="no training: write what finished runs say")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/claim"), help="(%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
