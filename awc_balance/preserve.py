"""Leave the user's things as they were: modules and random state around a measurement."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from awc_balance.threads import SharedSetting, only_thread

Mode: TypeAlias = Literal["eval", "current"]

_REGISTERS = ("_parameters", "_buffers", "_modules")

_eager = SharedSetting(lambda: torch.compiler.set_stance("force_eager"))
_without_cudnn = SharedSetting(lambda: torch.backends.cudnn.flags(enabled=False))


@contextmanager
def measuring(model: nn.Module, *others: object, loader: object = None, mode: Mode = "eval") -> Iterator[None]:
    """Run a model without leaving a trace of it.

    Attributes, buffers (batch-norm statistics), frozen parameters, training flags, and the random state of torch,
    numpy, Python and the loader's generators are as before on leaving, also after an exception; only what was added to
    lists and dicts of the user's own stays there. Compiled parts run uncompiled meanwhile, because hooks
    added after compilation never fire.

    Args:
        model: The model that will run.
        others: What else will run; modules among it are left as they were, too.
        loader: The loader that will be read; its own random generators are put back.
        mode: "eval" runs every module in evaluation mode; "current" leaves the training flags as they are.

    Raises:
        RuntimeError: If another thread measures the model, or its parameters hold no values.
    """
    _refuse_empty(model)
    modules = dict.fromkeys(
        module for part in (model, *others) if isinstance(part, nn.Module) for module in part.modules()
    )
    with ExitStack() as stack:
        stack.enter_context(only_thread(model))
        if torch.is_inference_mode_enabled():  # what is measured outlives it, and may be differentiated then
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.callback(RandomState(loader).restore)
        for module in modules:
            stack.enter_context(_as_it_was(module))
        stack.enter_context(uncompiled())
        if mode == "eval":
            # Not model.eval(): some models override it to merge weights.
            for module in modules:
                module.training = False
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled parts uncompiled, because hooks added after compilation never fire."""
    if "torch._dynamo" in sys.modules:  # nothing is compiled before it is imported, and its import is slow
        with _eager():
            yield
    else:
        yield


@contextmanager
def differentiable_rnns(model: nn.Module) -> Iterator[None]:
    """Let recurrent layers be differentiated in evaluation mode, which cuDNN cannot."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        with _without_cudnn():
            yield
    else:
        yield


def _refuse_empty(model: nn.Module) -> None:
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise RuntimeError(
            f"A model should hold values to be measured. Got parameters on the meta device: {', '.join(empty[:5])}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}. Call to_empty(device=...) and load its state."
        )


class RandomState:
    """The present state of the global random generators, and of a loader's own.

    Args:
        loader: Its generators and those of its samplers.
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
def same_random_state() -> Iterator[None]:
    """Put the global random state back: packages may draw where they are first imported, as scikit-learn does."""
    state = RandomState()
    try:
        yield
    finally:
        state.restore()


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Put back what a module's attributes and registers refer to, and the content of its tensors.

    The parameters that are trained are not copied: a forward pass does not write to them.
    """
    attributes = dict(vars(module))
    registered = {name: dict(attributes[name]) for name in _REGISTERS}
    frozen = [parameter for parameter in module._parameters.values() if parameter is not None and _frozen(parameter)]
    tensors = [*module._buffers.values(), *frozen, *attributes.values()]
    buffers = [tensor for tensor in tensors if isinstance(tensor, Tensor) and writable(tensor)]
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


def _frozen(parameter: Tensor) -> bool:
    return not parameter.requires_grad


def writable(buffer: Tensor) -> bool:
    """Whether a tensor's content can change: torch refuses to write to expanded ones."""
    if buffer.is_nested or buffer.layout != torch.strided:
        return True
    return not any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


def _generators(holder: object) -> Iterator[torch.Generator]:
    """The generators of a loader, its samplers, and theirs."""
    if holder is None:
        return
    generator = getattr(holder, "generator", None)
    if isinstance(generator, torch.Generator):
        yield generator
    yield from _generators(getattr(holder, "sampler", None))
    batch_sampler = getattr(holder, "batch_sampler", None)
    if batch_sampler is not holder:
        yield from _generators(batch_sampler)
