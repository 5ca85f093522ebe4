"""Numbers that all processes of a distributed run have to agree on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from awc_balance.batches import device_of


def mean_over_processes(numbers: Mapping[str, float], model: nn.Module) -> dict[str, float]:
    """The mean of every number over the processes that train the model; the numbers themselves where it is one.

    What is done to gradients after they were exchanged has to be the same everywhere, or the copies of the model
    drift apart. Every process has to call this.

    Args:
        numbers: By name, with the same names in every process.
        model: As it is trained; only `DistributedDataParallel` has more than one process.
    """
    if not isinstance(model, DistributedDataParallel):
        return dict(numbers)
    values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=device_of(model))
    dist.all_reduce(values, group=model.process_group)
    values /= dist.get_world_size(model.process_group)
    return dict(zip(numbers, values.tolist(), strict=True))
