"""Point encoders for every modality, concatenation, and a head that puts out a pose."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from examples.mars.data import JOINTS, MODALITIES, Inputs


class PointEncoder(nn.Module):
    """One feature of a masked set of points, whatever their order and padding.

    Each point goes through the same small network; maximum and mean over the real points are joined.
    """

    def __init__(self, columns: int, width: int = 32, feature: int = 64) -> None:
        """A set of points with that many columns each."""
        super().__init__()
        self.point = nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.join = nn.Sequential(nn.Linear(2 * width, feature), nn.ReLU())

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """From points `[batch, points, columns]` and their mask `[batch, points]` to features `[batch, feature]`."""
        # Not below 0, since the network ends in a ReLU: padding can be 0 for the maximum, too.
        embedded = self.point(points) * mask.unsqueeze(-1)
        mean = embedded.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        joined: Tensor = self.join(torch.cat([embedded.amax(1), mean], dim=1))
        return joined


class PoseModel(nn.Module):
    """Encoders by modality, concatenation, and a small head."""

    def __init__(self, modalities: Iterable[str] = MODALITIES, feature: int = 64, width: int = 256) -> None:
        """A model of some of the modalities."""
        super().__init__()
        self.encoders = nn.ModuleDict(
            {modality: PointEncoder(len(MODALITIES[modality]), feature=feature) for modality in modalities}
        )
        self.head = nn.Sequential(
            nn.Linear(feature * len(self.encoders), width), nn.ReLU(), nn.Linear(width, 3 * JOINTS)
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Poses `[batch, joints, 3]` in metres."""
        features = [encoder(*inputs[modality]) for modality, encoder in self.encoders.items()]
        coordinates: Tensor = self.head(torch.cat(features, dim=1))
        return coordinates.reshape(-1, JOINTS, 3)
