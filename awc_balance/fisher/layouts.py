"""Where the samples of a batch lie in a tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Samples along one axis, in blocks if several rows belong to each, as in `[batch * time, ...]`."""

    axis: int
    rows: int
    """Of each sample."""
    interleaved: bool = False
    """Whether the samples alternate, as in `[time * batch, ...]`, rather than the rows of each lying together."""

    def arrange(self, tensor: Tensor, samples: int) -> Tensor:
        """The tensor as `[samples, rows, ...]`."""
        if self.rows == 1 and self.axis == 0:
            return tensor.unsqueeze(1)
        first = tensor.movedim(self.axis, 0)
        counts = (self.rows, samples) if self.interleaved else (samples, self.rows)
        arranged: Tensor = first.unflatten(0, counts)
        return arranged.transpose(0, 1) if self.interleaved else arranged

    def shape_of_one(self, shape: torch.Size, samples: int) -> tuple[int, ...] | None:
        """The shape that one sample would have; None if that many samples do not fit."""
        if len(shape) <= self.axis or shape[self.axis] != samples * self.rows:
            return None
        return (*shape[: self.axis], self.rows, *shape[self.axis + 1 :])


def find_layout(fewer: torch.Size, more: torch.Size, counts: tuple[int, int]) -> Layout | None:
    """The layout by which a tensor had these shapes with these two numbers of samples, if there is one."""
    if len(fewer) != len(more):
        return None
    changed = [axis for axis, sizes in enumerate(zip(fewer, more, strict=True)) if sizes[0] != sizes[1]]
    if len(changed) != 1:
        return None
    axis = changed[0]
    rows, rest = divmod(fewer[axis], counts[0])
    if rest or more[axis] != rows * counts[1]:
        return None
    return Layout(axis, rows)
