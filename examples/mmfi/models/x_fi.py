"""X-Fi's fusion: tokens of any modalities, attended to in turn, with modalities left out at random in training.

Chen and Yang, "X-Fi: A modality-invariant foundation model for multimodal human sensing", ICLR 2025,
arXiv 2410.10167.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from examples.mmfi.models.layers import FullPrecisionLinear


@dataclass(frozen=True)
class XFiConfig:
    """Widths of an `XFiFusion`; the defaults are the `paper` preset's.

    Attributes:
        tokens: Tokens per modality.
        width: Channels of a token.
        rounds: Times that the joint tokens attend to each modality.
        heads: Heads of every attention.
        feedforward: Width of the feed-forward layers.
        dropout: Probability of dropping an activation.
    """

    tokens: int = 32  # X-Fi
    width: int = 512  # X-Fi
    rounds: int = 5  # public code, for activities
    heads: int = 8  # inferred: as in Vaswani et al. 2017
    feedforward: int = 1024  # inferred
    dropout: float = 0.1  # inferred: as in Vaswani et al. 2017


class XFiFusion(nn.Module):
    """Joint tokens from the tokens of the modalities that are there.

    A transformer layer across all tokens makes joint tokens. In every round these attend to the tokens of each
    modality, whose keys and values stay as they are so that no modality is washed out, and the answers go through
    the layer again. In training a subset of the modalities is drawn for every sample.

    [inferred] The paper reads images where keypoints are read here, and trains encoders of single modalities first
    and freezes them; here all is trained end to end, as in the other rows of the table. Its encoders have several
    tokens each, projected to 32; those here have one feature, projected to 32. Each modality is left out every other
    time. Joint tokens are means over the modalities that are there. A feature that is all zero means that the
    modality is not there; without any, all count as there.
    """

    def __init__(self, modalities: int, features: int, outputs: int, config: XFiConfig) -> None:
        """Map so many features of so many modalities to `outputs`."""
        super().__init__()
        width = config.width
        self.config = config
        self.project = nn.ModuleList(nn.Linear(features, config.tokens * width) for _ in range(modalities))
        self.across = nn.TransformerEncoderLayer(
            width, config.heads, config.feedforward, config.dropout, batch_first=True
        )
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(width, config.heads, config.dropout, batch_first=True) for _ in range(modalities)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(modalities))
        self.norm = nn.LayerNorm(width)
        self.head = FullPrecisionLinear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[batch, modalities, features]` to `[batch, outputs]`."""
        there = present(features)
        if self.training:
            there = drawn(there)
        tokens = [
            torch.relu(project(feature)).unflatten(-1, (self.config.tokens, -1))
            for project, feature in zip(self.project, features.unbind(1), strict=True)
        ]
        joint = self._joined(tokens, there)
        for _ in range(self.config.rounds):
            joint = self._joined(self._attended(joint, tokens), there)
        prediction: Tensor = self.head(self.norm(joint.mean(dim=1)))
        return prediction

    def _joined(self, tokens: list[Tensor], there: Tensor) -> Tensor:
        """Joint tokens `[batch, tokens, width]` from those of the modalities that are there."""
        missing = ~there.repeat_interleave(self.config.tokens, dim=1)
        mixed: Tensor = self.across(torch.cat(tokens, dim=1), src_key_padding_mask=missing)
        kept = there[:, :, None, None].to(mixed.dtype)
        parts = mixed.unflatten(1, (len(tokens), self.config.tokens))
        joint: Tensor = (kept * parts).sum(dim=1) / kept.sum(dim=1)
        return joint

    def _attended(self, joint: Tensor, tokens: list[Tensor]) -> list[Tensor]:
        """What the joint tokens find in each modality, added to them."""
        layers = zip(self.attend, self.norms, tokens, strict=True)
        return [joint + attend(norm(joint), own, own, need_weights=False)[0] for attend, norm, own in layers]


def present(features: Tensor) -> Tensor:
    """Which modalities of `[batch, modalities, features]` are there, `[batch, modalities]`: never none of them."""
    there = (features != 0).any(dim=-1)
    return there | ~there.any(dim=1, keepdim=True)


def drawn(there: Tensor) -> Tensor:
    """For every sample some of the modalities that are there, each with probability 1/2; all where that is none."""
    chosen = there & (torch.rand(there.shape, device=there.device) < 0.5)
    return torch.where(chosen.any(dim=1, keepdim=True), chosen, there)
