"""Models for the benchmark of per-sample Fisher diagonals: each puts out ten numbers a sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUTPUTS = 10


class Block(nn.Module):
    """A transformer block of linear layers and layer norms."""

    def __init__(self, width: int, heads: int = 4) -> None:
        """With that many heads."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """From tokens to tokens."""
        q, k, v = self.projections(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two convolutions with batch norm, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """At half the resolution."""
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """From maps to maps."""
        return self.last(self.path(x) + self.shortcut(x))  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, tokens, width]`."""
        return x.mean(1)


class SelfAttention(nn.MultiheadAttention):
    """Multi-head attention of tokens to themselves."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """From tokens to tokens."""
        return x + super().forward(x, x, x, need_weights=False)[0]


class States(nn.LSTM):
    """The states of an LSTM, without the last one apart."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """From a series to a series."""
        states: Tensor = super().forward(x)[0]
        return states


def mlp(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Four linear layers."""
    hidden = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*hidden, nn.Linear(width, OUTPUTS)), (width,)


def tokens(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A transformer of four blocks on 64 tokens."""
    blocks = [Block(width) for _ in range(4)]
    return nn.Sequential(nn.Linear(32, width), *blocks, Pooled(), nn.Linear(width, OUTPUTS)), (64, 32)


def attention(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """PyTorch's own multi-head attention, twice, between linear layers."""
    parts = [SelfAttention(width, 4, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Linear(32, width), *parts, Pooled(), nn.Linear(width, OUTPUTS)), (64, 32)


def convolutions(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A small residual network with batch norm on images of 32 x 32."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    blocks = [Residual(width * 2**i, width * 2 ** (i + 1)) for i in range(3)]
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, OUTPUTS))
    return nn.Sequential(stem, *blocks, *end), (3, 32, 32)


def twice(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """One linear layer that is used twice."""
    shared = nn.Linear(width, width)
    return nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(width, OUTPUTS)), (width,)


def recurrent(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """An LSTM on 32 steps."""
    return nn.Sequential(States(32, width, batch_first=True), Pooled(), nn.Linear(width, OUTPUTS)), (32, 32)


MODELS: dict[str, tuple[Callable[[int], tuple[nn.Module, tuple[int, ...]]], int, int]] = {
    "MLP": (mlp, 512, 64),
    "wide MLP": (mlp, 1024, 96),
    "token transformer": (tokens, 128, 32),
    "conv net with batch norm": (convolutions, 16, 8),
    "module used twice": (twice, 512, 64),
    "nn.MultiheadAttention": (attention, 128, 32),
    "LSTM": (recurrent, 128, 32),
}
"""By name: how it is built, its width, and that for a quick run."""


def build(name: str, quick: bool, device: torch.device) -> tuple[nn.Module, tuple[int, ...]]:
    """A model in evaluation mode, and the shape of one input."""
    torch.manual_seed(0)
    make, width, small = MODELS[name]
    model, shape = make(small if quick else width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval().to(device), shape
