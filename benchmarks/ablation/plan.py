"""Which runs, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.ablation.cells import Cell, load_cell
from benchmarks.ablation.conditions import NOBODY, PARTS, Condition
from benchmarks.ablation.training import Run
from benchmarks.compare.task import Task


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        cells: In order.
        parts: Of `PARTS`, in order; each of all cells before the next.
        seeds: Of each kind of run: 0, 1, ...
        share: Of the tasks' own epochs, for a quick look.
        folders: Of the data, by task, where it is not in the usual places.
    """

    cells: tuple[Cell, ...]
    parts: tuple[str, ...] = ("core",)
    seeds: int = 5
    share: float = 1.0
    folders: tuple[tuple[str, str], ...] = ()

    def load(self, cell: Cell) -> Task:
        """The task of a cell."""
        return load_cell(cell, self.folder(cell))

    def folder(self, cell: Cell) -> str | None:
        """Where its data is."""
        return dict(self.folders).get(cell.task)

    def conditions(self, cell: Cell, part: str) -> list[Condition]:
        """Those of a part of the factorial, each once, and nobody, whom all are compared with."""
        return list(dict.fromkeys([NOBODY, *PARTS[part](self.load(cell).modalities)]))

    def runs(self) -> list[Run]:
        """All of them, each once; all seeds of a condition before the next, so that what is stopped leaves rows."""
        return list(
            dict.fromkeys(
                Run(cell, condition, seed, max(2, round(self.share * self.load(cell).epochs)), self.folder(cell))
                for part in self.parts
                for cell in self.cells
                for condition in self.conditions(cell, part)
                for seed in range(self.seeds)
            )
        )
