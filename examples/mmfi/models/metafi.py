"""MetaFi++, single stream: the encoder of WiFi channel state information.

Zhou et al., "MetaFi++: WiFi-enabled transformer-based human pose estimation for metaverse avatar
simulation", 2023. A residual network reads the amplitudes as an image; attention then works between its
channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn, zeros


@dataclass(frozen=True)
class MetaFiConfig:
    """Widths of a `MetaFi`; the defaults are the `paper` preset's.

    Attributes:
        image: Height (subcarriers) and width (antennas and packets) that the amplitudes are resized to.
        widths: Channels of the residual stages.
        blocks: Residual blocks of each stage; each stage but the first halves the image.
        heads: Heads of the channel attention.
        expansion: Width of the feed-forward layer, in units of the channels.
        dropout: Probability of dropping an activation in the channel transformer.
    """

    image: tuple[int, int] = (136, 32)  # public code
    widths: tuple[int, ...] = (64, 128, 256, 512)  # ResNet-34, He et al. 2016
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # ResNet-34, He et al. 2016
    heads: int = 3  # public code
    expansion: int = 4  # public code
    dropout: float = 0.1  # public code

    def __post_init__(self) -> None:
        """Reject stages that do not fit together."""
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"`blocks` should have one entry per stage. Got {self.blocks} for the widths {self.widths}."
            )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions added to the input (He et al. 2016)."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        """Map `inputs` to `channels` and thin the image out by `stride`."""
        super().__init__()
        self.convolve_in = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.norm_in = nn.BatchNorm2d(channels)
        self.convolve_out = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_out = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != channels:
            self.shortcut.append(nn.Conv2d(inputs, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Map `[batch, inputs, height, width]` to `[batch, channels, ceil(height / stride), ...]`."""
        hidden = F.relu(self.norm_in(self.convolve_in(image)))
        return F.relu(self.norm_out(self.convolve_out(hidden)) + self.shortcut(image))


def residual_network(widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """A 3 x 3 stem for one input channel, without pooling, and stages of `BasicBlock`s."""
    stem = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            layers.append(BasicBlock(inputs, width, stride=2 if stage > 0 and block == 0 else 1))
            inputs = width
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class ChannelAttention(nn.Module):
    """Attention between channels: each is a mixture of all channels, the same at every place."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        """Use `heads` full-width heads, whose outputs are averaged."""
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * heads * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, places: Tensor) -> Tensor:
        """Map `[batch, places, channels]` to the same."""
        channels = places.shape[-1]
        split = self.query_key_value(places).unflatten(-1, (3, self.heads, channels))
        query, key, value = split.permute(2, 0, 3, 4, 1)  # each [batch, heads, channels, places]
        scores = F.instance_norm(query @ key.mT / channels**0.5)
        mixed = self.dropout(scores.softmax(dim=-1)) @ value
        answer: Tensor = self.dropout(self.out(mixed.mean(dim=1).mT))
        return answer


class ChannelTransformer(nn.Module):
    """One transformer layer between the channels of an image, added to the image."""

    def __init__(self, channels: int, places: int, config: MetaFiConfig) -> None:
        """Build the layer for images of `channels` and `places` pixels."""
        super().__init__()
        hidden = config.expansion * channels
        self.places = nn.Parameter(zeros(places, channels))
        self.dropout = nn.Dropout(config.dropout)
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = ChannelAttention(channels, config.heads, config.dropout)
        self.norm_feedforward = nn.LayerNorm(channels)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(channels)
        self.reconstruct = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        """Map `[batch, channels, height, width]` to the same."""
        places = self.dropout(image.flatten(start_dim=2).mT + self.places)
        places = places + self.attention(self.norm_attention(places))
        places = self.norm(places + self.feedforward(self.norm_feedforward(places)))
        answer: Tensor = image + self.reconstruct(places.mT.unflatten(-1, image.shape[2:]))
        return answer


class MetaFi(nn.Module):
    """CSI amplitudes `[batch, antennas, subcarriers, packets]` to features `[batch, features]`.

    Antennas and packets lie side by side in one image. The image is averaged over its places, and the last
    stage's channels over equal groups: the published totals leave no parameters for a projection.
    """

    def __init__(self, config: MetaFiConfig, features: int) -> None:
        """Build the encoder of `config` with `features` outputs.

        Raises:
            ValueError: If `features` does not divide the last of `config.widths`.
        """
        super().__init__()
        channels = config.widths[-1]
        if channels % features:
            raise ValueError(f"`features` should divide the last of `widths`. Got {features} for {config.widths}.")
        self.config = config
        self.features = features
        halvings = 2 ** (len(config.widths) - 1)
        height, width = (-(-side // halvings) for side in config.image)
        self.network = residual_network(config.widths, config.blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.transformer = ChannelTransformer(channels, height * width, config)

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Encode frames.

        Args:
            amplitudes: `[batch, antennas, subcarriers, packets]`, finite, about 0..1.

        Returns:
            `[batch, features]`.

        Raises:
            ValueError: If `amplitudes` has another number of axes.
        """
        if amplitudes.ndim != 4:
            raise ValueError(
                f"`amplitudes` should be [batch, antennas, subcarriers, packets]. Got {list(amplitudes.shape)}."
            )
        image = amplitudes.transpose(1, 2).flatten(start_dim=2).unsqueeze(1)
        image = F.interpolate(image, self.config.image, mode="bilinear", align_corners=False)
        channels = self.transformer(self.norm(self.network(image))).mean(dim=(2, 3))
        feature: Tensor = channels.unflatten(1, (self.features, -1)).mean(dim=-1)
        return feature
