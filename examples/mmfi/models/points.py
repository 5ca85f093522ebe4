"""Geometry of padded point clouds: sampling, neighbours, and the levels of detail of an encoder.

Clouds are padded to one length and carry a mask, `[batch, points]`, bool, True for a real point. What is
computed for a cloud depends on its real points alone: not on the padding, its length or the other clouds.
Nothing here is differentiated, waits for the device, or has a shape that depends on values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Neighbours:
    """The points near each query point.

    Attributes:
        indices: `[batch, queries, neighbours]`, int64, rows of the cloud that was searched.
        mask: The same shape, bool; False where the query is padding or the cloud ran out of real points.
        offsets: `[batch, queries, neighbours, 3]`, from the query to the neighbour.
    """

    indices: Tensor
    mask: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Level:
    """A cloud at one level of detail.

    Attributes:
        mask: `[batch, points]`, bool.
        within: Of each point, the nearest points of this level.
        sources: Of each point, the nearest points of the finer level before; None at the first level.
    """

    mask: Tensor
    within: Neighbours
    sources: Neighbours | None


def gather_points(values: Tensor, indices: Tensor) -> Tensor:
    """Pick rows of each cloud.

    Args:
        values: `[batch, points, channels]`.
        indices: `[batch, ...]`, int64.

    Returns:
        `[batch, ..., channels]`.
    """
    batch, points, channels = values.shape
    first_rows = torch.arange(batch, device=values.device) * points
    rows = indices + first_rows.view(-1, *[1] * (indices.ndim - 1))
    # A look-up table has the fastest backward of torch's gathers on a CPU, and a deterministic one on a GPU.
    return F.embedding(rows, values.reshape(batch * points, channels))


@torch.no_grad()
def farthest_points(positions: Tensor, mask: Tensor, samples: int) -> Tensor:
    """Order points so that each is the farthest from all before it (farthest-point sampling).

    The first is the real point nearest to the origin, where the sensor stands. A prefix of the order is
    the order of fewer samples, so that one call serves all coarser levels. The loop runs over samples,
    each step handles the whole batch.

    Args:
        positions: `[batch, points, 3]`.
        mask: `[batch, points]`, bool.
        samples: How many points to order. Entries past a cloud's number of real points are arbitrary.

    Returns:
        Indices, `[batch, samples]`, int64.
    """
    ranges = positions.square().sum(dim=-1).masked_fill(~mask, torch.inf)
    gaps = torch.full_like(ranges, torch.inf).masked_fill(~mask, -1.0)
    current = ranges.argmin(dim=1, keepdim=True)
    order = []
    for _ in range(samples):
        order.append(current)
        last = positions.take_along_dim(current.unsqueeze(-1), dim=1)
        gaps = torch.minimum(gaps, (positions - last).square().sum(dim=-1))
        current = gaps.argmax(dim=1, keepdim=True)
    return torch.cat(order, dim=1)


@torch.no_grad()
def nearest_neighbours(queries: Tensor, query_mask: Tensor, positions: Tensor, mask: Tensor, count: int) -> Neighbours:
    """Find the `count` nearest real points of each query, or as many as there are, in no given order.

    Args:
        queries: `[batch, queries, 3]`.
        query_mask: `[batch, queries]`, bool.
        positions: `[batch, points, 3]`, the cloud to search.
        mask: `[batch, points]`, bool.
        count: Neighbours per query; at most `points` are returned.
    """
    # Not the matrix-product form: its rounding would swap close neighbours.
    distances = torch.cdist(queries, positions, compute_mode="donot_use_mm_for_euclid_dist")
    distances.masked_fill_(~mask.unsqueeze(1), torch.inf)  # in place: the largest tensor of the encoder
    nearest = distances.topk(min(count, positions.shape[1]), dim=-1, largest=False, sorted=False)
    offsets = gather_points(positions, nearest.indices) - queries.unsqueeze(2)
    return Neighbours(nearest.indices, nearest.values.isfinite() & query_mask.unsqueeze(-1), offsets)


def build_levels(positions: Tensor, mask: Tensor, stride: int, neighbours: Sequence[int]) -> list[Level]:
    """Thin out clouds level by level and find the neighbours that an encoder needs at each.

    The first level has all points. A cloud of n real points at one level has ceil(n / stride) at the next.

    Args:
        positions: `[batch, points, 3]`.
        mask: `[batch, points]`, bool.
        stride: Points per kept point.
        neighbours: Of each level, the number of neighbours searched.
    """
    levels = [Level(mask, nearest_neighbours(positions, mask, positions, mask, neighbours[0]), None)]
    order = farthest_points(positions, mask, -(-positions.shape[1] // stride))
    thinned = gather_points(positions, order)
    counts = mask.sum(dim=1, keepdim=True)
    for count in neighbours[1:]:
        coarse = thinned[:, : -(-positions.shape[1] // stride)]
        counts = -(-counts // stride)
        coarse_mask = torch.arange(coarse.shape[1], device=mask.device) < counts
        sources = nearest_neighbours(coarse, coarse_mask, positions, mask, count)
        within = nearest_neighbours(coarse, coarse_mask, coarse, coarse_mask, count)
        levels.append(Level(coarse_mask, within, sources))
        positions, mask = coarse, coarse_mask
    return levels
