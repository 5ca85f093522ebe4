"""A model that is trained on a set with a known answer, judged, and trained again as the verdict says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from awc_balance.calibration import Verdict
from benchmarks.verdicts.following import follow
from examples.machine import machine
from tests.diagnose.families import FAMILIES, verdicts


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
    """Train a model, judge it in both forms, and follow the verdict.

    Where samples are too few to measure anybody alone both forms are the same.
    """
    make, right = FAMILIES[run.family]
    trained = make(run.set, run.seed)
    found = verdicts(trained)
    followed = follow(found[-1], trained, partial(make, run.set, run.seed))
    tick()
    return {
        "run": asdict(run),
        "machine": machine(torch.device("cpu")),
        **{form: _said(some, right[run.set]) for form, some in (("single", found[0]), ("alone", found[-1]))},
        "followed": followed,
    }


def _said(found: Verdict, right: Iterable[tuple[str, set[str]]]) -> dict[str, Any]:
    fits = (found.kind, set(found.modalities)) in right
    return {
        "outcome": "right" if fits else "cannot tell" if found.kind == "cannot tell" else "wrong",
        "kind": found.kind,
        "said": f"{found.kind}: {', '.join(sorted(found.modalities))}".removesuffix(": "),
        "sentences": found.sentences(),
    }
