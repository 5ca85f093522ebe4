"""Parameters that `torch.distributed.fsdp.fully_shard` has spread over processes.

What is done element by element needs this process's shard alone. Submodules of `torch.distributed` are looked up, not
imported: their import is slow, and nothing is sharded before it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, sharing its memory and differentiable; the tensor itself if it is whole."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shards(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """This process's shards of tensors that are all spread alike, or all whole."""
    return tuple(map(local, tensors)) if tensors and is_sharded(tensors[0]) else tensors


def placement(tensor: Tensor) -> object:
    """How a tensor is spread; None if it is whole."""
    return (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else None  # type: ignore[attr-defined]


def spread_like(shard: Tensor, parameter: Tensor) -> Tensor:
    """A tensor that is spread as the parameter is, of which `shard` is this process's part."""
    if not is_sharded(parameter):
        return shard
    result: Tensor = sys.modules["torch.distributed.tensor"].DTensor.from_local(
        shard,
        parameter.device_mesh,  # type: ignore[attr-defined]
        parameter.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return result


def summed_like(part: Tensor, parameter: Tensor) -> Tensor:
    """The sum over all shards of a parameter of a number that each process has of its own, differentiable."""
    if not is_sharded(parameter):
        return part
    tensors = sys.modules["torch.distributed.tensor"]
    kinds = [
        tensors.Partial() if placement.is_shard() else tensors.Replicate()
        for placement in parameter.placements  # type: ignore[attr-defined]
    ]
    spread = tensors.DTensor.from_local(part, parameter.device_mesh, kinds, run_check=False)  # type: ignore[attr-defined]
    result: Tensor = spread.full_tensor()
    return result


def has_shards(model: nn.Module) -> bool:
    """Whether parts of a model were given to `fully_shard`."""
    return bool(_sharded_modules(model))


def reshard(model: nn.Module) -> None:
    """Let the modules hold their shards: after a forward pass the outermost one keeps its parameters whole."""
    for module in _sharded_modules(model):
        module.reshard()  # type: ignore[operator]


def refuse_sharded(model: nn.Module, what: str, remedy: str) -> None:
    """Raise a RuntimeError where `what` cannot work."""
    if has_shards(model):
        raise RuntimeError(
            f"{what} should have the whole model. Got one that fully_shard spread over processes, each of which would "
            f"have to run it equally often. {remedy}"
        )


def check_sharding(model: nn.Module, parameters: Iterable[Tensor], count: int) -> None:
    """Refuse what is spread in other ways than by `fully_shard` over all the processes that measure together.

    Raises:
        RuntimeError: If it is.
    """
    sizes = {tensor.device_mesh.size() for tensor in parameters if is_sharded(tensor)}  # type: ignore[attr-defined]
    if sizes and (not has_shards(model) or sizes != {count}):
        raise RuntimeError(
            "Sharded parameters should be spread by fully_shard over the processes that measure together. Got meshes "
            f"of {', '.join(map(str, sorted(sizes)))} for {count} of them. Pass their process_group, and "
            "leave tensor parallelism out."
        )


def _sharded_modules(model: nn.Module) -> list[nn.Module]:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not dist.is_available() or not dist.is_initialized():
        return []
    return [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]
