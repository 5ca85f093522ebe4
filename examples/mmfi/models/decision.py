"""Decision-level fusion: every modality predicts a pose by itself, and the poses are weighed.

The baseline of Yang et al., "MM-Fi: Multi-modal non-intrusive 4D human dataset", NeurIPS 2023, arXiv 2305.10345:
models of single modalities, whose predictions are combined by least mean squares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.mmfi.models.layers import FullPrecisionLinear


class DecisionFusion(nn.Module):
    """A pose from every modality's feature, and their weighted sum.

    In training no modality learns from another: the answer holds the pose of each modality and, last, the sum,
    which moves the weights only. The sum of the losses of all of them is then that of training every modality
    alone, and the weights descend on the error of the sum, as in a least-mean-squares filter.

    [inferred] One weight per modality for all joints, without a bias, starting from the mean; fitted on the
    training frames, by the task loss, along with the models instead of afterwards. The encoders are those of the
    other fusions. Without a modality, that is with its feature zeroed, its pose is the constant of its head.
    """

    def __init__(self, modalities: int, features: int, outputs: int) -> None:
        """Map so many features of so many modalities to `outputs`."""
        super().__init__()
        self.heads = nn.ModuleList(FullPrecisionLinear(features, outputs) for _ in range(modalities))
        self.weights = nn.Parameter(torch.full((modalities,), 1 / modalities))

    def forward(self, features: Tensor) -> Tensor:
        """Map `[batch, modalities, features]` to `[batch, outputs]`; in training to `[modalities + 1, batch, ...]`."""
        poses = torch.stack([head(feature) for head, feature in zip(self.heads, features.unbind(1), strict=True)])
        # Not a matrix product, which autocast would round.
        joint = (self.weights[:, None, None] * (poses.detach() if self.training else poses)).sum(dim=0)
        return torch.cat([poses, joint.unsqueeze(0)]) if self.training else joint
