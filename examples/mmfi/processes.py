"""Several processes that train one model, as `torchrun` starts them; everything works for a single one too."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Work together with the other processes that `torchrun` started, if there are any.

    Args:
        device: Where this process computes: GPUs talk by NCCL, anything else by Gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with warnings.catch_warnings():
            # Of a 1 x 1 convolution, whose gradient has other strides along its sides of length 1.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
    finally:
        dist.destroy_process_group()


def choose_device(name: str | None) -> torch.device:
    """The device of that name, else a GPU if there is one; each process on a machine takes a GPU of its own.

    Raises:
        ValueError: If torch finds no such device.
    """
    kind = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        kind = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        return torch.empty(0, device=kind).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"`device` should be one that torch finds. Got `{kind}`: {reason}") from error


def rank() -> int:
    """The number of this process; 0 is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gathered(value: Value) -> list[Value]:
    """A picklable value of every process, by rank, on all of them."""
    if not dist.is_initialized():
        return [value]
    values: list[Value | None] = [None] * count()
    dist.all_gather_object(values, value)
    return [value for value in values if value is not None]


def copy_buffers(module: nn.Module) -> None:
    """Give every process the buffers of process 0.

    Batch-norm statistics differ between processes, and sums on a GPU in their last bits.
    """
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the processes, as `DistributedDataParallel` does with those of what it wraps."""
    if dist.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= count()


def extra_states(module: nn.Module) -> dict[str, Any]:
    """The plain values in the state of a module and its parts, by name: all but parameters and buffers."""
    return {name: part.get_extra_state() for name, part in _with_extra_state(module)}


def set_extra_states(module: nn.Module, states: Mapping[str, Any]) -> None:
    """Put back what `extra_states` gave."""
    for name, part in _with_extra_state(module):
        part.set_extra_state(states[name])


def _with_extra_state(module: nn.Module) -> list[tuple[str, nn.Module]]:
    named = module.named_modules()
    return [(name, part) for name, part in named if type(part).get_extra_state is not nn.Module.get_extra_state]
