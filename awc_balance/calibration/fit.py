"""Factors of the parts of predictions that make a loss smallest, from samples dealt to folds: `Fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from awc_balance.calibration.parts import Parts
from awc_balance.processes import Processes

FOLDS = 20
"""At least so many folds where there are so many samples; no more than twice as many."""

RIDGE = 1e-4
"""Of the mean curvature, added to every curvature: parts a hundred times smaller than the others keep the factor 1,
and what two parts cannot be told apart by is left alone."""

_ROUNDED = 1e-12
"""What is left of a sum of this size by rounding alone is no more than this share."""

_TINY = torch.finfo(torch.float64).tiny

Kind: TypeAlias = Literal["squared", "classes", "binary"]


class Minimum(NamedTuple):
    """Where the loss is smallest along some directions, for every weighting of the folds."""

    factors: Tensor
    """Coordinates by direction, `[W, k]`."""
    loss: Tensor
    """`[W]`."""


class Fit(ABC):
    """Samples with the parts of their predictions, and the loss as a function of the parts' factors.

    The loss is that of base + sum_k g_k q_k, with a factor g_k for every part q_k, and 1 for all of them in the model
    as it is.
    """

    kind: Kind

    @abstractmethod
    def add(self, parts: Parts, target: Tensor) -> None:
        """Add the samples of a batch."""

    @abstractmethod
    def folds(self) -> int:
        """How many there are; each holds samples that follow one another."""

    @abstractmethod
    def minimum(self, directions: Tensor, weights: Tensor) -> Minimum:
        """The smallest loss over g = A x.

        Args:
            directions: A, `[K, k]`, float64.
            weights: How often each fold is counted, `[W, folds]`, float64.
        """

    @abstractmethod
    def sizes(self, directions: Tensor) -> Tensor:
        """How much the loss changes along each of some directions `[K, k]`: its second derivative at 1, `[k]`."""

    @abstractmethod
    def explained(self, weights: Tensor) -> Tensor:
        """By which share the loss of the prediction as it is lies below that of the best constant, `[W]`.

        Args:
            weights: As for `minimum`.
        """

    @abstractmethod
    def over(self, processes: Processes) -> Fit:
        """The same with the samples of all processes."""


def saved(loss: Tensor, constant: Tensor) -> Tensor:
    """By which share a loss lies below another; 0 where nothing varies, so that nothing can be explained."""
    varies = constant > _ROUNDED * loss
    return torch.where(varies, 1 - loss / constant.clamp(min=_TINY), 0.0)


def newton_step(curvature: Tensor, slope: Tensor) -> Tensor:
    """Newton steps `[W, k]`; 0 where nothing depends on the factors."""
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    # Of parts that are all 0 any ridge will do, but one too small to divide by.
    ridge = torch.where(mean > _TINY / RIDGE, RIDGE * mean, 1.0)
    step: Tensor = torch.linalg.solve(curvature + torch.diag_embed(ridge.expand_as(diagonal)), slope)
    return step
