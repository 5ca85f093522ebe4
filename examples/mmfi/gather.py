"""Pure functions that turn row numbers into a batch: windows, samples, padding; none loops over frames."""

from __future__ import annotations

import numpy as np

from examples.mmfi.arrays import Array


def nearest_present(present: Array) -> Array:
    """Index of the nearest present frame for every frame of a clip, the earlier one of two.

    Args:
        present: `[frames]` bool, at least one of them true.

    Returns:
        `[frames]` int64; a present frame has itself.

    >>> nearest_present(np.array([False, True, False, False, False, True]))
    array([1, 1, 1, 1, 5, 5])
    """
    known = np.flatnonzero(present)
    frames = np.arange(len(present))
    after = np.searchsorted(known, frames).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    nearer_before = np.abs(frames - known[before]) <= np.abs(known[after] - frames)
    nearest: Array = np.where(nearer_before, known[before], known[after])
    return nearest


def padded_frames(present: Array, margin: int) -> Array:
    """Frames of a clip between margins that repeat its ends, absent frames replaced by the nearest present.

    >>> padded_frames(np.array([True, False, False, True]), 2)
    array([0, 0, 0, 0, 3, 3, 3, 3])
    """
    frames = np.arange(-margin, len(present) + margin).clip(0, len(present) - 1)
    padded: Array = nearest_present(present)[frames]
    return padded


def blocks(table: Array, starts: Array, length: int) -> Array:
    """Copy a run of consecutive records from each start; beyond the table's end its last record repeats.

    A run is copied as one piece of memory, which is several times faster than indexing record by record.

    Args:
        table: `[records, ...]`, contiguous.
        starts: `[batch]` first record of each run, within the table.
        length: Records of a run.

    Returns:
        `[batch, length, ...]`, a new array.

    >>> blocks(np.array([5, 6, 7, 8]), np.array([0, 2]), 3)
    array([[5, 6, 7],
           [7, 8, 8]])
    """
    if len(starts) == 0 or starts.max() + length > len(table):
        records = np.minimum(starts[:, None] + np.arange(length), len(table) - 1)
        indexed: Array = table[records]
        return indexed
    runs = np.lib.stride_tricks.as_strided(
        table.reshape(-1),
        shape=(len(table) - length + 1, length * table[0].size),
        strides=(table.strides[0], table.itemsize),
        writeable=False,
    )
    copied: Array = runs[starts]
    return copied.reshape(len(starts), length, *table.shape[1:])


def clear_padding_(points: Array, counts: Array) -> Array:
    """Set what lies behind the points of each frame to 0, in place, and return the mask of its points.

    Args:
        points: `[batch, width, columns]`, contiguous.
        counts: `[batch]` points of each frame, of which `width` are there at most.

    Returns:
        `[batch, width]` bool, true where there is a point.
    """
    batch, width, columns = points.shape
    counts = counts[:, None].astype(np.int32)
    # Row by row as one run of numbers: a mask over points, spread over columns, takes six times as long.
    padding = np.arange(width * columns, dtype=np.int32) >= counts * columns
    np.copyto(points.reshape(batch, -1), 0, where=padding)
    mask: Array = np.arange(width, dtype=np.int32) < counts
    return mask


def screen_coordinates(keypoints: Array, unit: str, width: int, height: int) -> Array:
    """Scale 2D keypoints so that the image's width spans [-1, 1], as VideoPose3D does.

    Args:
        keypoints: `[..., 2]` in the given unit.
        unit: `pixels`, `unit` ([0, 1] of width and height), or `screen` (nothing to do).
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    if unit == "screen":
        return keypoints
    size = np.array([width, height] if unit == "unit" else [1, 1])
    scale = (2 * size / width).astype(keypoints.dtype)
    scaled: Array = keypoints * scale - np.array([1, height / width], dtype=keypoints.dtype)
    return scaled


def point_indices(counts: Array, width: int, phases: Array) -> Array:
    """Choose up to `width` points of every frame, all different and evenly spread over the frame's order.

    A frame with more points is sampled systematically: every (count / width)-th point, from a start that the
    phase gives, so that each point is equally likely. One with fewer keeps all and then repeats the last.

    Args:
        counts: `[batch]` points of each frame.
        width: Points of each row of the result.
        phases: `[batch]` in [0, 1).

    Returns:
        Indices within the frame, `[batch, width]`.
    """
    steps = np.maximum(counts / width, 1.0)
    offsets = np.where(counts > width, phases, 0.0)
    indices = ((np.arange(width) + offsets[:, None]) * steps[:, None]).astype(np.int64)
    chosen: Array = np.minimum(indices, np.maximum(counts - 1, 0)[:, None])
    return chosen


def phases_of(rows: Array, seed: int) -> Array:
    """A number in [0, 1) for every row, which depends on the row and the seed, not on the rest of the batch.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) as a hash.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        state = rows.astype(np.uint64) + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    unit: Array = (state >> np.uint64(11)) / 2.0**53
    return unit
