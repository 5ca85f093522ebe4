"""AWC behind the interface of the methods: `AWC`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
from awc_balance.batches import Step
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.regularizer import PAPER_WINDOW, AWCRegularizer

FOREIGN_ALPHA = 10_000.0
"""Alphas from here on are of the scale of the paper's 10 000 and 20 000, which only its own setting can bear."""


class AWC(Balancer):
    """Pull encoders towards their parameters at the start of the epoch: `AWCRegularizer` as a `Balancer`.

    "Towards Balanced Multi-Modal Learning in 3D Human Pose Estimation", CVPR 2026, arXiv 2501.05264. What the paper
    did, equations and choices: see `AWCRegularizer`. The gradient of the penalty is added in closed form, so `loss`
    is the task loss. Made for regression with any number of modalities; for classes pass
    `contributions="negative_cross_entropy"`.

    Traps: the paper's alphas belong to a loss in metres and the Fisher diagonals of batches. With
    `scale="root_mean"` or another form of the Fisher diagonal they are of another scale, and a warning says so.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        window: How many epochs, from the first, the pull lasts; see `AWCRegularizer`.
        step: How to read a batch; see `Balancer`.
        **options: The further ones of `AWCRegularizer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: As `AWCRegularizer`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> loader = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(3)]
        >>> balancer = AWC(model, {"table": model[0]}, nn.functional.mse_loss, window=2)
        >>> balancer.start_epoch(loader)
        >>> balancer.loss(loader[0]).backward(); balancer.adjust_gradients_()
        >>> balancer.regularizer.groups
        {'table': 'inferior'}
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        window: int | None = None,
        step: Step | None = None,
        **options: Any,  # noqa: ANN401 - those of AWCRegularizer, which checks them
    ) -> None:
        """See the class."""
        window = PAPER_WINDOW if window is None and options.get("rule", "paper") == "paper" else window
        super().__init__(model, encoders, criterion, window=window, step=step)
        self.regularizer = AWCRegularizer(self._user[0], self._encoders, criterion, window=window, step=step, **options)
        fisher = options.get("fisher", "per_batch")
        self._form = fisher if isinstance(fisher, str) else fisher.form

    def start_epoch(self, loader: Iterable[Any]) -> None:
        """Begin an epoch: anchors, contributions, groups, alphas and Fisher diagonals while the window is open.

        Args:
            loader: The training batches; see `AWCRegularizer.start_epoch`.
        """
        self._refuse_forgotten()
        self.regularizer.start_epoch(loader)
        super().start_epoch(loader)
        if self.epoch == 1:
            self._warn_of_scale()

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        return self._plain(batch)

    def _adjust(self) -> None:
        self.regularizer.add_gradient_()

    def _warn_of_scale(self) -> None:
        regularizer = self.regularizer
        own_setting = regularizer.scale == "raw" and self._form == "per_batch"
        if max(regularizer.alphas.values()) >= FOREIGN_ALPHA and not own_setting:
            warnings.warn(
                f"AWC has alphas of the paper's scale, up to {max(regularizer.alphas.values()):g}, but "
                f"scale={regularizer.scale!r} and fisher={self._form!r} in place of 'raw' and 'per_batch'. "
                "Start from alphas around 100 with scale='root_mean'.",
                UserWarning,
                stacklevel=3,
            )
