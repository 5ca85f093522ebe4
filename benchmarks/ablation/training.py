"""One run of the ablation: a cell, a condition and a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.ablation.cells import Cell, load_cell
from benchmarks.ablation.conditions import NOBODY, Condition
from benchmarks.ablation.holds import Freeze, Hold, Pull, Slow, Weights
from benchmarks.ablation.probe import Probe
from benchmarks.compare.methods import Setup
from benchmarks.compare.training import fit, prepare
from examples.machine import machine


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        cell: Task, data and size of the encoders.
        condition: Whom to hold back, and how.
        seed: Of the initial weights and of the order of the samples.
        epochs: Passes over the training part.
        folder: Of the data; None to look in the usual places.
    """

    cell: Cell
    condition: Condition
    seed: int
    epochs: int
    folder: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """In file names and progress."""
        return f"{self.cell.name} {self.condition.whom} {self.condition.way}"


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train, and test the epoch that is best on the held-out part.

    Args:
        run: The settings.
        tick: Called after every epoch.

    Returns:
        `run`, the `machine`, what `benchmarks.compare.training.fit` gives, `epochs_held` by modality, and where nobody
        is held back `probes`, at some epochs and at last of the best one.
    """
    task = load_cell(run.cell, run.folder)
    setup = prepare(task, task.modalities, run.seed, run.epochs)
    hold, probe = build(setup, run.condition), Probe(setup)

    def look() -> None:
        if run.condition == NOBODY:
            probe.tick()
        tick()

    fitted = fit(setup, hold, look, attach=hold.attach)
    found: dict[str, Any] = {"run": describe(run), "machine": machine(torch.device("cpu")), **fitted}
    found["epochs_held"] = hold.epochs_held
    if run.condition == NOBODY:
        found["probes"] = [*probe.found, {"epoch": "best", **probe.look()}]
    return found


def build(setup: Setup, condition: Condition) -> Hold:
    """The balancer of a condition."""
    window = setup.share(condition.window) if condition.window else 0
    if condition.how == "slow":
        return Slow(setup, condition.whom, condition.strength, window)
    if condition.how == "freeze":
        return Freeze(setup, condition.whom, window)
    if condition == NOBODY:
        return Hold(setup, condition.whom, 0.0, window)
    weights: Weights = "fisher" if condition.how == "fisher" else "sized" if condition.how == "sized" else "plain"
    return Pull(setup, condition.whom, condition.strength, window, condition.anchor, weights=weights)


def describe(run: Run) -> dict[str, Any]:
    """What a run is known by: wherever its data lies."""
    return {**asdict(run.cell), **asdict(run.condition), "seed": run.seed, "epochs": run.epochs}
