"""Sample-level resampling: each sample may be shown again without the modality that carries it most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awc_balance.balancers.resampling import Resampling, rate
from awc_balance.balancers.run import Run
from awc_balance.balancers.scores import is_class
from awc_balance.contributions.shapley import shapley_values


class SampleResampling(Resampling):
    """Show samples again, each without the modality that carries it most.

    "Enhancing Multimodal Cooperation via Sample-level Modality Valuation", CVPR 2024, arXiv 2309.06255, its
    sample-level method. v(S) = |S| where the prediction of this sample from coalition S is right and 0 elsewhere, and
    phi its Shapley value for this sample; the larger the gap between modalities, the more often the sample is shown
    with the stronger one zeroed.

    What the paper did: classes, two modalities; contributions of every sample at the start of an epoch, and a new
    training list from them.

    What this port chose: contributions are measured in the step, of the model as it is, so that there is nothing to
    rebuild and nothing can be stale, at the price of 2^M runs of the fusion and head per step. A sample is shown again
    with probability clip(2/3 alpha (phi_max - phi_min), 0, 1), the rate of the modality level, without its own
    modality of phi_max. For numbers a prediction counts as right where its mean squared error is below the median
    error of the full model in the batch. Of equal modalities the first is left out. The criterion takes the batch and
    what is shown again as one.

    Traps: for numbers half the samples are right by definition, so the rate never dies out; in a small batch the
    median is noise. A prediction per place (segmentation) is right where all places are.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        alpha: How much is shown again per unit of the gap between contributions. 0 is plain training.
        warmup: How many epochs of plain training come first.
        seed: Of the choice of samples, which leaves the global random state alone.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range, or there are too many modalities.

    Example:
        >>> from torch import nn
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> encoders, mse = {"a": model["a"], "b": model["b"]}, nn.functional.mse_loss
        >>> balancer = SampleResampling(model, encoders, mse, warmup=0, step=step)
        >>> batch = (torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
    """

    def _again(self, run: Run) -> dict[str, Tensor]:
        with torch.no_grad():
            right = are_right(run.predictions(self._coalitions), run.target)
        sizes = torch.tensor([len(coalition) for coalition in self._coalitions], device=right.device)
        values = shapley_values(sizes.unsqueeze(1) * right.double())  # [M, batch]
        values = values.round(decimals=6)  # or rounding errors would tell apart modalities that are equal
        drawn = self._draw(rate(values, self.alpha))
        strongest = values.argmax(0)
        return {modality: drawn & (strongest == i) for i, modality in enumerate(self.modalities)}


def are_right(predictions: list[Tensor], target: Any) -> Tensor:  # noqa: ANN401
    """Whether each coalition is right about each sample, `[coalitions, batch]`; the last is the full model.

    For class numbers: the highest logit is the class. For numbers: the squared error is below the full model's median.

    Raises:
        ValueError: If predictions and target do not fit.
    """
    fits = isinstance(target, Tensor) and (
        predictions[-1].dim() > 1 and predictions[-1][:, 0].shape == target.shape
        if is_class(target)
        else predictions[-1].shape == target.shape
    )
    if not fits:
        got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise ValueError(
            "Samples are judged by logits [batch, classes, ...] and class numbers [batch, ...], or by predictions and "
            f"numbers of one shape. Got {tuple(predictions[-1].shape)} and {got}. Use ModalityResampling."
        )
    if is_class(target):
        hits = torch.stack([prediction.argmax(1) == target for prediction in predictions])
        return hits.flatten(2).all(2) if hits.dim() > 2 else hits
    squares = torch.stack([(prediction.double() - target).square() for prediction in predictions])
    errors = squares.unsqueeze(2).flatten(2).mean(2)
    return errors < errors[-1].median()
