"""Copies of one model in several processes: making sure that they are, and giving them the same buffers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awc_balance.batches import device_of
from awc_balance.preserve import writable
from awc_balance.processes import Processes
from awc_balance.sharded import is_sharded

SAME_MODEL = 1e-4
"""How far the sum of all parameters may differ between processes, as a share of their norm, for their copies to be
equal: machines of different kinds round differently. Models from other seeds differ by about 1."""


@torch.no_grad()
def share_model(model: nn.Module, processes: Processes) -> None:
    """Make sure that all processes hold one model, and give every one the buffers of process 0.

    Batch-norm statistics differ between processes, which see different batches. Call it where buffers are put
    back afterwards.

    Raises:
        ValueError: If parameters differ between processes.
    """
    if processes.count == 1:
        return
    device = device_of(model)
    buffers = {
        name: buffer
        for name, buffer in model.named_buffers()
        if writable(buffer) and buffer.layout == torch.strided and buffer.device == device
    }
    layout = {name: (tuple(buffer.shape), str(buffer.dtype)) for name, buffer in buffers.items()}
    found = processes.gathered((_Parameters.of(model), layout))
    _refuse_other_models([parameters for parameters, _ in found])
    # A cache that grew to another size elsewhere is no part of the model.
    common = [buffers[name] for name in sorted(layout) if all(held.get(name) == layout[name] for _, held in found)]
    processes.broadcast_(common)


class _Parameters(NamedTuple):
    """What tells copies of a model from other models."""

    kinds: list[tuple[str, tuple[int, ...], bool]]
    """Name, shape, and whether it is trained."""
    total: float
    norm: float

    @staticmethod
    def of(model: nn.Module) -> _Parameters:
        """The parameters of a model; shards are of one model however they differ."""
        named = dict(model.named_parameters())
        whole = [p for p in named.values() if not is_sharded(p) and (p.is_floating_point() or p.is_complex())]
        device = device_of(model)
        rows = [torch.stack([_total(p), torch.linalg.vector_norm(p).double()]).to(device) for p in whole]
        totals, norms = torch.stack(rows, 1).tolist() if rows else ([], [])
        kinds = [(name, tuple(p.shape), p.requires_grad) for name, p in named.items()]
        return _Parameters(kinds, sum(totals), sqrt(sum(norm**2 for norm in norms)))


def _total(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).sum(dtype=torch.float64)


def _refuse_other_models(found: Sequence[_Parameters]) -> None:
    first = found[0]
    for rank, other in enumerate(found):
        alike = abs(other.total - first.total) <= SAME_MODEL * first.norm or not isfinite(first.norm)
        if other.kinds != first.kinds or not alike:
            raise ValueError(
                "Processes that measure together should hold copies of one model. Got other parameters in process "
                f"{rank} than in process 0. Wrap the model in DistributedDataParallel, which makes them equal, or pass "
                "process_group=None where each process has a model of its own."
            )
