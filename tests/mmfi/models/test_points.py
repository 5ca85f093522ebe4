from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi.models.points import build_levels, farthest_points, gather_points, nearest_neighbours

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 20)


def random_cloud(seed, points, batch=3):
    random = torch.Generator().manual_seed(seed)
    positions = torch.randn(batch, points, 3, generator=random, dtype=torch.float64)
    mask = torch.rand(batch, points, generator=random) < torch.rand(batch, 1, generator=random)
    mask[0] = True
    return positions, mask


def naive_farthest_points(positions, real, samples):
    """One cloud, one point at a time."""
    chosen = [min(real, key=lambda i: np.linalg.norm(positions[i]))]
    while len(chosen) < samples:
        gaps = {i: min(np.linalg.norm(positions[i] - positions[j]) for j in chosen) for i in real}
        chosen.append(max(gaps, key=gaps.__getitem__))
    return chosen


@given(seeds, sizes, sizes)
def test_farthest_points_equal_the_naive_loop(seed, points, samples):
    positions, mask = random_cloud(seed, points)
    order = farthest_points(positions, mask, samples)
    assert order.shape == (3, samples)
    for cloud in range(3):
        real = mask[cloud].nonzero().flatten().tolist()
        wanted = min(samples, len(real))
        naive = naive_farthest_points(positions[cloud].numpy(), real, wanted) if real else []
        assert order[cloud, :wanted].tolist() == naive


@given(seeds, st.integers(4, 20))
def test_farthest_points_of_farthest_points_are_a_prefix(seed, points):
    positions, mask = random_cloud(seed, points)
    thinned = gather_points(positions, farthest_points(positions, mask, points // 2))[:1]
    again = farthest_points(thinned, torch.ones(1, points // 2, dtype=torch.bool), points // 4)
    assert again.tolist() == [list(range(points // 4))]


@given(seeds, sizes, sizes, sizes)
def test_nearest_neighbours_equal_the_naive_loop(seed, points, queries, count):
    positions, mask = random_cloud(seed, points)
    asked, asked_mask = random_cloud(seed + 1, queries)
    near = nearest_neighbours(asked, asked_mask, positions, mask, count)
    for cloud, query in np.ndindex(3, queries):
        found = near.indices[cloud, query][near.mask[cloud, query]].tolist()
        distances = (positions[cloud] - asked[cloud, query]).norm(dim=-1)
        real = mask[cloud].nonzero().flatten().tolist() if asked_mask[cloud, query] else []
        assert sorted(found) == sorted(sorted(real, key=distances.__getitem__)[:count])


@given(seeds, sizes, sizes)
def test_offsets_lead_from_the_query_to_the_neighbour(seed, points, queries):
    positions, mask = random_cloud(seed, points)
    asked, asked_mask = random_cloud(seed + 1, queries)
    near = nearest_neighbours(asked, asked_mask, positions, mask, 4)
    for cloud, query, rank in np.ndindex(near.indices.shape):
        reached = asked[cloud, query] + near.offsets[cloud, query, rank]
        torch.testing.assert_close(reached, positions[cloud, near.indices[cloud, query, rank]])


def test_gather_points_equals_the_naive_loop():
    values = torch.randn(3, 5, 2)
    indices = torch.randint(5, (3, 4, 6))
    gathered = gather_points(values, indices)
    for place in np.ndindex(3, 4, 6):
        assert torch.equal(gathered[place], values[place[0], indices[place]])


@given(seeds, st.integers(1, 40), st.integers(0, 30))
def test_levels_have_a_fraction_of_the_real_points_whatever_the_padding(seed, points, padding):
    positions, mask = random_cloud(seed, points)
    longer = torch.cat([positions, torch.zeros(3, padding, 3, dtype=torch.float64)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, padding, dtype=torch.bool)], dim=1)
    levels = build_levels(longer, longer_mask, 4, (3, 3, 3))
    counts = mask.sum(dim=1)
    for level in levels:
        assert level.mask.sum(dim=1).tolist() == counts.tolist()
        counts = (counts + 3) // 4


@given(seeds, st.integers(1, 40))
def test_levels_never_point_at_padding(seed, points):
    levels = build_levels(*random_cloud(seed, points), stride=4, neighbours=(3, 5, 2))
    searched = [(level.within, level.mask) for level in levels]
    searched += [(fine.sources, coarse.mask) for coarse, fine in pairwise(levels)]
    for near, mask in searched:
        real = gather_points(mask.unsqueeze(-1).double(), near.indices).squeeze(-1) > 0
        assert not (near.mask & ~real).any()
