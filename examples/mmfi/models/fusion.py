"""Fusions: what turns the features of the modalities into a pose.

Each maps `[batch, modalities, features]` to `[batch, outputs]`, in the precision of its weights. `DecisionFusion`
gives more than one prediction in training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from examples.mmfi.models.decision import DecisionFusion
from examples.mmfi.models.layers import FullPrecisionLinear, mlp
from examples.mmfi.models.x_fi import XFiConfig, XFiFusion

FUSIONS = ("concat", "mlp", "attention")
"""Of the AWC paper."""
DECISION, X_FI = "decision", "x-fi"
ALL_FUSIONS = (*FUSIONS, DECISION, X_FI)
"""With those of other systems."""


@dataclass(frozen=True)
class FusionConfig:
    """Widths of the fusions; the defaults are the `paper` preset's, solved from the published totals.

    Attributes:
        hidden: Widths of the hidden layers of the MLP.
        layers: Layers of the attention fusion.
        heads: Heads of the attention fusion. The totals do not tell: 8 as in Vaswani et al. 2017.
        feedforward: Width of the feed-forward layers of the attention fusion.
        dropout: Probability of dropping an activation in the attention fusion, as in Vaswani et al. 2017.
        x_fi: Widths of X-Fi's fusion, which the published totals do not tell.
    """

    hidden: tuple[int, ...] = (512, 256, 256)
    layers: int = 4
    heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.1
    x_fi: XFiConfig = field(default_factory=XFiConfig)


class ConcatFusion(nn.Module):
    """One linear layer on the concatenated features."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Map `inputs`, the features of all modalities, to `outputs`."""
        super().__init__()
        self.head = FullPrecisionLinear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[batch, modalities, features]` to `[batch, outputs]`."""
        prediction: Tensor = self.head(features.flatten(start_dim=1))
        return prediction


class MLPFusion(nn.Module):
    """A multi-layer perceptron on the concatenated features."""

    def __init__(self, inputs: int, outputs: int, config: FusionConfig) -> None:
        """Map `inputs`, the features of all modalities, to `outputs`."""
        super().__init__()
        self.hidden = nn.Sequential(mlp(inputs, *config.hidden), nn.ReLU())
        self.head = FullPrecisionLinear(config.hidden[-1], outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[batch, modalities, features]` to `[batch, outputs]`."""
        prediction: Tensor = self.head(self.hidden(features.flatten(start_dim=1)))
        return prediction


class AttentionFusion(nn.Module):
    """A transformer encoder with one token per modality; the tokens are then averaged."""

    def __init__(self, features: int, outputs: int, config: FusionConfig) -> None:
        """Map any number of tokens of `features` channels to `outputs`."""
        super().__init__()
        layers = [
            nn.TransformerEncoderLayer(features, config.heads, config.feedforward, config.dropout, batch_first=True)
            for _ in range(config.layers)
        ]
        self.layers = nn.Sequential(*layers)
        self.head = FullPrecisionLinear(features, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[batch, modalities, features]` to `[batch, outputs]`."""
        prediction: Tensor = self.head(self.layers(features).mean(dim=1))
        return prediction


def build_fusion(name: str, config: FusionConfig, modalities: int, features: int, outputs: int) -> nn.Module:
    """Build the fusion `name`, one of `ALL_FUSIONS`, for so many `modalities`.

    Raises:
        ValueError: If `name` is not one of `ALL_FUSIONS`.
    """
    if name not in ALL_FUSIONS:
        raise ValueError(f"`fusion` should be one of {list(ALL_FUSIONS)}. Got {name!r}.")
    if name == "concat":
        return ConcatFusion(modalities * features, outputs)
    if name == "mlp":
        return MLPFusion(modalities * features, outputs, config)
    if name == DECISION:
        return DecisionFusion(modalities, features, outputs)
    if name == X_FI:
        return XFiFusion(modalities, features, outputs, config.x_fi)
    return AttentionFusion(features, outputs, config)
