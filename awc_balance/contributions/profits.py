"""Profits: the worth of a coalition's prediction, accumulated over batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from awc_balance.contributions.moments import Moments, correlation, merge_moments, moments, pool_moments
from awc_balance.nested import copied

Statistics: TypeAlias = tuple[Tensor, ...]
ProfitFunction: TypeAlias = Callable[[Tensor, Any], Tensor]


class Accumulation(ABC):
    """Statistics that add up over batches, and the profits that they give."""

    @abstractmethod
    def merge(self, first: Statistics, second: Statistics) -> Statistics:
        """The statistics of the samples of both."""

    @abstractmethod
    def value(self, statistics: Statistics) -> Tensor:
        """The profit of every output."""

    def pool(self, folds: Statistics, weights: Tensor) -> Statistics:
        """The statistics of several folds, each counted as often as its weight, a whole number, says.

        Args:
            folds: Statistics with the folds along the first axis.
            weights: One per fold, at least 0, some above it.
        """
        counted = [
            tuple(part[i] for part in folds) for i, weight in enumerate(weights.tolist()) for _ in range(round(weight))
        ]
        return reduce(self.merge, counted)

    def shape(self, statistics: Statistics) -> tuple[int, ...]:
        """The shape of one output, from statistics with the coalitions along the first axis."""
        return tuple(torch.broadcast_shapes(*(part.shape[1:] for part in statistics)))


class Profit(Accumulation):
    """The worth of a coalition's prediction, higher being better, accumulated over batches.

    The statistics of a batch are a tuple of float64 tensors that broadcast to the shape of the profit: the output's,
    or `()` where all outputs have one profit together. `merge` and `value` work element by element, so that they may
    be given statistics with the coalitions along a first axis.
    """

    @abstractmethod
    def measure(self, prediction: Tensor, target: Any) -> Statistics:  # noqa: ANN401
        """The statistics of one batch."""

    def measure_each(self, predictions: Tensor, target: Any) -> Statistics:  # noqa: ANN401
        """The statistics of one batch predicted from several coalitions, `[coalitions, batch, ...]`."""
        measured = [self.measure(prediction, copied(target)) for prediction in predictions]
        return tuple(torch.stack(parts) for parts in zip(*measured, strict=True))


class Pearson(Profit):
    """Correlation of prediction and target over all samples seen, per output coordinate."""

    def measure(self, prediction: Tensor, target: Any) -> Statistics:  # noqa: ANN401
        """Means, variances and covariances, whatever the dtype in float64."""
        return moments(*check_same_shape(prediction, target))

    def measure_each(self, predictions: Tensor, target: Any) -> Statistics:  # noqa: ANN401
        """The moments of all coalitions at once."""
        check_same_shape(predictions[0], target)
        return moments(predictions.detach(), target.detach())

    def merge(self, first: Statistics, second: Statistics) -> Statistics:
        """Moments of the samples of both."""
        return merge_moments(Moments(*first), Moments(*second))

    def pool(self, folds: Statistics, weights: Tensor) -> Statistics:
        """Moments of the samples of several folds, counted by any weights."""
        return pool_moments(Moments(*folds), weights)

    def value(self, statistics: Statistics) -> Tensor:
        """Correlation per coordinate; 0 where the prediction or the target is constant."""
        return correlation(Moments(*statistics))


class MeanProfit(Profit):
    """Mean over the batches, weighted by their size, of a function of one batch.

    Args:
        function: From (prediction, target) of a batch to one profit, or to one per output coordinate.
    """

    def __init__(self, function: ProfitFunction) -> None:
        """See the class."""
        self.function = function

    def measure(self, prediction: Tensor, target: Any) -> Statistics:  # noqa: ANN401
        """The number of samples, and the profit of this batch times that number."""
        worth = self.function(prediction, target)
        if not isinstance(worth, Tensor | int | float):
            raise TypeError(
                f"A profit should be a number or a tensor. Got {type(worth).__name__}. Let your function return one."
            )
        worth = torch.as_tensor(worth)
        worth = worth.detach().double()
        count = worth.new_full([1] * worth.dim(), len(prediction))
        return count, worth * count

    def merge(self, first: Statistics, second: Statistics) -> Statistics:
        """Sums of both."""
        return tuple(a + b for a, b in zip(first, second, strict=True))

    def pool(self, folds: Statistics, weights: Tensor) -> Statistics:
        """Sums over folds, counted by any weights."""
        return tuple(torch.tensordot(weights, part, 1) for part in folds)

    def value(self, statistics: Statistics) -> Tensor:
        """Mean per sample."""
        count, total = statistics
        return total / count


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Correlation along the batch dimension, for every output coordinate, in float64.

    0 where the prediction or the target does not vary by more than the rounding of its dtype, and for a batch of
    one: a collapsed prediction carries nothing, and is never nan.

    Args:
        prediction: `[batch, ...]`, any floating dtype.
        target: The same shape.

    Returns:
        Correlations of the shape `[...]` of one output.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> pearson(torch.tensor([[1.0, 5.0], [2.0, 5.0]]), torch.tensor([[3.0, 1.0], [9.0, 2.0]]))
        tensor([1., 0.], dtype=torch.float64)
    """
    return correlation(moments(*check_same_shape(prediction, target)))


