"""Small layers that several encoders and fusions share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers from `widths[0]` to `widths[-1]` with a ReLU between each two, none at the end."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class FullPrecisionLinear(nn.Linear):
    """A linear layer that ignores autocast: it computes and answers in the dtype of its weights.

    For layers next to absolute coordinates: three metres in bfloat16 come in steps of 16 mm.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.Linear)
        """Map `[..., in_features]` of any floating dtype to `[..., out_features]`."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))
