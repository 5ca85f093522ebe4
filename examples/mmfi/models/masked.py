"""Statistics of padded point clouds that see the real points only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real points of each cloud; 0 for a cloud without any.

    Args:
        values: `[batch, points, channels]`.
        mask: `[batch, points]`, bool, True for a real point.

    Returns:
        `[batch, channels]`, in the dtype of `values`.
    """
    total = values.masked_fill(~mask.unsqueeze(-1), 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the last axis, with statistics over the rows that the mask keeps.

    In training the statistics are those of all real rows of the batch, and equal those of
    `nn.BatchNorm1d` on these rows alone; in evaluation each row is normalised by itself. Rows that the
    mask drops come out as the bias. Statistics are computed in the dtype of the running statistics or in
    that of the values, whichever is wider. Fewer than two real rows leave the running statistics as they
    are. `SyncBatchNorm.convert_sync_batchnorm` would drop the mask: keep these layers out of it.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        """Normalise `channels` columns, with a learned scale and bias if `affine`."""
        super().__init__(channels, affine=affine)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002 (the name in torch)
        """Normalise rows.

        Args:
            input: `[..., channels]`.
            mask: `[...]`, bool, True for a real row; by default all rows are real.

        Returns:
            A tensor like `input`.
        """
        real = input.new_ones(input.shape[:-1], dtype=torch.bool) if mask is None else mask
        real = real.unsqueeze(-1)
        wide = input.to(torch.promote_types(input.dtype, self.running_mean.dtype))
        count = real.sum()
        mean = _sum_rows(wide.masked_fill(~real, 0.0)) / count.clamp(min=1) if self.training else self.running_mean
        centred = (wide - mean).masked_fill(~real, 0.0)
        if self.training:
            variance = _sum_rows(centred.square()) / count.clamp(min=1)
            self._track(mean.detach(), variance.detach(), count)
        else:
            variance = self.running_var
        normal = centred * torch.rsqrt(variance + self.eps)
        if self.affine:
            normal = normal * self.weight + self.bias
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards a batch's, unless it has too few rows to have a variance."""
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        step = momentum * (count > 1).to(self.running_mean.dtype)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(step.dtype), step)
        self.running_var.lerp_(unbiased.to(step.dtype), step)


def _sum_rows(values: Tensor) -> Tensor:
    """Sum over all axes but the last."""
    return values.flatten(end_dim=-2).sum(dim=0)
