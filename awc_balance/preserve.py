"""Leave the user's things as they were: modules and random state around a measurement."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Mode: TypeAlias = Literal["eval", "current"]

_REGISTERS = ("_parameters", "_buffers", "_modules")


@contextmanager
def measuring(model: nn.Module, *others: object, loader: object = None, mode: Mode = "eval") -> Iterator[None]:
    """Run a model without leaving a trace of it.

    Attributes, buffers (batch-norm statistics), training flags, and all random state, that of the loader's generators
    too, are as before on leaving, also after an exception. Compiled parts run uncompiled meanwhile, because hooks
    added after compilation never fire.

    Args:
        model: The model that will run.
        others: What else will run; modules among it are left as they were, too.
        loader: The loader that will be read; its own random generators are put back.
        mode: "eval" runs every module in evaluation mode; "current" leaves the training flags as they are.
    """
    modules = dict.fromkeys(
        module for part in (model, *others) if isinstance(part, nn.Module) for module in part.modules()
    )
    with ExitStack() as stack:
        stack.callback(RandomState(loader).restore)
        for module in modules:
            stack.enter_context(_as_it_was(module))
        if "torch._dynamo" in sys.modules:  # nothing is compiled before it is imported, and its import is slow
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if mode == "eval":
            # Not model.eval(): some models override it to merge weights.
            for module in modules:
                module.training = False
        yield


class RandomState:
    """The present state of all random generators that the user's code may draw from.

    Args:
        loader: Its generators are included, with those of its samplers.
    """

    def __init__(self, loader: object = None) -> None:
        """Remember it."""
        generators = {id(generator): generator for generator in _generators(loader)}.values()
        self._own = [(generator, generator.get_state()) for generator in generators]
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - the user's code may draw from the global generator
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore(self) -> None:
        """Put it back."""
        for generator, state in self._own:
            generator.set_state(state)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Put back a module's attributes, what is registered with it, and the content of its buffers."""
    attributes = dict(vars(module))
    registered = {name: dict(attributes[name]) for name in _REGISTERS}
    buffers = [buffer for buffer in module._buffers.values() if buffer is not None and _writable(buffer)]
    contents = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(attributes)
        for name, members in registered.items():
            attributes[name].clear()
            attributes[name].update(members)
        for buffer, content in zip(buffers, contents, strict=True):
            # Through .data, since a graph of the user's may have saved the buffer, which is what it was again.
            buffer.data.copy_(content)


def _writable(buffer: Tensor) -> bool:
    """Whether a buffer's content can change: torch refuses to write to expanded tensors."""
    return not any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


def _generators(loader: object) -> Iterator[torch.Generator]:
    """The generators of a loader, its sampler and its batch sampler."""
    holders: list[Any] = [loader]
    for name in ("sampler", "batch_sampler"):
        holders += [getattr(holder, name, None) for holder in holders]
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            yield generator
