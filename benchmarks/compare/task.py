"""What is learned: `Task`, data with a model, a loss and an error."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from torch import Tensor, nn

from examples.samples import Splits

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Data with a model, a loss and an error; the same training for every method.

    Attributes:
        title: For tables.
        unit: Of the error, which is lower for better models.
        splits: The data. Strengths and epochs are chosen by the held-out part, and nothing is by the test part.
        build: From some of the modalities to a fresh model with a `ModuleDict` called `encoders`.
        criterion: The mean loss of a batch.
        error: From prediction and target to the error of each sample, `[samples]`.
        profit: Of the contributions: "pearson", or "negative_cross_entropy" for classes.
        epochs: Passes over the training part.
        batch_size: Samples of an optimizer step.
        learning_rate: Of Adam; it drops to a tenth after three fifths of the epochs (30 of 50 in arXiv 2501.05264).
        weight_decay: Of Adam.
        search_seeds: Seeds that every strength is tried with.
        simulated: Whether the data is.
        feature: Width of the encoders, which `build` takes another one of as `feature`; None if it takes none.
    """

    title: str
    unit: str
    splits: Splits
    build: Callable[[tuple[str, ...]], nn.Module]
    criterion: Loss
    error: Loss
    profit: str = "pearson"
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    search_seeds: int = 2
    simulated: bool = False
    feature: int | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.splits.train.inputs)

    @property
    def classes(self) -> bool:
        """Whether targets are class numbers."""
        return not self.splits.train.target.is_floating_point()


def load_task(name: str, data: str | None = None) -> Task:
    """The task of one of `tasks.TASKS`, or of a function of yours, `package.module:function`.

    Args:
        name: Of the task, or of a function of a data folder (or None) that returns a `Task`.
        data: The folder of its data; None to look in the usual places.

    Raises:
        ValueError: If there is no such task or function, or it returns something else.
        FileNotFoundError: If there is no data.
    """
    return _load(name, data)


@cache
def _load(name: str, data: str | None) -> Task:
    from benchmarks.compare.tasks import TASKS

    if name in TASKS:
        return TASKS[name](data)
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"A task should be one of {', '.join(TASKS)}, or a function as package.module:function. Got `{name}`: "
            f"{error}."
        ) from error
    task = make(data)
    if not isinstance(task, Task):
        raise ValueError(f"`{name}` should return a `benchmarks.compare.task.Task`. Got {type(task).__name__}.")
    return task
