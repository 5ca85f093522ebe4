"""Point Transformer: the encoder of point clouds, for LiDAR and mmWave radar.

Zhao et al., "Point Transformer", ICCV 2021. Vector self-attention among the nearest neighbours of each
point, in stages that thin the cloud out by farthest-point sampling; the points of the last stage are
averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.mmfi.models.layers import mlp
from examples.mmfi.models.masked import MaskedBatchNorm, masked_mean
from examples.mmfi.models.points import Level, Neighbours, build_levels, gather_points


@dataclass(frozen=True)
class PointTransformerConfig:
    """Widths of a `PointTransformer`; the defaults are the `paper` preset's.

    Attributes:
        columns: Input columns, the first three being the position.
        widths: Channels of each stage.
        neighbours: Neighbours of each stage.
        stride: Points per kept point from one stage to the next.
        share: Channels that share one attention weight.
        hidden: Width of the hidden layer after the encoder.
    """

    columns: int = 3
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)  # Zhao et al., figure 3
    neighbours: tuple[int, ...] = (8, 16, 16, 16, 16)  # Zhao et al.: 16; public code: 8 in the first stage
    stride: int = 4  # Zhao et al., network architecture
    share: int = 8  # public code
    hidden: int = 256  # solved from the published totals

    def __post_init__(self) -> None:
        """Reject stages that do not fit together."""
        if self.columns < 3:
            raise ValueError(f"`columns` should be 3 or more, the position first. Got {self.columns}.")
        if self.stride < 1:
            raise ValueError(f"`stride` should be 1 or more. Got {self.stride}.")
        if len(self.widths) != len(self.neighbours):
            raise ValueError(
                f"`neighbours` should have one entry per stage. Got {self.neighbours} for the widths {self.widths}."
            )
        if any(width % self.share for width in self.widths):
            raise ValueError(
                f"Every width should be a multiple of `share`. Got widths {self.widths} and share {self.share}."
            )


class VectorAttention(nn.Module):
    """Self-attention among neighbours with a weight per group of channels (Zhao et al., equation 3)."""

    def __init__(self, channels: int, share: int) -> None:
        """Attend with `channels // share` weights per neighbour, each serving `share` channels."""
        super().__init__()
        groups = channels // share
        self.share = share
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.position_in = nn.Linear(3, 3)
        self.position_norm = MaskedBatchNorm(3)
        self.position_out = nn.Linear(3, channels)
        self.relation_norm = MaskedBatchNorm(channels)
        self.weight_in = nn.Linear(channels, groups)
        self.weight_norm = MaskedBatchNorm(groups)
        self.weight_out = nn.Linear(groups, groups)

    def forward(self, features: Tensor, near: Neighbours) -> Tensor:
        """Attend from each point to its neighbours: `[batch, points, channels]` to the same."""
        key, value = gather_points(self.key_value(features), near.indices).chunk(2, dim=-1)
        place = F.relu(self.position_norm(self.position_in(near.offsets), near.mask))
        place = self.position_out(place)
        weights = self._weights(key - self.query(features).unsqueeze(2) + place, near.mask)
        shared = (value + place).unflatten(-1, (self.share, -1))
        attended: Tensor = (shared * weights.unsqueeze(-2)).sum(dim=2).flatten(start_dim=-2)
        return attended

    def _weights(self, relation: Tensor, mask: Tensor) -> Tensor:
        """Softmax over the real neighbours, `[batch, points, neighbours, groups]`; 0 for the others."""
        hidden = self.weight_in(F.relu(self.relation_norm(relation, mask)))
        scores: Tensor = self.weight_out(F.relu(self.weight_norm(hidden, mask)))
        missing = ~mask.unsqueeze(-1)
        # The lowest finite number, not -inf: padding has no real neighbour and would turn into nan.
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(missing, lowest).softmax(dim=2).masked_fill(missing, 0.0)


class ResidualBlock(nn.Module):
    """Vector attention between two linear layers, added to the input."""

    def __init__(self, channels: int, share: int) -> None:
        """Build a block of `channels` in and out."""
        super().__init__()
        self.linear_in = nn.Linear(channels, channels, bias=False)
        self.norm_in = MaskedBatchNorm(channels)
        self.attention = VectorAttention(channels, share)
        self.norm_attention = MaskedBatchNorm(channels)
        self.linear_out = nn.Linear(channels, channels, bias=False)
        self.norm_out = MaskedBatchNorm(channels)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        """Map `[batch, points, channels]` to the same."""
        hidden = F.relu(self.norm_in(self.linear_in(features), level.mask))
        hidden = F.relu(self.norm_attention(self.attention(hidden, level.within), level.mask))
        return F.relu(features + self.norm_out(self.linear_out(hidden), level.mask))


class Embedding(nn.Module):
    """The entry of the first stage: each point by itself."""

    def __init__(self, columns: int, channels: int) -> None:
        """Map `columns` to `channels`."""
        super().__init__()
        # Metres, m/s and radar intensities differ by factors of a hundred. No parameters.
        self.standardise = MaskedBatchNorm(columns, affine=False)
        self.linear = nn.Linear(columns, channels, bias=False)
        self.norm = MaskedBatchNorm(channels)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        """Map `[batch, points, columns]` to `[batch, points, channels]`."""
        hidden = self.linear(self.standardise(features, level.mask))
        return F.relu(self.norm(hidden, level.mask))


class TransitionDown(nn.Module):
    """The entry of a later stage: the maximum over the neighbours in the finer level."""

    def __init__(self, inputs: int, channels: int) -> None:
        """Map `inputs` channels and the offset of the neighbour to `channels`."""
        super().__init__()
        self.linear = nn.Linear(3 + inputs, channels, bias=False)
        self.norm = MaskedBatchNorm(channels)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        """Map `[batch, finer points, inputs]` to `[batch, points, channels]`."""
        sources = level.sources
        if sources is None:
            raise ValueError("A transition needs a level with `sources`. Got the first level of a cloud.")
        # The layer is linear: features pass it before they are copied to every group, not after.
        offset_weight, feature_weight = self.linear.weight[:, :3], self.linear.weight[:, 3:]
        grouped = gather_points(F.linear(features, feature_weight), sources.indices)
        grouped = F.relu(self.norm(grouped + F.linear(sources.offsets, offset_weight), sources.mask))
        # After a ReLU, 0 is neutral to the maximum, and the answer for a cloud without points.
        return grouped.masked_fill(~sources.mask.unsqueeze(-1), 0.0).amax(dim=2)


class PointTransformer(nn.Module):
    """Point clouds `[batch, points, columns]` with a mask to features `[batch, features]`.

    The feature of a cloud does not depend on its padding, on the order of its points (up to exact ties of
    distances) or, in evaluation, on the other clouds. All clouds without real points have the same feature.
    """

    def __init__(self, config: PointTransformerConfig, features: int) -> None:
        """Build the encoder of `config` with `features` outputs."""
        super().__init__()
        self.config = config
        widths = config.widths
        downs = [TransitionDown(*pair) for pair in pairwise(widths)]
        self.entries = nn.ModuleList([Embedding(config.columns, widths[0]), *downs])
        self.blocks = nn.ModuleList(ResidualBlock(width, config.share) for width in widths)
        self.head = mlp(widths[-1], config.hidden, features)

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """Encode clouds.

        Args:
            points: `[batch, points, columns]`; metres in the first three columns. Padding may hold anything.
            mask: `[batch, points]`, bool, True for a real point.

        Returns:
            `[batch, features]`.

        Raises:
            ValueError: If `points` or `mask` has another shape, or a mask entry is not a bool.
        """
        self._check(points, mask)
        hidden = points.masked_fill(~mask.unsqueeze(-1), 0.0)
        levels = build_levels(hidden[..., :3], mask, self.config.stride, self.config.neighbours)
        for entry, block, level in zip(self.entries, self.blocks, levels, strict=True):
            hidden = block(entry(hidden, level), level)
        feature: Tensor = self.head(masked_mean(hidden, levels[-1].mask))
        return feature

    def _check(self, points: Tensor, mask: Tensor) -> None:
        if points.ndim != 3 or points.shape[-1] != self.config.columns or points.shape[1] == 0:
            raise ValueError(
                f"`points` should be [batch, points, {self.config.columns}] with room for one point or more. "
                f"Got {list(points.shape)}. Pad empty clouds and mark the padding in the mask."
            )
        if mask.shape != points.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"`mask` should be bool and {list(points.shape[:2])}, one entry per point. "
                f"Got {mask.dtype} and {list(mask.shape)}."
            )
