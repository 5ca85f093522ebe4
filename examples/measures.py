"""What the pose examples measure on a trained model: errors, contributions, spread of predictions, sample poses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance import ShapleyContribution
from awc_balance.contributions import Profit
from examples.pose_metrics import joint_errors, procrustes

PROFITS = ("pearson", "negative_mse")

Loader: TypeAlias = Iterable[Any]
Step: TypeAlias = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
"""From a model and a batch to the prediction and the target."""


def read_pair(model: nn.Module, batch: tuple[Any, Tensor]) -> tuple[Tensor, Tensor]:
    """Predict from a batch `(inputs, target)` that lies where the model is."""
    inputs, target = batch
    return model(inputs), target


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Every part of a model in evaluation mode and without gradients; afterwards in the mode that it was in."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def error_sums(model: nn.Module, loader: Loader, step: Step = read_pair) -> Tensor:
    """Sums over all frames of a loader, `[3]` float64 on the device of the predictions.

    Joint errors, joint errors after Procrustes alignment, and the number of joints. Sums of several loaders add
    up, whatever the size of their batches. The model is measured in evaluation mode and left as it was.

    Args:
        model: Any model of poses `[batch, joints, 3]` in metres.
        loader: The batches.
        step: `step(model, batch) -> (prediction, target)`.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    with evaluated(model):
        for batch in loader:
            prediction, target = (poses.double() for poses in step(model, batch))
            plain, aligned = joint_errors(prediction, target), joint_errors(procrustes(prediction, target), target)
            sums = sums.to(plain.device) + torch.stack([plain.sum(), aligned.sum(), plain.new_tensor(plain.numel())])
    return sums


def mean_errors(sums: Tensor) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm, from `error_sums` of poses in metres."""
    plain, aligned, joints = sums.tolist()
    return {"mpjpe_mm": 1000 * plain / joints, "pa_mpjpe_mm": 1000 * aligned / joints}


def contributions(
    model: nn.Module, encoders: nn.ModuleDict, loader: Loader, step: Step = read_pair
) -> dict[str, dict[str, float]]:
    """Who carries the prediction, by each of `PROFITS`: contribution by modality."""
    return {
        profit: dict(ShapleyContribution(model, encoders, profit, step=step).evaluate(loader)) for profit in PROFITS
    }


def spread(model: nn.Module, encoders: nn.ModuleDict, loader: Loader, step: Step = read_pair) -> dict[str, float]:
    """Standard deviation over frames, in mm and averaged over coordinates, of predictions from one modality alone.

    The others' features are zero, as in Figure 4 of the paper (arXiv 2501.05264). "target" is that of the true poses.
    """
    deviation = ShapleyContribution(model, encoders, Spread(lambda prediction, _: prediction), step=step)
    alone = deviation.evaluate(loader).profits
    # The true poses do not depend on the coalition: the empty one will do.
    target = ShapleyContribution(model, encoders, Spread(lambda _, target: target), step=step).evaluate(loader).profits
    return {modality: 1000 * alone[frozenset({modality})] for modality in encoders} | {
        "target": 1000 * target[frozenset()]
    }


class Spread(Profit):
    """Standard deviation over all samples seen of what is chosen of a prediction and its target.

    Args:
        choose: `choose(prediction, target)`, the values `[batch, ...]`.
    """

    def __init__(self, choose: Callable[[Tensor, Tensor], Tensor]) -> None:
        """See the class."""
        self._choose = choose

    def measure(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Number, mean and sum of squared deviations of one batch, float64."""
        values = self._choose(prediction, target).detach().double()
        mean = values.mean(0)
        return torch.full_like(mean, len(values)), mean, (values - mean).square().sum(0)

    def merge(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same of both. Chan, Golub and LeVeque (1983), "Algorithms for computing the variance"."""
        (count_a, mean_a, scatter_a), (count_b, mean_b, scatter_b) = first, second
        count, step = count_a + count_b, mean_b - mean_a
        scatter = scatter_a + scatter_b + step.square() * count_a * count_b / count
        return count, mean_a + step * count_b / count, scatter

    def value(self, statistics: tuple[Tensor, ...]) -> Tensor:
        """Standard deviation of every output."""
        count, _, scatter = statistics
        return (scatter / (count - 1).clamp(min=1)).sqrt()


def pose_pairs(model: nn.Module, batch: Any, step: Step = read_pair) -> dict[str, Any]:  # noqa: ANN401
    """True and predicted poses of a batch in whole mm, as nested lists; poses are in metres."""
    with evaluated(model):
        prediction, target = step(model, batch)
    return {"true": _millimetres(target), "predicted": _millimetres(prediction)}


def _millimetres(poses: Tensor) -> Any:  # noqa: ANN401 - nested lists
    return (1000 * poses.float()).round().int().tolist()
