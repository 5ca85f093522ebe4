"""Modality-level resampling: a share of the training set is shown again without its strongest modality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from awc_balance.balancers.resampling import Resampling, rate
from awc_balance.balancers.run import Run
from awc_balance.balancers.scores import SMALL_BATCH
from awc_balance.batches import Step
from awc_balance.checks import check_choice
from awc_balance.contributions import ShapleyContribution
from awc_balance.contributions.shapley import shapley_values
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.nested import leaves_of

_PROFITS = ("accuracy", "pearson")


class ModalityResampling(Resampling):
    """Show a share of the training set again without the modality that contributes most.

    "Enhancing Multimodal Cooperation via Sample-level Modality Valuation", CVPR 2024, arXiv 2309.06255, its
    modality-level method. With the profit v(S) = |S| where the prediction from coalition S is right and 0 elsewhere,
    and phi_m its Shapley value (features of the others zeroed), averaged over samples, the share
    rate = alpha * 2/3 * |phi_a - phi_b| of the training set is shown again with the stronger modality zeroed.

    What the paper did: classes, two modalities; contributions on a fifth of the training set at the start of every
    epoch after five of plain training; Adam with 5e-5; the loader was rebuilt every epoch.

    What this port chose: rate = clip(2/3 alpha (phi_max - phi_min), 0, 1), and the modality of phi_max is left out,
    which for two is the paper's. For numbers v(S) = |S| * max(0, correlation of S), averaged over output coordinates.
    The loader stays as it is: every sample of a batch is shown again with probability `rate`, within the same step,
    and the criterion takes the batch and what is shown again as one, so it has to take a larger batch. The second
    showing runs the fusion and head with their present training flags; buffers and random state are left alone.

    Traps: |S| rewards large coalitions, so values are no shares of an accuracy; with alpha = 1 and two modalities the
    rate is 2/3 if one carries all. Contributions are read off the batches as the loader gives them: mind an augmenting
    loader. A correlation over few samples is noise (fewer than 8 bring a warning).

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        profit: "accuracy" for class numbers, "pearson" for numbers.
        alpha: How much is shown again per unit of the gap between contributions. 0 is plain training.
        warmup: How many epochs of plain training come first.
        share: Of the batches, for the contributions.
        seed: Of the choice of samples, which leaves the global random state alone.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range, or there are too many modalities.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> encoders, mse = {"a": model["a"], "b": model["b"]}, nn.functional.mse_loss
        >>> balancer = ModalityResampling(model, encoders, mse, "pearson", warmup=0, step=step)
        >>> loader = [(torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1)) for _ in range(3)]
        >>> balancer.start_epoch(loader)
        >>> 0 <= balancer.rate <= 1
        True
        >>> balancer.loss(loader[0]).backward(); balancer.adjust_gradients_()
    """

    _saved: ClassVar[tuple[str, ...]] = ("contributions", "rate")

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        profit: str,
        *,
        alpha: float = 1.0,
        warmup: int = 5,
        share: float = 0.2,
        seed: int = 0,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, alpha=alpha, warmup=warmup, seed=seed, window=window, step=step)
        check_choice("profit", profit, _PROFITS)
        if not 0 < share <= 1:
            raise ValueError(f"`share` should be above 0 and at most 1. Got {share!r}. Pass 1 to read all batches.")
        self.share = share
        self._correlates = profit == "pearson"
        self._contribution = ShapleyContribution(self._user[0], self._encoders, profit, step=step)
        self.contributions: dict[str, float] = {}
        self.rate = 0.0

    @property
    def strongest(self) -> str:
        """The modality that contributes most.

        Raises:
            RuntimeError: If nothing was measured yet.
        """
        if not self.contributions:
            raise RuntimeError(
                "`strongest` needs contributions. Got none yet, in epoch "
                f"{self.epoch} with warmup={self.warmup}. Call start_epoch(loader) after the warm-up."
            )
        return max(self.contributions, key=self.contributions.__getitem__)

    def _prepare(self, loader: Iterable[Any]) -> None:
        if self.alpha == 0 or self.epoch < self.warmup or len(self.modalities) < 2:
            return
        part = _Part(loader, self.share)
        profits = self._contribution.evaluate(part).profits
        if self._correlates and part.samples < SMALL_BATCH:
            self._warn(
                f"measures correlations, which need {SMALL_BATCH} samples or more to mean anything. Got {part.samples} "
                f"in a share of {self.share:g} of the batches. Pass a larger share=."
            )
        worths = [len(coalition) * max(0.0, profits[coalition]) for coalition in self._coalitions]
        self.contributions = dict(zip(self.modalities, shapley_values(worths).tolist(), strict=True))
        self.rate = float(rate(torch.tensor(list(self.contributions.values()), dtype=torch.float64), self.alpha))

    def _again(self, run: Run) -> dict[str, Tensor]:
        if self.rate == 0:
            return {}
        rates = torch.full((run.samples,), self.rate, device=run.prediction.device)
        return {self.strongest: self._draw(rates)}


class _Part:
    """Evenly spread batches of a loader, the first among them; generators are found where the loader has them."""

    def __init__(self, loader: Iterable[Any], share: float) -> None:
        self._loader = loader
        self._share = share
        self.samples = 0
        """In the batches that were yielded; of a batch without tensors, one."""
        for name in ("generator", "sampler", "batch_sampler"):
            setattr(self, name, getattr(loader, name, None))

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._loader):
            if number * self._share % 1 < self._share:
                self.samples += max((len(x) for x in leaves_of(batch) if isinstance(x, Tensor) and x.dim()), default=1)
                yield batch
