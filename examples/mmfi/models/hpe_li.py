"""HPE-Li: a light encoder of WiFi channel state information with selective kernels.

Gian et al., "HPE-Li: WiFi-enabled lightweight dual selective kernel convolution for human pose estimation",
ECCV 2024, after the selective kernels of Li et al., "Selective kernel networks", CVPR 2019. Here it is scored on
x, y and z like everything else. Its published errors on this data are of x and y only, and not comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class HPELiConfig:
    """Widths of an `HPELi`; the defaults are the `paper` preset's.

    Attributes:
        antennas: Channels of the amplitudes.
        widths: Channels of each stage; each stage but the first halves the image.
        kernels: Sides of the kernels that a stage selects from.
        reduction: Channels per number from which the selection is computed.
    """

    antennas: int = 3
    widths: tuple[int, ...] = (32, 64, 128)  # inferred
    kernels: tuple[int, ...] = (3, 5)  # Li et al.: two branches, 3 and 5
    reduction: int = 4  # inferred; Li et al. have 16, for wider stages

    def __post_init__(self) -> None:
        """Reject kernels without a centre."""
        if not self.kernels or any(side % 2 == 0 for side in self.kernels):
            raise ValueError(f"`kernels` should be odd, at least one of them. Got {self.kernels}.")


class DualSelectiveKernel(nn.Module):
    """Convolutions of several sizes side by side, among which the input selects, by channel and by place.

    [inferred] What is dual: the weights of the branches, which sum to 1, are computed once for every channel from
    the mean over the image (Li et al., section 3.1) and once for every place from the mean and the maximum over the
    channels, and both selections are added.
    """

    def __init__(self, inputs: int, channels: int, config: HPELiConfig) -> None:
        """Map `inputs` to `channels`."""
        super().__init__()
        hidden, count = max(4, channels // config.reduction), len(config.kernels)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, channels, side, padding=side // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
            )
            for side in config.kernels
        )
        self.by_channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, count * channels)
        )
        self.by_place = nn.Conv2d(2, count, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map `[batch, inputs, height, width]` to `[batch, channels, height, width]`."""
        branches = torch.stack([branch(image) for branch in self.branches], dim=1)
        joint = branches.sum(dim=1)
        channel = self.by_channel(joint.mean(dim=(2, 3))).unflatten(1, branches.shape[1:3]).softmax(dim=1)
        seen = torch.stack([joint.mean(dim=1), joint.amax(dim=1)], dim=1)
        place = self.by_place(seen).softmax(dim=1).unsqueeze(2)
        selected: Tensor = (branches * (channel[..., None, None] + place)).sum(dim=1)
        return selected


class HPELi(nn.Module):
    """CSI amplitudes `[batch, antennas, subcarriers, packets]` to features `[batch, features]`.

    [inferred] Antennas are channels; the image is averaged over its places in the end.
    """

    def __init__(self, config: HPELiConfig, features: int) -> None:
        """Build the encoder of `config` with `features` outputs."""
        super().__init__()
        self.config = config
        widths = (config.antennas, *config.widths)
        self.stages = nn.ModuleList(DualSelectiveKernel(*pair, config) for pair in pairwise(widths))
        self.head = nn.Linear(widths[-1], features)

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Encode frames.

        Args:
            amplitudes: `[batch, antennas, subcarriers, packets]`, finite, about 0..1.

        Returns:
            `[batch, features]`.

        Raises:
            ValueError: If `amplitudes` has another shape.
        """
        if amplitudes.ndim != 4 or amplitudes.shape[1] != self.config.antennas:
            raise ValueError(
                f"`amplitudes` should be [batch, {self.config.antennas}, subcarriers, packets]. "
                f"Got {list(amplitudes.shape)}. Change `antennas` of the encoder."
            )
        image = amplitudes
        for number, stage in enumerate(self.stages):
            image = stage(F.avg_pool2d(image, 2, ceil_mode=True) if number else image)
        feature: Tensor = self.head(image.mean(dim=(2, 3)))
        return feature
