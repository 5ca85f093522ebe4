"""Heads that predict from one modality, owned by the balancer that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
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
        """Predict from `[batch, width]`."""
        prediction: Tensor = self.linear(row)
        return prediction.reshape(len(row), *self.shape)


def linear_heads(
    model: nn.Module,
    encoders: Encoders,
    batch: Any,  # noqa: ANN401
    *,
    step: Step | None = None,
) -> dict[str, nn.Module]:
    """A fresh linear head for every modality, from its feature to the shape of the model's prediction.

    Features are pooled to one row per sample: the mean over tokens `[batch, tokens, width]` or over the places of a
    map `[batch, channels, height, width]`; three dimensions are always read as tokens. The model runs once, in
    evaluation mode, and is left as it was, and so is the random state, from which the weights are drawn.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        batch: Any batch; it tells the shapes, the device and the dtype.
        step: How to read it; see `Balancer`.

    Raises:
        TypeError: If the prediction is not a tensor, or a feature holds no numbers for each sample.
        RuntimeError: If an encoder does not run.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> linear_heads(model, {"table": model[0]}, (torch.randn(8, 3), torch.randn(8, 2)))["table"].linear
        Linear(in_features=4, out_features=2, bias=True)
    """
    inner = check_model(model)
    with measuring(inner), torch.no_grad():
        run = Run(model, inner, check_encoders(encoders, inner), step or default_step, batch)
        shape = run.prediction.shape[1:]
        return {m: LinearHead(row.shape[1], shape).to(row.device, row.dtype) for m, row in run.rows().items()}


class HeadedBalancer(Balancer):
    """A balancer that trains a head for every modality along with the model.

    Give the heads to the optimizer with `optimizer.add_param_group({"params": balancer.parameters()})`.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        heads: By modality, from the pooled row of its feature, `[batch, width]`, to a prediction; see
            `linear_heads`.
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
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        heads = dict(heads.items()) if isinstance(heads, nn.ModuleDict) else heads
        check_by_modality("heads", heads, self.modalities)
        for modality, head in heads.items():
            if not isinstance(head, nn.Module):
                raise TypeError(
                    f"The head of `{modality}` should be an nn.Module. Got {type(head).__name__}. "
                    "Pass heads=linear_heads(model, encoders, batch), or modules of your own."
                )
        self.heads = nn.ModuleList(heads[modality] for modality in self.modalities)  # names may hold dots

    def _losses(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401
        """The joint loss, and the loss of every modality's head."""
        run = self._run(batch, keep_gradient=True)
        single = {
            modality: self._task_loss(head(row), run.target)
            for (modality, row), head in zip(run.rows().items(), self.heads, strict=True)
        }
        return self._task_loss(run.prediction, run.target), single
