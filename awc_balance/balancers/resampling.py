"""What resampling methods have in common: samples are shown again without the modality that carries them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.random_numbers import OwnRandom
from awc_balance.balancers.run import Run
from awc_balance.batches import Step
from awc_balance.checks import check_alpha, check_count
from awc_balance.contributions.shapley import coalitions
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.nested import map_tensors


class Resampling(Balancer):
    """What modality-level and sample-level resampling have in common: showing a part of the batch again.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        alpha: How much is shown again per unit of the gap between contributions. 0 is plain training.
        warmup: How many epochs of plain training come first.
        seed: Of the choice of samples, which leaves the global random state alone.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        alpha: float = 1.0,
        warmup: int = 5,
        seed: int = 0,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        self._coalitions = coalitions(self.modalities)
        self.alpha = check_alpha("alpha", alpha)
        check_count("warmup", warmup, 0)
        self.warmup = warmup
        self._random = OwnRandom(seed)

    @abstractmethod
    def _again(self, run: Run) -> dict[str, Tensor]:
        """Which samples to show again without which modality: a boolean tensor `[batch]` by modality left out."""

    @property
    def _off(self) -> bool:
        return self.alpha == 0 or self.epoch <= self.warmup or len(self.modalities) < 2

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        if self._off:
            return self._plain(batch)
        with self._random.kept_on_failure():
            return self._shown_again(batch)

    def _shown_again(self, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss of a batch and of what is shown again of it."""
        run = self._run(batch, keep_gradient=True)
        again = {modality: chosen for modality, chosen in self._again(run).items() if bool(chosen.any())}
        if not again:
            return self._task_loss(run.prediction, run.target)
        left = [set(self.modalities) - {modality} for modality in again]
        parts = zip(again.values(), run.predictions(left, mode="current"), strict=True)
        prediction = torch.cat([run.prediction, *(shown[chosen] for chosen, shown in parts)])
        target = map_tensors(lambda leaf: _repeated(leaf, list(again.values()), run.samples), run.target)
        return self._task_loss(prediction, target)

    def _draw(self, rates: Tensor) -> Tensor:
        """Each sample with its own probability."""
        return self._random.uniform(len(rates)).to(rates.device) < rates


def rate(values: Tensor, alpha: float) -> Tensor:
    """How often to show again, by contributions `[M, ...]`: clip(2/3 alpha (phi_max - phi_min), 0, 1).

    Example:
        >>> rate(torch.tensor([0.9, 0.3]), alpha=1.0)
        tensor(0.4000)
    """
    return (2 / 3 * alpha * (values.amax(0) - values.amin(0))).clamp(0, 1)


def _repeated(leaf: Tensor, chosen: list[Tensor], samples: int) -> Tensor:
    """A part of the target with the chosen samples once more at its end."""
    if not leaf.dim() or len(leaf) != samples:
        return leaf
    return torch.cat([leaf, *(leaf[where.to(leaf.device)] for where in chosen)])
