"""Leave the user's things as they were: training flags, buffers and random state around a measurement."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

Mode: TypeAlias = Literal["eval", "current"]


@contextmanager
def measuring(model: nn.Module, loader: object = None, mode: Mode = "eval") -> Iterator[None]:
    """Run a model without leaving a trace of it.

    Training flags, buffers (batch-norm statistics) and all random state, that of the loader's generators too, are
    as before on leaving, also after an exception. Compiled parts run uncompiled meanwhile, because hooks added
    after compilation never fire.

    Args:
        model: The model that will run.
        loader: The loader that will be read; its own random generators are put back.
        mode: "eval" runs every module in evaluation mode; "current" leaves the training flags as they are.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_state(loader))
        stack.enter_context(_buffers(model))
        stack.enter_context(_training_flags(model))
        if "torch._dynamo" in sys.modules:  # nothing is compiled before it is imported, and its import is slow
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if mode == "eval":
            # Not model.eval(): some models override it to merge weights.
            for module in model.modules():
                module.training = False
        yield


@contextmanager
def _training_flags(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    saved = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, copy in saved:
            present = module._buffers.get(name)
            # A buffer that was replaced by one of another shape is a cache that grew with its input; taking it
            # back would leave the model's own bookkeeping of it wrong.
            if present is None or present.shape != buffer.shape:
                continue
            # Through .data, since a graph of the user's may have saved the buffer, which is what it was again.
            buffer.data.copy_(copy)
            module._buffers[name] = buffer


@contextmanager
def _random_state(loader: object) -> Iterator[None]:
    generators = {id(g): g for g in _generators(loader)}.values()
    own = [(generator, generator.get_state()) for generator in generators]
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        for generator, state in own:
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - the user's code may use the global generator
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def _generators(loader: object) -> Iterator[torch.Generator]:
    """The generators of a loader, its sampler and its batch sampler."""
    holders: list[Any] = [loader]
    for name in ("sampler", "batch_sampler"):
        holders += [getattr(holder, name, None) for holder in holders]
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            yield generator
