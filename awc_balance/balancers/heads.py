"""Heads that predict from one modality, owned by the balancer that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.rows import Pool, check_pool
from awc_balance.balancers.run import Run
from awc_balance.batches import Step, default_step
from awc_balance.checks import check_by_modality
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.fisher.objective import Criterion
from awc_balance.preserve import measuring


class LinearHead(nn.Module):
    """A linear layer from the row of a feature to a prediction of any shape.

    Args:
        width: Of the row.
        shape: Of one sample's prediction.
    """

    def __init__(self, width: int, shape: torch.Size) -> None:
        """See the class."""
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(width, prod(shape))

    def forward(self, row: Tensor) -> Tensor:
        """Predict from `[batch, width]`.

        Raises:
            ValueError: If rows have another width than those the head was made for.
        """
        if row.shape[1] != self.linear.in_features:
            raise ValueError(
                f"A head should take rows of one width. Got {row.shape[1]} numbers in place of "
                f"{self.linear.in_features} in a batch of {len(row)}. Pass pool=, by modality, to the balancer and to "
                "linear_heads."
            )
        prediction: Tensor = self.linear(row)
        return prediction.reshape(len(row), *self.shape)


def linear_heads(
    model: nn.Module,
    encoders: Encoders,
    batch: Any,  # noqa: ANN401
    *,
    step: Step | None = None,
    pool: Pool | None = None,
) -> dict[str, nn.Module]:
    """A fresh linear head for every modality, from its feature to the shape of the model's prediction.

    Features are pooled to one row per sample: the mean over tokens `[batch, tokens, width]` or over the places of a
    map `[batch, channels, height, width]`; of recurrent layers the outputs alone are taken. Three dimensions are always
    read as tokens: for series `[batch, channels, time]`, and wherever else a better row is known, give `pool` here and
    to the balancer. The model runs once, in
    evaluation mode, and is left as it was, and so is the random state, from which the weights are drawn.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        batch: Any batch; it tells the shapes, the device and the dtype.
        step: How to read it; see `Balancer`.
        pool: By modality, a function from its feature to a row `[batch, width]`, such as
            `{"imu": lambda feature: feature.mean(2)}`; the others are pooled as above.

    Raises:
        ValueError: If `pool` names an unknown modality, or makes anything but rows.
        TypeError: If the prediction is not a tensor, or a feature holds no numbers for each sample.
        RuntimeError: If an encoder does not run.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> linear_heads(model, {"table": model[0]}, (torch.randn(8, 3), torch.randn(8, 2)))["table"].linear
        Linear(in_features=4, out_features=2, bias=True)
    """
    inner = check_model(model)
    with measuring(inner), torch.no_grad():
        encoders = check_encoders(encoders, inner)
        pool = check_pool(pool, encoders)
        run = Run(model, inner, encoders, step or default_step, batch)
        shape = run.prediction.shape[1:]
        return {m: LinearHead(row.shape[1], shape).to(row.device, row.dtype) for m, row in run.rows(pool).items()}


class HeadedBalancer(Balancer):
    """A balancer that trains a head for every modality along with the model.

    Give the heads to the optimizer with `optimizer.add_param_group({"params": balancer.parameters()})`.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        heads: By modality, from the pooled row of its feature, `[batch, width]`, to a prediction; see
            `linear_heads`.
        pool: How to make rows of features, as given to `linear_heads`.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        pool: Pool | None = None,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        self._pool = check_pool(pool, self.modalities)
        heads = dict(heads.items()) if isinstance(heads, nn.ModuleDict) else heads
        check_by_modality("heads", heads, self.modalities)
        for modality, head in heads.items():
            if not isinstance(head, nn.Module):
                raise TypeError(
                    f"The head of `{modality}` should be an nn.Module. Got {type(head).__name__}. "
                    "Pass heads=linear_heads(model, encoders, batch), or modules of your own."
                )
        self.heads = nn.ModuleList(heads[modality] for modality in self.modalities)  # names may hold dots

    def _losses(self, run: Run) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint loss, and the loss of every modality's head."""
        single = {
            modality: self._task_loss(head(row), run.target)
            for (modality, row), head in zip(run.rows(self._pool).items(), self.heads, strict=True)
        }
        return self._task_loss(run.prediction, run.target), single
