"""Fusions: what turns the features of the modalities into a pose.

Each maps `[batch, modalities, features]` to `[batch, outputs]`, in the precision of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from examples.mmfi.models.layers import FullPrecisionLinear, mlp

FUSIONS = ("concat", "mlp", "attention")


@dataclass(frozen=True)
class FusionConfig:
    """Widths of the fusions; the defaults are the `paper` preset's, solved from the published totals.

    Attributes:
        hidden: Widths of the hidden layers of the MLP.
        layers: Layers of the attention fusion.
        heads: Heads of the attention fusion. The totals do not tell: 8 as in Vaswani et al. 2017.
        feedforward: Width of the feed-forward layers of the attention fusion.
        dropout: Probability of dropping an activation in the attention fusion, as in Vaswani et al. 2017.
    """

    hidden: tuple[int, ...] = (512, 256, 256)
    layers: int = 4
    heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.1


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
    """Build the fusion `name`, one of `FUSIONS`, for so many `modalities`.

    Raises:
        ValueError: If `name` is not one of `FUSIONS`.
    """
    if name not in FUSIONS:
        raise ValueError(f"`fusion` should be one of {list(FUSIONS)}. Got {name!r}.")
    if name == "concat":
        return ConcatFusion(modalities * features, outputs)
    if name == "mlp":
        return MLPFusion(modalities * features, outputs, config)
    return AttentionFusion(features, outputs, config)
