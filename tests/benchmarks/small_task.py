"""A task of seconds: a number that is the sum of three modalities, of which one is noise."""

from functools import partial

import torch
from torch.nn.functional import mse_loss

from benchmarks.compare.task import Task
from benchmarks.compare.tasks.mfeat import Model
from examples.samples import Samples, Splits


def task(data=None):
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(96, 2, generator=generator) for name in ("a", "b", "noise")}
    samples = Samples(inputs, inputs["a"] * 2 + inputs["b"])
    parts = (samples.take(torch.arange(start, start + 32)) for start in (0, 32, 64))
    build = partial(Model, dict.fromkeys(inputs, 2), 2)
    return Task("sum", "squared error", Splits(*parts), build, mse_loss, squared_error, epochs=3, batch_size=8)


def no_task(data=None):
    return 3


def squared_error(prediction, target):
    return (prediction - target).square().mean(1)


NAME = f"{__name__}:task"
