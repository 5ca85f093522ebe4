"""Where it is tried: a `Cell` is a task with much or little data, small or large encoders, a short or long training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from benchmarks.compare.task import Task, load_task
from examples.samples import Samples, Splits

Data: TypeAlias = Literal["full", "scarce", "noisy"]
Size: TypeAlias = Literal["small", "large"]
Length: TypeAlias = Literal["usual", "long"]

SCARCE = 0.1
"""Share of the training part that is left where data is scarce."""
FEWEST = 40
"""Samples that are left at least."""
LARGE = 4
"""Times the width of the task's own encoders."""
LONG = 3
"""Times the task's own epochs."""


@dataclass(frozen=True)
class Cell:
    """A task, how much of its training data, the size of the encoders, and how long they are trained.

    Attributes:
        task: One of `benchmarks.compare.tasks.TASKS`, or `package.module:function`.
        data: "full"; "scarce", a tenth of the training part, the same for all seeds; or "noisy": noise as large as
            the signal is added to the numbers of the last modality, in all parts.
        size: "small", the task's own, or "large", four times as wide.
        length: "usual", or "long", three times the epochs.
    """

    task: str
    data: Data = "full"
    size: Size = "small"
    length: Length = "usual"

    @property
    def name(self) -> str:
        """In commands, results and file names."""
        return f"{self.task}/{self.data}/{self.size}" + ("/long" if self.length == "long" else "")


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
    Cell("mfeat_regression", "noisy"),
    Cell("mfeat_classification", "noisy"),
    Cell("mfeat_regression", length="long"),
    Cell("mfeat_classification", length="long"),
    Cell("mars", "scarce", length="long"),
)
"""All of them, in the order in which they are done.

The encoders of the simulated MM-Fi have presets, not a width; and with a tenth of its samples twelve epochs are 36
steps, in which nothing is learned (895 mm, where all data give 132): what changes there is no question of balance.
"""


def cell_named(name: str) -> Cell:
    """The cell of a name.

    >>> cell_named("mars/scarce/small").data
    'scarce'

    Raises:
        ValueError: If it is no such name.
    """
    task, _, kind = name.partition("/")
    for cell in (Cell(task, *how) for how in product(get_args(Data), get_args(Size), get_args(Length))):
        if cell.name == f"{task}/{kind}":
            return cell
    raise ValueError(
        f"A cell should be TASK/full, scarce or noisy/small or large, and perhaps /long. Got `{name}`. Say "
        "mars/scarce/small."
    )


def cells_of(task: str) -> list[Cell]:
    """Those of `CELLS`, or for a task of yours all with small encoders."""
    return [c for c in CELLS if c.task == task] or [Cell(task, "full"), Cell(task, "scarce")]


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
    """A task with as much of its training data, with encoders as large and as many epochs as a cell has it.

    Raises:
        ValueError: If its encoders take no width, or its last modality is to be noisy and no table of numbers.
    """
    if cell.size == "large":
        task = _large(task)
    if cell.length == "long":
        task = replace(task, epochs=LONG * task.epochs)
    if cell.data == "noisy":
        task = _noisy(task)
    return _scarce(task) if cell.data == "scarce" else task


def _scarce(task: Task) -> Task:
    """A fixed random part of the training data, and batches small enough for several steps in an epoch."""
    train = task.splits.train
    count = min(len(train), max(FEWEST, int(SCARCE * len(train))))
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
    size = min(task.batch_size, max(16, count // 8))
    return replace(task, splits=replace(task.splits, train=train.take(chosen)), batch_size=size)


def _noisy(task: Task) -> Task:
    """Noise with the spread of every column of the training part, drawn once."""
    last, draw = task.modalities[-1], torch.Generator().manual_seed(0)
    table = task.splits.train.inputs[last]
    if not isinstance(table, Tensor) or table.dim() != 2:
        raise ValueError(
            f"A noisy cell should have a task whose last modality is a table `[samples, numbers]`. `{last}` of "
            f"`{task.title}` is not. Leave the cell out."
        )

    def blurred(part: Samples) -> Samples:
        own = part.inputs[last]
        noise = torch.randn(own.shape, generator=draw) * table.std(0)
        return replace(part, inputs=part.inputs | {last: own + noise})

    splits = task.splits
    parts = {name: blurred(getattr(splits, name)) for name in ("train", "held_out", "test")}
    return replace(task, splits=Splits(**parts))


def _large(task: Task) -> Task:
    if task.feature is None:
        raise ValueError(
            f"A cell with large encoders should have a task whose `build` takes their width. `{task.title}` has none. "
            "Give its Task a `feature`, or leave the cell out."
        )
    build: Callable[..., nn.Module] = task.build
    return replace(task, build=partial(build, feature=LARGE * task.feature))
