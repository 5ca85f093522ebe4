"""Running estimates of the mean squared gradient, from squares or from the gradients of whole batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from awc_balance.fisher.gradients import Gradients
from awc_balance.precision import squared


class Estimate(ABC):
    """A Fisher diagonal that is being estimated."""

    @abstractmethod
    def add(self, values: Gradients, samples: int) -> None:
        """Take in the values of a batch of that many samples; they may be kept and changed."""

    @abstractmethod
    def result(self) -> Gradients:
        """The Fisher diagonal of what was taken in.

        Raises:
            RuntimeError: If that is too little.
        """


class MeanSquare(Estimate):
    """The mean of squares: of the gradients of samples, or of the gradients of batch means."""

    def __init__(self) -> None:
        """Empty."""
        self._count = 0
        self._total: Gradients = {}

    def add(self, values: Gradients, samples: int) -> None:
        """Take in a sum of `samples` squares."""
        self._count += samples
        known = values.keys() & self._total.keys()
        if known:
            torch._foreach_add_([self._total[name] for name in known], [values[name] for name in known])
        self._total |= {name: value for name, value in values.items() if name not in known}

    def result(self) -> Gradients:
        """The mean."""
        if not self._count:
            raise RuntimeError("A Fisher diagonal needs at least one batch. Got none. Call update() or estimate().")
        return {name: total / self._count for name, total in self._total.items()}


class CorrectedBatches(Estimate):
    """The mean squared gradient of single samples, estimated from the gradients g of batch means alone.

    With batches of B samples at fixed parameters, E[g^2] = mu^2 + sigma^2 / B, while one sample has
    mu^2 + sigma^2. The spread of g between the batches gives sigma^2, and so the correction. For K batches of any
    sizes B_k, N samples in all: sigma^2 = sum B_k (g_k - g_bar)^2 / (K - 1) and
    F = max(g_bar^2 - sigma^2 / N, 0) + sigma^2.
    """

    def __init__(self) -> None:
        """Empty."""
        self._batches = 0
        self._samples = 0
        self._mean: Gradients = {}
        self._scatter: Gradients = {}

    def add(self, values: Gradients, samples: int) -> None:
        """Take in the gradients of the mean loss of a batch. West (1979), "Updating mean and variance estimates"."""
        self._batches += 1
        self._samples += samples
        for name, value in values.items():
            mean = self._mean.setdefault(name, torch.zeros_like(value))
            scatter = self._scatter.setdefault(name, torch.zeros_like(value.real))
            step = value - mean
            mean.add_(step, alpha=samples / self._samples)
            scatter.add_((step * value.sub_(mean).conj()).real, alpha=samples)

    def result(self) -> Gradients:
        """The corrected estimate."""
        if self._batches < 2:
            raise RuntimeError(
                "The corrected Fisher diagonal needs the spread between at least two batches. "
                f"Got {self._batches}. Use smaller batches, more samples, or form='per_sample'."
            )
        diagonal = {}
        for name, mean in self._mean.items():
            variance = self._scatter[name] / (self._batches - 1)
            diagonal[name] = (squared(mean) - variance / self._samples).clamp_(min=0) + variance
        return diagonal
