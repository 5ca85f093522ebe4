"""The command `python -m examples.mars`."""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from examples import data_folder
from examples.mars.data import LAYOUT, subjects
from examples.mars.report import draw, summarize, table
from examples.mars.training import plan, train
from examples.options import at_least
from examples.sweep import sweep, write_json


def main(arguments: list[str] | None = None) -> int:
    """Train, and write the table, a JSON file and the figures."""
    options = _parser().parse_args(arguments)
    try:
        root = data_folder.find("mars", LAYOUT, options.data)
        subjects(root)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 0 if options.if_found else 2
    runs = list(plan(str(root), options.seeds, options.epochs, options.fisher))
    results = sweep(train, runs, options.out / "runs", asdict, options.workers)
    if not results:
        print("No run was finished.", file=sys.stderr)
        return 1
    summary = summarize(results)
    machine = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    write_json(
        options.out / "results.json", {"command": vars(options) | {"out": str(options.out)}, **machine, **summary}
    )
    print(table(summary))
    print("written:", *[options.out / "results.json", *draw(results, options.out)], sep="\n  ")
    return 0 if len(results) == len(runs) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.mars",
        description="Train on the MARS radar recording: each modality alone, all jointly, all with AWC. "
        "Finished runs are kept and not done again.",
    )
    parser.add_argument(
        "--data",
        help=f"folder that holds {LAYOUT}; else ${data_folder.VARIABLE}/mars, else data/mars in or beside the project",
    )
    parser.add_argument("--out", type=Path, default=Path("results/mars"), help="where results go (%(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="runs of each kind (%(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=50, help="of each run (%(default)s)")
    parser.add_argument(
        "--fisher",
        choices=("per_batch", "corrected", "per_sample"),
        default="per_batch",
        help="form of the Fisher diagonal (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        help="runs at a time, one thread each (one per core); 0: one after the other, with all threads",
    )
    parser.add_argument("--if-found", action="store_true", help="without the data, say so and succeed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
