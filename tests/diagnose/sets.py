"""Sets with a known answer: what each of their modalities is like is built in, and a small model is trained on them.

A `change` is another way to train, for a benchmark: see `benchmarks.verdicts.change`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

NEW = 2000
"""Samples that the error of a trained model is told by."""


class Trained(NamedTuple):
    model: nn.Module
    training: list
    held_out: list
    error: Callable | None = None
    """The loss on new samples, the same ones for all ways to train."""


class Fused(nn.Module):
    """Encoders of two layers, and a head of two layers on their features side by side."""

    def __init__(self, widths, outputs, features, hidden):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(w, hidden), nn.ReLU(), nn.Linear(hidden, features)) for m, w in widths.items()}
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(features * len(widths), hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, inputs):
        features = [encoder(inputs[m]) for m, encoder in self.encoders.items()]
        return self.head(torch.cat(features, 1))


def batches(inputs, target, size=50):
    starts = range(0, len(target), size)
    return [({m: x[i : i + size] for m, x in inputs.items()}, target[i : i + size]) for i in starts]


def changed(change, model, loss, epochs, held_out):
    """Epochs, and what holds encoders back, where a model is trained in another way."""
    return (epochs, None) if change is None else change.applied(model, loss, epochs, held_out)


def fit(model, data, epochs, loss, slow, pull=None):
    parameters = model.parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9) if slow else torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(epochs):
        if pull:
            pull.start_epoch(data)
        for i in torch.randperm(len(data)).tolist():
            inputs, target = data[i]
            optimizer.zero_grad()
            loss(model(inputs), target).backward()
            if pull:
                pull.add_gradient_()
            optimizer.step()
    return model.eval()


def error_of(model, loss, draw, seed):
    """A function that tells the loss on new samples: from their number, `draw` gives inputs and targets."""

    def error():
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(10_000 + seed)
            inputs, target = draw(NEW)
            return loss(model(inputs), target).item()

    return error


class World(NamedTuple):
    draw: Callable
    """From a number of samples to inputs and targets."""
    samples: int
    held_out: int = 1000
    epochs: int = 20
    slow: bool = False


def normal(samples, width):
    return torch.randn(samples, width)


# Regression of one number from two modalities.


def both(samples):
    a, b = normal(samples, 3), normal(samples, 3)
    return {"a": a, "b": b}, (a[:, :1] + b[:, :1].tanh() + 0.3 * normal(samples, 1))


def duplicate(samples):
    a = normal(samples, 4)
    return {"a": a, "b": a + 0.01 * normal(samples, 4)}, a[:, :1] + 0.5 * a[:, 1:2].abs() + 0.3 * normal(samples, 1)


def noise(width):
    def draw(samples):
        a = normal(samples, 3)
        return {"a": a, "b": normal(samples, width)}, a[:, :1] + 0.5 * normal(samples, 1)

    return draw


def together(samples):
    a, b = normal(samples, 2), normal(samples, 2)
    return {"a": a, "b": b}, a[:, :1].sign() * b[:, :1].sign() + 0.2 * normal(samples, 1)


def starved(samples):
    """`a` is a noisy copy of the target; `b` determines it, in a way that takes long to learn."""
    b = normal(samples, 2)
    signal = torch.sin(3 * b[:, :1])
    return {"a": signal + 0.5 * normal(samples, 1), "b": b}, signal + 0.1 * normal(samples, 1)


def wide(samples):
    """`a` tells little and has many numbers to learn by heart."""
    a, b = normal(samples, 60), normal(samples, 3)
    return {"a": a, "b": b}, 0.5 * a[:, :1] + b[:, :1] + 0.3 * normal(samples, 1)


REGRESSION = {
    "balanced": World(both, 2000),
    "duplicate": World(duplicate, 2000),
    "noise, few": World(noise(30), 100, epochs=60),
    "noise, many": World(noise(3), 4000),
    "together": World(together, 2000),
    "starved": World(starved, 1000, epochs=30, slow=True),
    "overfits": World(wide, 200, epochs=60),
    "little": World(both, 40, 24),
}


def regression(name, seed, change=None):
    return _trained(REGRESSION[name], seed, change, 50, lambda widths: Fused(widths, 1, 8, 32), nn.functional.mse_loss)


def _trained(world, seed, change, size, build, loss):
    torch.manual_seed(seed)
    data, held_out = (batches(*world.draw(samples), size) for samples in (world.samples, world.held_out))
    model = build({m: x.shape[1] for m, x in data[0][0].items()})
    epochs, pull = changed(change, model, loss, world.epochs, held_out)
    fit(model, data, epochs, loss, world.slow, pull)
    return Trained(model, data, held_out, error_of(model, loss, world.draw, seed))


# Two or four classes from three or four modalities.


def chosen(scores):
    """Numbers of classes, drawn with probabilities of these logits."""
    return torch.distributions.Categorical(logits=scores).sample()


def four_classes(samples):
    inputs = {m: normal(samples, w) for m, w in (("x", 2), ("y", 4), ("z", 6))}
    return inputs, chosen(
        4 * torch.stack([inputs["x"][:, 0], inputs["x"][:, 1], inputs["y"][:, 0], inputs["z"][:, 0]], 1)
    )


def copies(samples):
    inputs, target = four_classes(samples)
    return inputs | {"copy": inputs["z"].flip(1) + 0.01 * normal(samples, 6)}, target


def idle(width):
    def draw(samples):
        inputs, target = four_classes(samples)
        return inputs | {"y": inputs["y"], "idle": normal(samples, width)}, target

    return draw


def exclusive(samples):
    """Whether the signs of `x` and `y` are alike; `z` alone tells another bit."""
    inputs = {m: normal(samples, w) for m, w in (("x", 2), ("y", 2), ("z", 3))}
    alike = inputs["x"][:, 0] * inputs["y"][:, 0] > 0
    return inputs, alike.long() + 2 * (inputs["z"][:, 0] > 0)


def deep(samples):
    """`x` is a noisy copy of the class; `y` determines it, in a way that takes long to learn; `z` helps a little."""
    y = normal(samples, 4)
    target = (y[:, 0] * y[:, 1] > 0).long()
    sign = (2.0 * target - 1).unsqueeze(1)
    return {"x": sign + 0.6 * normal(samples, 1), "y": y}, target


def memorised(samples):
    inputs, target = four_classes(samples)
    return inputs | {"x": torch.cat([inputs["x"], normal(samples, 80)], 1)}, target


CLASSES = {
    "balanced": World(four_classes, 3000, epochs=10),
    "duplicate": World(copies, 3000, epochs=10),
    "noise, few": World(idle(40), 150, epochs=40),
    "noise, many": World(idle(3), 4000, epochs=10),
    "together": World(exclusive, 3000, epochs=20),
    "starved": World(deep, 1000, epochs=20, slow=True),
    "overfits": World(memorised, 300, epochs=40),
    "little": World(four_classes, 60, 30),
}


def classes(name, seed, change=None):
    count = 4 if name != "starved" else 2
    build = lambda widths: Fused(widths, count, 12, 24)  # noqa: E731
    return _trained(CLASSES[name], seed, change, 40, build, nn.functional.cross_entropy)


# What is a right answer.

RIGHT = {
    "balanced": [("balanced", set())],
    "duplicate": [("idle", {"a", "b"}), ("idle", {"b"}), ("idle", {"a"})],
    "noise, few": [("overfits", {"b"}), ("idle", {"b"})],
    "noise, many": [("idle", {"b"})],
    "together": [("balanced", set())],
    "starved": [("starves", {"a"})],
    "overfits": [("overfits", {"a"})],
    "little": [("cannot tell", {"a", "b"})],
}

RIGHT_OF_CLASSES = {
    "balanced": [("balanced", set())],
    "duplicate": [("idle", {"z", "copy"}), ("idle", {"copy"}), ("idle", {"z"})],
    "noise, few": [("overfits", {"idle"}), ("idle", {"idle"})],
    "noise, many": [("idle", {"idle"})],
    "together": [("balanced", set())],
    "starved": [("starves", {"x"})],
    "overfits": [("overfits", {"x"})],
    "little": [("cannot tell", {"x", "y", "z"})],
}
