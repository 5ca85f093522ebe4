"""What a training step costs, part by part, and what contributions, Fisher diagonals and the penalty add to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution, shapley_values
from examples.mmfi.batches import on_device
from examples.mmfi.data import frames_of
from examples.mmfi.dataset import Batch
from examples.mmfi.models import PoseModel, build_model
from examples.mmfi.packed import PackedClips
from examples.mmfi.settings import Settings
from examples.pose_metrics import mpjpe

CONTRIBUTIONS = ("coalitions", "correlation", "score")
"""The parts that the paper's Table 2 counts as the cost of contributions."""


@dataclass(frozen=True)
class Clock:
    """Times work on a device.

    Attributes:
        device: Whose queue is waited for, if it has one.
        repeats: How often the work is done and timed, after two untimed times; the median counts.
    """

    device: torch.device
    repeats: int = 9

    def milliseconds(self, *stages: Callable[[], object]) -> list[float]:
        """Milliseconds of each of some stages of work, done in turn."""
        times = [self.once(*stages) for _ in range(self.repeats + 2)]
        return [median(stage) for stage in zip(*times[2:], strict=True)]

    def once(self, *stages: Callable[[], object]) -> list[float]:
        """Milliseconds of each of some stages of work, done in turn once."""
        return [self._once(stage) for stage in stages]

    def _once(self, work: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return 1000 * (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def batch_of(settings: Settings, device: torch.device) -> Batch:
    """A batch of frames from all over a packed copy, on a device.

    Raises:
        ValueError: If the copy has fewer frames than a batch.
    """
    packed = PackedClips(Path(settings.data))
    frames = frames_of(packed, packed.clips, settings)
    if len(frames) < settings.batch_size:
        raise ValueError(
            f"`batch_size` should be at most the {len(frames)} frames of the copy. Got `{settings.batch_size}`. "
            "Lower it, or take a larger copy."
        )
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(len(frames), generator=generator)[: settings.batch_size]
    return on_device(frames.__getitems__(chosen.tolist()), device)


def step_parts(settings: Settings, device: torch.device, repeats: int = 9) -> dict[str, float]:
    """Milliseconds of the parts of a training step on one batch.

    Args:
        settings: Which model, and the size of the batch.
        device: To run on.
        repeats: Timed repetitions of each part, of which the median is taken.

    Returns:
        Of the step: `forward` with the loss, `backward`, `optimizer`. Of the contributions from features at hand,
        as the paper counts them: `coalitions` (predictions of all 2^M), `correlation`, `score`. Of AWC as it is
        done here: `contributions` and `fisher`, each on one batch including its own pass through the model, and
        `penalty`, the gradient of the penalty in closed form.
    """
    torch.manual_seed(settings.seed)
    model = build_model(settings.modalities, settings.fusion, settings.preset).to(device)
    batch, clock = batch_of(settings, device), Clock(device, repeats)
    return {**_training(model, batch, clock), **_contributions(model, batch, clock), **_awc(model, batch, clock)}


def overhead(parts: dict[str, float]) -> float:
    """Time of the contributions in per cent of forward and backward, as in the paper's Table 2."""
    return 100 * sum(parts[name] for name in CONTRIBUTIONS) / (parts["forward"] + parts["backward"])


def coalition_predictions(model: PoseModel, features: Tensor) -> Tensor:
    """Predictions of every coalition, `[2^M, batch, joints, 3]`, from features `[batch, M, width]`.

    Features outside a coalition are zero; entry k keeps the modalities of the set bits of k.
    """
    modalities = features.shape[1]
    numbers = torch.arange(2**modalities, device=features.device)
    bits = numbers[:, None] >> numbers[:modalities] & 1
    kept = bits.to(features.dtype)[:, None, :, None] * features
    poses: Tensor = model.fusion(kept.flatten(0, 1)).reshape(len(bits), len(features), -1, 3)
    return poses


def correlations(predictions: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation along the batch by coalition and coordinate, 0 for a constant prediction."""
    moved, fixed = (values - values.mean(-3, keepdim=True) for values in (predictions, target))
    together = (moved * fixed).sum(-3)
    apart = (moved.square().sum(-3) * fixed.square().sum(-3)).sqrt()
    return torch.where(apart > 0, together / apart.where(apart > 0, 1.0), 0.0)


def _training(model: PoseModel, batch: Batch, clock: Clock) -> dict[str, float]:
    inputs, target = batch
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the model stays as it is
    losses: list[Tensor] = []
    stages = (
        lambda: losses.append(mpjpe(model(inputs), target)),
        lambda: losses.pop().backward(),
        optimizer.step,
    )
    times = clock.milliseconds(*stages)
    optimizer.zero_grad()
    return dict(zip(("forward", "backward", "optimizer"), times, strict=True))


@torch.no_grad()
def _contributions(model: PoseModel, batch: Batch, clock: Clock) -> dict[str, float]:
    inputs, target = batch
    model.eval()
    features = model.encode(inputs)
    predictions = coalition_predictions(model, features)
    profits = correlations(predictions, target)
    times = clock.milliseconds(
        lambda: coalition_predictions(model, features),
        lambda: correlations(predictions, target),
        lambda: shapley_values(profits),
    )
    model.train()
    return dict(zip(CONTRIBUTIONS, times, strict=True))


def _awc(model: PoseModel, batch: Batch, clock: Clock) -> dict[str, float]:
    contribution = ShapleyContribution(model, model.encoders)
    fisher = FisherDiagonal(model.encoders, "per_batch")
    regularizer = AWCRegularizer(model, model.encoders, mpjpe, fisher=fisher)
    regularizer.start_epoch([batch])
    mpjpe(model(batch[0]), batch[1]).backward()
    times = clock.milliseconds(
        lambda: contribution.update(batch),
        lambda: fisher.estimate([batch], model, mpjpe),
        regularizer.add_gradient_,
    )
    return dict(zip(("contributions", "fisher", "penalty"), times, strict=True))
