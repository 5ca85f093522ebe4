"""One training run: a model of some modalities, with or without AWC, and what it gave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from awc_balance import AWCRegularizer
from examples.mars.data import MODALITIES, load
from examples.mars.model import PoseModel
from examples.measures import contributions, error_sums, mean_errors, pose_pairs, spread
from examples.pose_metrics import mpjpe
from examples.samples import Samples, batches

PLAIN = "all, plain"
AWC_SETTINGS = {
    "all, AWC as in the paper": {"alpha_superior": 20_000.0, "alpha_inferior": 10_000.0},
    "all, AWC with alphas swapped": {"alpha_superior": 10_000.0, "alpha_inferior": 20_000.0},
    "all, AWC on inferior only": {"alpha_superior": 0.0, "alpha_inferior": 20_000.0},
}


@dataclass(frozen=True)
class Run:
    """The settings of a run. Optimizer, schedule, window and alphas are the paper's but for the batch size."""

    name: str
    data: str
    seed: int
    modalities: tuple[str, ...] = tuple(MODALITIES)
    awc: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AWCRegularizer`; without any, plain training."""
    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    drop_every: int = 30
    """Epochs after which the learning rate drops to a tenth."""


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train, keep the epoch that is best on held-out frames, and test it. `tick` is called after every epoch."""
    splits = load(Path(run.data))
    torch.manual_seed(run.seed)
    model = PoseModel(run.modalities)
    awc = AWCRegularizer(model, model.encoders, mpjpe, batches=None, **run.awc) if run.awc else None
    optimizer = torch.optim.Adam(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, run.drop_every, 0.1)
    loader, held_out = batches(splits.train, run.batch_size, run.seed), batches(splits.held_out, 512)
    epochs: list[dict[str, Any]] = []
    best: dict[str, Tensor] = {}
    for _ in range(run.epochs):
        if awc is not None:
            awc.start_epoch(loader)
        for inputs, poses in loader:
            loss = mpjpe(model(inputs), poses)
            if awc is not None:
                loss = loss + awc()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
        epochs.append(_epoch(model, held_out))
        if epochs[-1]["held_out_mm"] <= min(epoch["held_out_mm"] for epoch in epochs):
            best = copy.deepcopy(model.state_dict())
        tick()
    test = batches(splits.test, 512)
    last = mean_errors(error_sums(model, test))
    model.load_state_dict(best)
    return {
        "run": asdict(run),
        "test": mean_errors(error_sums(model, test)),
        "test_last_epoch": last,
        "spread_mm": spread(model, model.encoders, test),
        "poses": _poses(model, splits.test),
        "epochs": epochs,
        "awc": [] if awc is None else awc.history,
    }


def _epoch(model: PoseModel, held_out: DataLoader[Any]) -> dict[str, Any]:
    """The error on held-out frames, and who contributes to it under two profits."""
    error = mean_errors(error_sums(model, held_out))["mpjpe_mm"]
    return {**contributions(model, model.encoders, held_out), "held_out_mm": error}


def _poses(model: PoseModel, frames: Samples, count: int = 4) -> dict[str, Any]:
    """True and predicted poses of some test frames, far apart, in whole mm."""
    chosen = frames.take(torch.linspace(0, len(frames) - 1, count + 2).long()[1:-1])
    return pose_pairs(model, (chosen.inputs, chosen.target))


def plan(data: str, seeds: int, epochs: int, fisher: str) -> Iterator[Run]:
    """Each modality alone, all jointly, and all with AWC in three settings, for every seed."""
    awc = {name: {**alphas, "fisher": fisher} for name, alphas in AWC_SETTINGS.items()}
    for seed in range(seeds):
        for modality in MODALITIES:
            yield Run(f"{modality} alone", data, seed, (modality,), epochs=epochs)
        yield Run(PLAIN, data, seed, epochs=epochs)
        for name, settings in awc.items():
            yield Run(name, data, seed, awc=settings, epochs=epochs)
