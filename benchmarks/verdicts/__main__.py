"""The command `python -m benchmarks.verdicts`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from awc_balance.report.files import write_whole
from benchmarks.verdicts.judging import Run, judge
from benchmarks.verdicts.tables import markdown
from examples.machine import machines
from examples.sweep import sweep, write_json
from tests.diagnose.families import FAMILIES


def main(arguments: list[str] | None = None) -> int:
    """Train, judge, and write tables and JSON; returns the exit status: 130 if it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts",
        description="How often verdicts are right on simulated sets with a known answer, without and with what "
        "train_alone finds, and what comes of following the latter. Finished runs are kept and not done again.",
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="(all)")
    parser.add_argument("--seeds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/verdicts"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    runs = [
        Run(family, name, seed)
        for family in options.families
        for name in FAMILIES[family][1]
        for seed in range(options.seeds)
    ]
    results = sweep(judge, runs, options.out / "runs", asdict, options.workers)
    found = markdown(results)
    print(found)
    write_json(
        options.out / "verdicts.json",
        {"simulated": True, "machines": machines(results), "runs": [_kept(r) for r in results]},
    )
    write_whole(options.out / "verdicts.md", found + "\n")
    return 0 if len(results) == len(runs) else 130


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "machine"}


if __name__ == "__main__":
    sys.exit(main())
