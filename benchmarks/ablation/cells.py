"""Where it is tried: a `Cell` is a task with all or little of its data, and with small or large encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from benchmarks.compare.task import Task, load_task

Data: TypeAlias = Literal["full", "scarce"]
Size: TypeAlias = Literal["small", "large"]

SCARCE = 0.1
"""Share of the training part that is left where data is scarce."""
FEWEST = 40
"""Samples that are left at least."""
LARGE = 4
"""Times the width of the task's own encoders."""


@dataclass(frozen=True)
class Cell:
    """A task, how much of its training data, and the size of the encoders.

    Attributes:
        task: One of `benchmarks.compare.tasks.TASKS`, or `package.module:function`.
        data: "full", or "scarce": a tenth of the training part, the same for all seeds.
        size: "small", the task's own, or "large", four times as wide.
    """

    task: str
    data: Data = "full"
    size: Size = "small"

    @property
    def name(self) -> str:
        """In commands, results and file names."""
        return f"{self.task}/{self.data}/{self.size}"


CELLS = (
    Cell("mfeat_regression"),
    Cell("mfeat_classification"),
    Cell("mfeat_regression", "scarce"),
    Cell("mars", "scarce"),
    Cell("mfeat_classification", "scarce"),
    Cell("mfeat_regression", size="large"),
    Cell("mars"),
    Cell("mmfi_simulated"),
    Cell("mfeat_classification", size="large"),
    Cell("mfeat_regression", "scarce", "large"),
    Cell("mfeat_classification", "scarce", "large"),
    Cell("mars", "scarce", "large"),
    Cell("mars", size="large"),
    Cell("mmfi_simulated", "scarce"),
)
"""All of them, in the order in which they are done. The encoders of the simulated MM-Fi have presets, not a width."""


def cell_named(name: str) -> Cell:
    """The cell of a name.

    >>> cell_named("mars/scarce/small").data
    'scarce'

    Raises:
        ValueError: If it is no such name.
    """
    task, _, kind = name.partition("/")
    for cell in (Cell(task, data, size) for data in get_args(Data) for size in get_args(Size)):
        if cell.name == f"{task}/{kind}":
            return cell
    raise ValueError(f"A cell should be TASK/full or scarce/small or large. Got `{name}`. Say mars/scarce/small.")


def cells_of(task: str) -> list[Cell]:
    """Those of `CELLS`, or for a task of yours all with small encoders."""
    return [c for c in CELLS if c.task == task] or [Cell(task, data) for data in get_args(Data)]


@cache
def load_cell(cell: Cell, folder: str | None = None) -> Task:
    """The task as the cell has it.

    Args:
        cell: Which.
        folder: Of the task's data; None to look in the usual places.

    Raises:
        ValueError: If there is no such task, or its encoders take no width.
        FileNotFoundError: If there is no data.
    """
    return as_cell(load_task(cell.task, folder), cell)


def as_cell(task: Task, cell: Cell) -> Task:
    """A task with as much of its training data, and with encoders as large, as a cell has it.

    Raises:
        ValueError: If its encoders take no width.
    """
    if cell.size == "large":
        task = _large(task)
    return _scarce(task) if cell.data == "scarce" else task


def _scarce(task: Task) -> Task:
    """A fixed random part of the training data, and batches small enough for several steps in an epoch."""
    train = task.splits.train
    count = min(len(train), max(FEWEST, int(SCARCE * len(train))))
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
    size = min(task.batch_size, max(16, count // 8))
    return replace(task, splits=replace(task.splits, train=train.take(chosen)), batch_size=size)


def _large(task: Task) -> Task:
    if task.feature is None:
        raise ValueError(
            f"A cell with large encoders should have a task whose `build` takes their width. `{task.title}` has none. "
            "Give its Task a `feature`, or leave the cell out."
        )
    build: Callable[..., nn.Module] = task.build
    return replace(task, build=partial(build, feature=LARGE * task.feature))
