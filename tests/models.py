"""Models of many kinds. Each says how to encode and how to fuse, so that a reference can do without hooks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class TwoPart(nn.Module):
    """Encoders by modality, then `fuse`."""

    widths: dict[str, int]
    outputs = (3,)

    def encode(self, inputs):
        return {m: self.encoders[m](inputs[m]) for m in self.encoders}

    def forward(self, inputs):
        return self.fuse(self.encode(inputs))


class Concat(TwoPart):
    """Any number of modalities, two-dimensional features, a head of two layers."""

    def __init__(self, modalities=2, outputs=3):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {f"m{i}": nn.Sequential(nn.Linear(2 + i, 4), nn.Tanh()) for i in range(modalities)}
        )
        self.head = nn.Sequential(nn.Linear(4 * modalities, 8), nn.ReLU(), nn.Linear(8, outputs))

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1))

    def batch(self, samples, generator=None):
        inputs = {m: torch.randn(samples, e[0].in_features, generator=generator) for m, e in self.encoders.items()}
        return inputs, torch.randn(samples, self.head[-1].out_features, generator=generator)


class Convolutional(TwoPart):
    """Images with batch norm and dropout beside a table; a map as output."""

    def __init__(self):
        super().__init__()
        image = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.encoders = nn.ModuleDict({"image": image, "table": nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))})
        self.head = nn.Linear(4 * 25 + 8, 6)

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1)).unflatten(1, (2, 3))

    def batch(self, samples, generator=None):
        inputs = {
            "image": torch.randn(samples, 2, 5, 5, generator=generator),
            "table": torch.randn(samples, 3, generator=generator),
        }
        return inputs, torch.randn(samples, 2, 3, generator=generator)


class Attention(TwoPart):
    """Tokens of each modality through a transformer, with a multi-head attention as one encoder."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {"words": SelfAttention(8), "sound": nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8))}
        )
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.fusion = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def fuse(self, features):
        return self.head(self.fusion(torch.cat(list(features.values()), dim=1)).mean(1))

    def batch(self, samples, generator=None):
        inputs = {
            "words": torch.randn(samples, 3, 8, generator=generator),
            "sound": torch.randn(samples, 2, 5, generator=generator),
        }
        return inputs, torch.randn(samples, 4, generator=generator)


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, tokens):
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Parts(NamedTuple):
    tokens: torch.Tensor
    mask: torch.Tensor


class Nested(TwoPart):
    """Encoders that put out a named tuple with a mask, and a dict of a list; the mask is not a number to zero."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"points": Masked(), "pyramid": Pyramid()})
        self.head = nn.Linear(4 + 4 + 2, 2)

    def fuse(self, features):
        points, pyramid = features["points"], features["pyramid"]
        count = points.mask.sum(1, keepdim=True)
        pooled = (points.tokens * points.mask.unsqueeze(-1)).sum(1) / count
        return self.head(torch.cat([pooled, pyramid["levels"][0], pyramid["levels"][1]], dim=1))

    def batch(self, samples, generator=None):
        inputs = {
            "points": torch.randn(samples, 5, 3, generator=generator),
            "pyramid": torch.randn(samples, 3, generator=generator),
        }
        return inputs, torch.randn(samples, 2, generator=generator)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, points):
        mask = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        mask[:, 3:] = False
        return Parts(self.inner(points), mask)


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        first = self.first(x).relu()
        return {"levels": [first, self.second(first)], "note": "not a number"}


class Twice(TwoPart):
    """One encoder sees two views, one after the other; the fusion changes a feature in place."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"views": nn.Linear(3, 4), "rest": nn.Linear(2, 4)})
        self.head = nn.Linear(4, 2)

    def encode(self, inputs):
        left, right = inputs["views"]
        return {
            "views": (self.encoders["views"](left), self.encoders["views"](right)),
            "rest": self.encoders["rest"](inputs["rest"]),
        }

    def fuse(self, features):
        left, right = features["views"]
        return self.head(left.relu_() + right.tanh() * features["rest"] + features["rest"])

    def batch(self, samples, generator=None):
        views = (torch.randn(samples, 3, generator=generator), torch.randn(samples, 3, generator=generator))
        return {"views": views, "rest": torch.randn(samples, 2, generator=generator)}, torch.randn(
            samples, 2, generator=generator
        )


class Recurrent(TwoPart):
    """A recurrent encoder, which torch.func cannot vectorise over samples everywhere."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"series": LastState(), "table": nn.Linear(2, 4)})
        self.head = nn.Linear(8, 2)

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1))

    def batch(self, samples, generator=None):
        inputs = {
            "series": torch.randn(samples, 6, 3, generator=generator),
            "table": torch.randn(samples, 2, generator=generator),
        }
        return inputs, torch.randn(samples, 2, generator=generator)


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, series):
        return self.lstm(series)[0][:, -1]


class Looping(TwoPart):
    """An encoder whose loop depends on the data, so that nothing can vectorise it."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"a": Halving(), "b": nn.Linear(2, 4)})
        self.head = nn.Linear(8, 2)

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1))

    def batch(self, samples, generator=None):
        inputs = {"a": torch.randn(samples, 3, generator=generator), "b": torch.randn(samples, 2, generator=generator)}
        return inputs, torch.randn(samples, 2, generator=generator)


class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x):
        x = self.inner(x)
        while x.abs().max() > 1:
            x = x / 2
        return x


KINDS = [Concat, Convolutional, Attention, Nested, Twice, Recurrent]


def build(kind, seed=0, **options):
    """A model with parameters, and batch-norm statistics, from a seed."""
    torch.manual_seed(seed)
    model = kind(**options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


def loader_of(model, batches=3, samples=8, seed=0):
    """A list of batches."""
    generator = torch.Generator().manual_seed(seed)
    return [model.batch(samples, generator) for _ in range(batches)]
