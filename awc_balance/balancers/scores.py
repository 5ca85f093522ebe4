"""How well a modality does by itself: scores of a prediction, for classes and for numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from awc_balance.contributions.profits import pearson

Score: TypeAlias = Callable[[Tensor, Any], Tensor | float]
"""From the prediction and the target of a batch to one number."""

SMALL_BATCH = 8
"""Below it the standard error of a correlation, 1/sqrt(batch - 1) where there is none, is above 0.4."""


def probability(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean probability of the true class, of logits `[batch, classes, ...]` and class numbers. Higher is better.

    Negative class numbers, such as the -100 that `cross_entropy` ignores, are left out.
    """
    known = classes >= 0
    found = logits.detach().float().softmax(1).gather(1, classes.clamp(min=0).unsqueeze(1)).squeeze(1)
    return (found * known).sum() / known.sum().clamp(min=1)


def inverse_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """One over the mean squared error. Higher is better; ratios of it do not depend on the target's unit."""
    error = _mse(prediction, target.double())
    inverse = 1 / error.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(error.isfinite(), inverse, torch.nan)  # an infinite error is no score of 0, but to be refused


def clipped_pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean correlation over output coordinates, at least 0. Higher is better; warns where the batch is too small."""
    if len(prediction) < SMALL_BATCH:
        warnings.warn(
            f"A correlation needs {SMALL_BATCH} samples or more to mean anything. Got a batch of {len(prediction)}. "
            "Use larger batches, or another score.",
            UserWarning,
            stacklevel=2,
        )
    return pearson(prediction, target).mean().clamp(min=0)


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy in nats. Lower is better."""
    return F.cross_entropy(logits.detach().float(), classes)


def log_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Logarithm of the mean squared error, whose differences do not depend on the target's unit. Lower is better.

    A millionth of the target's mean square is added to the error, so that a perfect prediction has a finite score.
    """
    target = target.double()
    smallest = 1e-6 * target.square().mean() + torch.finfo(torch.float64).tiny
    return (_mse(prediction, target) + smallest).log()


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Refuses to spread one over the other, which would compare the samples with each other."""
    if prediction.shape != target.shape:
        raise ValueError(
            "To be scored, prediction and target should have one shape. "
            f"Got {tuple(prediction.shape)} and {tuple(target.shape)}. Let `step` return them alike, or pass score=."
        )
    return (prediction.detach().double() - target).square().mean()


def is_class(target: Any) -> bool:  # noqa: ANN401
    """Whether the target holds class numbers: integers."""
    return isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()


def check_score(name: str, score: Score | None) -> Score | None:
    """The score, if it can be called or left to the method.

    Raises:
        TypeError: If it can not.
    """
    if score is not None and not callable(score):
        raise TypeError(
            f"`{name}` should be a function (prediction, target) -> number. Got {type(score).__name__}. "
            "Pass one of awc_balance.balancers.scores, or None."
        )
    return score


def scores_of(
    predictions: Mapping[str, Tensor],
    target: Any,  # noqa: ANN401
    score: Score | None,
    classes: Score,
    numbers: Score,
) -> dict[str, float]:
    """The score of every modality's own prediction.

    Args:
        predictions: By modality.
        target: Of the batch.
        score: The user's; None for one of the next two.
        classes: Where the target holds class numbers.
        numbers: Where it holds anything else.

    Raises:
        TypeError: If the target is not a tensor and no score was given.
        ValueError: If a score is not finite.
    """
    if score is None:
        if not isinstance(target, Tensor):
            raise TypeError(
                f"To be scored, the target should be a tensor. Got {type(target).__name__}. "
                "Pass score=, a function (prediction, target) -> number."
            )
        score = classes if is_class(target) else numbers
    found = {modality: float(score(prediction, target)) for modality, prediction in predictions.items()}
    for modality, value in found.items():
        if not isfinite(value):
            raise ValueError(
                f"Scores should be finite. Got {value} for `{modality}`. "
                "Look for the cause in its inputs, the target or the parameters."
            )
    return found


def mean_scores(parts: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """The scores of batches, averaged by their number of samples."""
    total = sum(samples for samples, _ in parts)
    return {m: sum(samples * scores[m] for samples, scores in parts) / total for m in parts[0][1]}


def mean_of_others(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean score of the other modalities, by modality; a modality's own where there is no other."""
    if len(scores) < 2:
        return dict(scores)
    return {m: sum(v for other, v in scores.items() if other != m) / (len(scores) - 1) for m in scores}