def negative_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative mean squared error of every output coordinate, in the target's unit squared."""
    prediction, target = check_same_shape(prediction, target)
    return -(prediction.double() - target.double()).square().mean(0)


def negative_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative mean cross-entropy in nats, of logits `[batch, classes, ...]` and class numbers `[batch, ...]`.

    The target may also hold a probability for every class, in the shape of the logits.
    """
    check_classes(prediction, target)
    return -F.cross_entropy(prediction.double(), target.double() if target.is_floating_point() else target)


def negative_binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative mean cross-entropy in nats of every yes-or-no output: logits `[batch, ...]`, targets 0 to 1 alike."""
    prediction, target = check_same_shape(prediction, target)
    return -F.binary_cross_entropy_with_logits(prediction.double(), target.double(), reduction="none").mean(0)


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose highest logit is the class: logits `[batch, classes, ...]`, class numbers."""
    check_classes(prediction, target, probabilities=False)
    return (prediction.argmax(1) == target).double().mean()


PROFITS: dict[str, Callable[[], Profit]] = {
    "pearson": Pearson,
    "pearson_per_batch": lambda: MeanProfit(pearson),
    "negative_mse": lambda: MeanProfit(negative_mse),
    "negative_cross_entropy": lambda: MeanProfit(negative_cross_entropy),
    "negative_binary_cross_entropy": lambda: MeanProfit(negative_binary_cross_entropy),
    "accuracy": lambda: MeanProfit(accuracy),
}


def as_profit(profit: str | Profit | ProfitFunction, argument: str = "profit") -> Profit:
    """The profit of that name, or that a function of one batch defines.

    Args:
        profit: Name, profit or function.
        argument: What errors call it.

    Raises:
        ValueError: If no profit has that name.
        TypeError: If it is neither a name, nor a `Profit`, nor callable.
    """
    if isinstance(profit, Profit):
        return profit
    if isinstance(profit, str):
        if profit not in PROFITS:
            names = ", ".join(map(repr, PROFITS))
            raise ValueError(f"`{argument}` should be one of {names}. Got {profit!r}. Or pass a function of your own.")
        return PROFITS[profit]()
    if callable(profit):
        return MeanProfit(profit)
    raise TypeError(
        f"`{argument}` should be a name or a function. Got {type(profit).__name__}. "
        "Pass a function (prediction, target) -> profit, higher being better."
    )


def check_classes(prediction: Tensor, target: Any, *, probabilities: bool = True) -> None:  # noqa: ANN401
    """Refuse what is not a choice among two classes or more."""
    fits = isinstance(target, Tensor) and prediction.dim() >= 2 and prediction.shape[1] >= 2
    if fits and target.is_floating_point():
        sums = target.sum(1)
        fits = probabilities and target.shape == prediction.shape
        fits = fits and bool((target >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
    elif fits:
        fits = target.shape == prediction[:, 0].shape
    if not fits:
        got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise ValueError(
            "A profit of classes needs logits [batch, classes, ...] of two classes or more, and class numbers "
            f"[batch, ...] or probabilities that sum to 1. Got {tuple(prediction.shape)} and {got}. "
            "For yes-or-no outputs take 'negative_binary_cross_entropy', where a loss is chosen 'binary_cross_entropy'."
        )


def check_same_shape(prediction: Tensor, target: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Both, once they are known to fit together."""
    if not isinstance(target, Tensor) or prediction.shape != target.shape:
        got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise ValueError(
            "Prediction and target should have the same shape [batch, ...]. "
            f"Got {tuple(prediction.shape)} and {got}. Let `step` return them alike; of classes return integer "
            "numbers, and where a profit is chosen, choose 'negative_cross_entropy' or 'accuracy'."
        )
    return prediction.detach(), target.detach()
