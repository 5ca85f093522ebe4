"""Timing in interleaved rounds, and the table and file that the benchmarks of AWC give."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from examples.machine import hardware, versions
from examples.report import markdown_table
from examples.sweep import write_json

Works = Mapping[str, Callable[[], object]]


def milliseconds(works: Works, device: torch.device, rounds: int) -> dict[str, float]:
    """The median milliseconds of each work, all of them done in turn in every round, after one untimed round.

    Args:
        works: What to time, by name.
        device: Whose queue is waited for, if it has one.
        rounds: How often.
    """
    times = [{name: _once(work, device) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: median(one[name] for one in times[1:]) for name in works}


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what every benchmark of AWC takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="few rounds and small sizes, to see that it runs")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    made.add_argument("--rounds", type=int, help="of which the median counts (9; quick: 3)")
    made.add_argument("--result", type=Path, metavar="FILE", help="JSON file to write")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with a device, and a number of rounds; random numbers start from seed 0."""
    args = made.parse_args()
    args.device = torch.device(args.device)
    args.rounds = args.rounds or (3 if args.quick else 9)
    torch.manual_seed(0)
    return args


def give(
    args: argparse.Namespace, notes: Sequence[str], rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> None:
    """Print rows as a markdown table, under what they were measured on, and save all of it if that is asked for.

    Args:
        args: From `parse`.
        notes: What one has to know to read the table.
        rows: What was measured.
        columns: Headings and, by them, the format of the row's entries, such as `"{plain:.1f} ms"`.
    """
    header = {"hardware": hardware(args.device), "versions": versions(), "seed": 0, "rounds": args.rounds}
    print(*(f"{name}: {value}" for name, value in header.items()), "", *notes, "", sep="\n")
    print(markdown_table(list(columns), [[cell.format(**row) for cell in columns.values()] for row in rows]))
    if args.result:
        args.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.result, {**header, "quick": args.quick, "notes": list(notes), "rows": list(rows)})


def _once(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return 1000 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
