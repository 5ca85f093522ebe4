"""VideoPose3D's temporal model: the encoder of a window of 2D keypoints.

Pavllo et al., "3D human pose estimation in video with temporal convolutions and semi-supervised training",
CVPR 2019. Here in the strided form, which computes the centre frame of a window and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from examples.mmfi.models.layers import mlp


@dataclass(frozen=True)
class VideoPoseConfig:
    """Widths of a `VideoPose`; the defaults are the `paper` preset's.

    Attributes:
        joints: Keypoints per frame, two coordinates each.
        filters: Frames that each convolution joins; their product is the length of the window.
        channels: Width of the convolutions.
        dropout: Probability of dropping a channel at a frame.
        hidden: Width of the hidden layer after the convolutions.
    """

    joints: int = 17
    filters: tuple[int, ...] = (3, 3, 3, 3)  # Pavllo et al., section 3: a receptive field of 81 frames
    channels: int = 1024  # Pavllo et al., section 3
    dropout: float = 0.25  # Pavllo et al., section 3
    hidden: int = 512  # solved from the published totals

    def __post_init__(self) -> None:
        """Reject filters without a centre frame."""
        if not self.filters or any(width % 2 == 0 for width in self.filters):
            raise ValueError(f"`filters` should be odd, at least one of them. Got {self.filters}.")

    @property
    def window(self) -> int:
        """Frames of the input window."""
        return prod(self.filters)


class TemporalBlock(nn.Module):
    """Joins each `width` frames into one, and adds their centre frame."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        """Build a block of `channels` in and out."""
        super().__init__()
        self.width = width
        self.join = nn.Conv1d(channels, channels, width, stride=width, bias=False)
        self.norm_join = nn.BatchNorm1d(channels)
        self.mix = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm_mix = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `[batch, channels, frames]` to `[batch, channels, frames / width]`."""
        hidden: Tensor = self.dropout(F.relu(self.norm_join(self.join(frames))))
        hidden = self.dropout(F.relu(self.norm_mix(self.mix(hidden))))
        return frames[..., self.width // 2 :: self.width] + hidden


class VideoPose(nn.Module):
    """Windows of 2D keypoints `[batch, window, joints, 2]` to features `[batch, features]`."""

    def __init__(self, config: VideoPoseConfig, features: int) -> None:
        """Build the encoder of `config` with `features` outputs."""
        super().__init__()
        self.config = config
        first, *others = config.filters
        self.expand = nn.Conv1d(2 * config.joints, config.channels, first, stride=first, bias=False)
        self.norm = nn.BatchNorm1d(config.channels)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*[TemporalBlock(config.channels, width, config.dropout) for width in others])
        self.head = mlp(config.channels, config.hidden, features)

    def forward(self, keypoints: Tensor) -> Tensor:
        """Encode windows.

        Args:
            keypoints: `[batch, window, joints, 2]`, about -1..1; the frame to predict in the middle.

        Returns:
            `[batch, features]`.

        Raises:
            ValueError: If `keypoints` has another shape.
        """
        expected = (self.config.window, self.config.joints, 2)
        if keypoints.shape[1:] != expected:
            raise ValueError(
                f"`keypoints` should be [batch, window, joints, 2] with the window, joints {expected[:2]}. "
                f"Got {list(keypoints.shape)}. Change the window of the data or `filters` of the encoder."
            )
        frames = keypoints.flatten(start_dim=2).mT
        hidden = self.dropout(F.relu(self.norm(self.expand(frames))))
        feature: Tensor = self.head(self.blocks(hidden).squeeze(-1))
        return feature
