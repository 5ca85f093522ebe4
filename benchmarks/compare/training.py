"""One training run: the same loop for every method, the epoch chosen on held-out samples, then tested."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance import ShapleyContribution
from awc_balance.balancers import Balancer
from benchmarks.compare.methods import METHODS, PLAIN, Setup
from benchmarks.compare.task import Task, load_task
from examples.measures import evaluated
from examples.samples import batches


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        task: One of `tasks.TASKS`, or `package.module:function`.
        method: One of `METHODS`.
        strength: Of the method.
        seed: Of the initial weights and of the order of the samples.
        modalities: That are trained.
        epochs: Passes over the training part.
        data: Folder of the data; None to look in the usual places.
    """

    task: str
    method: str
    strength: float
    seed: int
    modalities: tuple[str, ...]
    epochs: int
    data: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """In file names and progress."""
        what = self.method if self.method != PLAIN else "+".join(self.modalities)
        return f"{self.task.replace(':', ' ')} {what} {self.strength:g}"


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train with a method, and test the epoch that is best on the held-out part.

    Args:
        run: The settings.
        tick: Called after every epoch.

    Returns:
        `run`, what `fit` gives, and for plain training `contributions` on held-out samples.
    """
    method, task = METHODS[run.method], load_task(run.task, run.data)
    setup = prepare(task, run.modalities, run.seed, run.epochs)
    balancer = method.build(setup, run.strength)
    fitted = fit(setup, balancer, tick, weight_decay=run.strength if method.decays else None)
    return {
        "run": {**describe(run), "modalities": list(run.modalities)},
        **fitted,
        "contributions": _contributions(setup) if run.method == PLAIN else None,
    }


def prepare(task: Task, modalities: tuple[str, ...], seed: int, epochs: int) -> Setup:
    """A fresh model of some modalities, with its data."""
    splits = task.splits.only(modalities)
    torch.manual_seed(seed)
    model = task.build(modalities)
    loader = batches(splits.train, task.batch_size, seed)
    return Setup(model, task, loader, batches(splits.held_out, 512), batches(splits.test, 512), epochs, seed)


def fit(
    setup: Setup,
    balancer: Balancer,
    tick: Callable[[], None],
    weight_decay: float | None = None,
    attach: Callable[[torch.optim.Optimizer], None] | None = None,
) -> dict[str, Any]:
    """Train the model, leave it as it was after the epoch that is best on the held-out part, and test it.

    Args:
        setup: The model and its data.
        balancer: Of the model.
        tick: Called after every epoch.
        weight_decay: In place of the task's own.
        attach: Called with the optimizer before training, for what works on its steps rather than on gradients.

    Returns:
        `held_out` and `test` errors of the best epoch, `best_epoch`, `test_last_epoch`, `curve` (held-out error by
        epoch), and `seconds` of the training epochs. Where the loss stops being finite training ends; the errors
        are those of the best epoch before, or None.
    """
    model, task = setup.model, setup.task
    optimizer = torch.optim.Adam(
        [*model.parameters(), *balancer.parameters()],
        lr=task.learning_rate,
        weight_decay=task.weight_decay if weight_decay is None else weight_decay,
    )
    if attach is not None:
        attach(optimizer)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, setup.share(0.6), 0.1)
    curve: list[float] = []
    seconds, best = 0.0, copy.deepcopy(model.state_dict())
    for _ in range(setup.epochs):
        started = time.perf_counter()
        finite = _epoch(balancer, optimizer, setup.batches)
        seconds += time.perf_counter() - started
        schedule.step()
        error = mean_error(model, setup.held_out, task) if finite else math.nan
        if not math.isfinite(error):
            break
        curve.append(error)
        if error <= min(curve):
            best = copy.deepcopy(model.state_dict())
        tick()
    last = mean_error(model, setup.test, task)
    model.load_state_dict(best)
    return {
        "held_out": min(curve) if curve else None,
        "test": mean_error(model, setup.test, task) if curve else None,
        "best_epoch": len(curve) - curve[::-1].index(min(curve)) if curve else None,
        "test_last_epoch": last if math.isfinite(last) else None,
        "curve": curve,
        "seconds": seconds,
    }


def _epoch(balancer: Balancer, optimizer: torch.optim.Optimizer, loader: Iterable[Any]) -> bool:
    """Train for an epoch; tells whether the loss stayed finite."""
    balancer.start_epoch(loader)
    losses = []
    for batch in loader:
        loss = balancer.loss(batch)
        loss.backward()
        balancer.adjust_gradients_()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return bool(torch.stack(losses).isfinite().all())


def mean_error(model: nn.Module, loader: Iterable[Any], task: Task) -> float:
    """The mean error over all samples, in evaluation mode."""
    errors: list[Tensor] = []
    with evaluated(model):
        errors += [task.error(model(inputs), target) for inputs, target in loader]
    return torch.cat(errors).double().mean().item()


def _contributions(setup: Setup) -> dict[str, float]:
    model, encoders, _ = setup.parts
    return dict(ShapleyContribution(model, encoders, setup.task.profit).evaluate(setup.held_out))


def describe(run: Run) -> dict[str, Any]:
    """What a run is known by: wherever its data lies."""
    return {key: value for key, value in vars(run).items() if key != "data"}
