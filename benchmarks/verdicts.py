"""The command `python -m benchmarks.verdicts`: how often verdicts are right on simulated sets with a known answer.

Models are trained on the sets of `tests/diagnose`. Each is judged twice: without, and with what `train_alone` finds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from awc_balance.calibration import Verdict
from awc_balance.report.files import write_whole
from examples.machine import machine, machines
from examples.report import markdown_table
from examples.sweep import sweep, write_json
from tests.diagnose.families import FAMILIES, both_verdicts

FORMS = {"alone": "With `train_alone`", "single": "Without"}
"""Of the verdict, with its heading."""
OUTCOMES = ("right", "cannot tell", "wrong")


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        family: One of `FAMILIES`.
        set: One of its sets.
        seed: Of data, initial weights and the order of samples.
    """

    family: str
    set: str
    seed: int
    epochs = 1

    @property
    def name(self) -> str:
        """In file names and progress."""
        return f"{self.family} {self.set}"


def judge(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train a model, and judge it in both forms, the same one where samples are too few to measure anybody alone."""
    make, right = FAMILIES[run.family]
    found = both_verdicts(make, run.set, run.seed)
    tick()
    return {
        "run": asdict(run),
        "machine": machine(torch.device("cpu")),
        **{form: _said(some, right[run.set]) for form, some in (("single", found[0]), ("alone", found[-1]))},
    }


def _said(found: Verdict, right: Iterable[tuple[str, set[str]]]) -> dict[str, Any]:
    fits = (found.kind, set(found.modalities)) in right
    return {
        "outcome": "right" if fits else "cannot tell" if found.kind == "cannot tell" else "wrong",
        "said": f"{found.kind}: {', '.join(sorted(found.modalities))}".removesuffix(": "),
        "sentences": found.sentences(),
    }


def table(results: list[dict[str, Any]], form: str) -> str:
    """By set and family, right / cannot tell / wrong."""
    sets = list(dict.fromkeys(result["run"]["set"] for result in results))
    families = list(dict.fromkeys(result["run"]["family"] for result in results))
    rows = [[name, *(_counts(results, form, family, {name}) for family in families)] for name in sets]
    rows.append(["all", *(_counts(results, form, family, set(sets)) for family in families)])
    return markdown_table(["set", *families], rows)


def _counts(results: list[dict[str, Any]], form: str, family: str, sets: set[str]) -> str:
    mine = [r for r in results if r["run"]["family"] == family and r["run"]["set"] in sets]
    outcomes = Counter(result[form]["outcome"] for result in mine)
    return " / ".join(str(outcomes[outcome]) for outcome in OUTCOMES)


def wrong(results: list[dict[str, Any]], form: str) -> list[str]:
    """What was said where it was wrong, a line by family and set."""
    said: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        if result[form]["outcome"] == "wrong":
            key = result["run"]["family"], result["run"]["set"]
            said.setdefault(key, Counter())[result[form]["said"]] += 1
    return [
        f"- {family}, {name}: " + "; ".join(f"{count} x {what}" for what, count in counts.most_common())
        for (family, name), counts in said.items()
    ]


def markdown(results: list[dict[str, Any]]) -> str:
    """Both tables, each with what was wrong."""
    parts = []
    for form, title in FORMS.items():
        parts += [f"{title}, right / cannot tell / wrong:", table(results, form)]
        parts += ["Wrong:\n\n" + "\n".join(lines)] if (lines := wrong(results, form)) else []
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Train, judge, and write tables and JSON; returns the exit status: 130 if it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=(__doc__ or "").splitlines()[0])
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
