"""Which runs the claim takes: plain training, the rule, the best published method, and subsets, with ten new seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch

from benchmarks.ablation.cells import Cell, load_cell
from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.training import fit, prepare
from examples.machine import machine

RULE = "AWC, calibration rule"
SEEDS = tuple(range(30, 40))
PUBLISHED = {
    "mfeat_regression": ("G-Blending", 0.2),
    "mfeat_classification": ("MMPareto", 1.5),
    "mars": ("AGM", 1.5),
    "mmfi_simulated": ("sample resampling", 1.0),
}
"""By task the method and strength with the lowest held-out error in `results/compare.json`; see `protocol.md`."""

BUNDLED = "benchmarks.compare.tasks.bundled"
CELLS = (
    Cell("mars"),
    Cell("mars", "scarce"),
    Cell("mars", "scarce", "large"),
    Cell("mfeat_regression"),
    Cell("mfeat_regression", "scarce"),
    Cell("mfeat_classification"),
    Cell("mfeat_classification", "scarce"),
    Cell(f"{BUNDLED}:diabetes"),
    Cell(f"{BUNDLED}:breast_cancer"),
    Cell(f"{BUNDLED}:digits"),
    Cell("mfeat_regression", size="large"),
    Cell("mfeat_regression", "scarce", "large"),
    Cell("mmfi_simulated"),
)
LONG = (Cell("mars"), Cell("mars", "scarce", "large"), Cell("mmfi_simulated"))
"""Where subsets take too long."""


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        cell: Task, data and size of the encoders.
        method: One of `METHODS`.
        strength: Of the method.
        modalities: That are trained.
        seed: Of the initial weights and of the order of the samples.
        epochs: Passes over the training part.
    """

    cell: Cell
    method: str
    strength: float
    modalities: tuple[str, ...]
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """In file names and progress."""
        what = self.method if self.method != PLAIN else "+".join(self.modalities)
        return f"{self.cell.name.removeprefix(f'{BUNDLED}:')} {what}"


def part(run: Run) -> int:
    """Of the claim, for which a run is the first time needed: 1, 2 or 3."""
    if run.method == PLAIN:
        return 1 if set(run.modalities) == set(load_cell(run.cell).modalities) else 3
    return 1 if run.method == RULE else 2


def runs_of(cell: Cell, seeds: tuple[int, ...] = SEEDS) -> list[Run]:
    """All runs of a cell."""
    task = load_cell(cell)
    everyone = task.modalities
    kinds: list[tuple[str, float, tuple[str, ...]]] = [(PLAIN, 0.0, everyone), (RULE, 0.0, everyone)]
    if cell.task in PUBLISHED:
        kinds.append((*PUBLISHED[cell.task], everyone))
    if cell not in LONG:
        kinds += [(PLAIN, 0.0, some) for n in range(1, len(everyone)) for some in combinations(everyone, n)]
    return [Run(cell, *kind, seed, task.epochs) for kind in kinds for seed in seeds]


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train, and test the epoch that is best on the held-out part; of the rule also its strengths by epoch."""
    method = METHODS[run.method]
    setup = prepare(load_cell(run.cell), run.modalities, run.seed, run.epochs)
    balancer = method.build(setup, run.strength)
    fitted = fit(setup, balancer, tick)
    regularizer = getattr(balancer, "regularizer", None)
    strengths = [row["alphas"] for row in regularizer.history] if regularizer is not None else None
    return {"run": describe(run), "machine": machine(torch.device("cpu")), **fitted, "strengths": strengths}


def describe(run: Run) -> dict[str, Any]:
    """What a run is known by."""
    return {**asdict(run), "modalities": list(run.modalities)}
