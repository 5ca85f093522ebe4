"""The body's surface as capsules, and rays against capsules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.mmfi.simulator.body import JOINTS, Body
from examples.mmfi.simulator.common import Array
from examples.mmfi.simulator.motion import Motion

_TINY = 1e-12


class Segment(NamedTuple):
    """A part of the body between two joints: a capsule from share `begin` to share `end` of the way."""

    first: str
    second: str
    radius: float
    begin: float = 0.0
    end: float = 1.0


def _sided(first: str, second: str, radius: float, begin: float = 0.0, end: float = 1.0) -> list[Segment]:
    return [Segment(f"{side}_{first}", f"{side}_{second}", radius, begin, end) for side in ("left", "right")]


# Radii in metres of an average adult (invented, plausible); the forearm reaches into the hand.
SEGMENTS = (
    Segment("left_hip", "right_hip", 0.10),
    Segment("pelvis", "thorax", 0.115),
    *_sided("hip", "shoulder", 0.085, 0.05, 0.85),
    Segment("left_shoulder", "right_shoulder", 0.06),
    Segment("thorax", "nose", 0.055),
    Segment("thorax", "nose", 0.095, 0.6, 0.95),
    *_sided("shoulder", "elbow", 0.046),
    *_sided("elbow", "wrist", 0.038, 0.0, 1.35),
    *_sided("hip", "knee", 0.075),
    *_sided("knee", "ankle", 0.05),
)
"""The capsules of the body, without the feet."""

_TOE = np.array([0.0, 0.045, -0.16])  # metres from the ankle of a foot that points at the camera
_FOOT_RADIUS = 0.035


@dataclass(frozen=True)
class Capsules:
    """Moving capsules: `first` and `second` ends `[time, segment, 3]`, `radius` `[segment]`, metres."""

    first: Array
    second: Array
    radius: Array


def capsules(body: Body, motion: Motion) -> Capsules:
    """The surface of a moving body: `SEGMENTS`, then the left and the right foot."""
    joints = motion.joints
    start = joints[:, [JOINTS.index(segment.first) for segment in SEGMENTS]]
    along = joints[:, [JOINTS.index(segment.second) for segment in SEGMENTS]] - start
    begin, end, radius = (
        np.array([getattr(segment, name) for segment in SEGMENTS]) for name in ("begin", "end", "radius")
    )
    ankles = joints[:, [JOINTS.index("left_ankle"), JOINTS.index("right_ankle")]]
    toes = ankles + (motion.heading @ _TOE)[:, None]
    return Capsules(
        first=np.concatenate([start + begin[:, None] * along, ankles], axis=1),
        second=np.concatenate([start + end[:, None] * along, toes], axis=1),
        radius=body.girth * np.append(radius, [_FOOT_RADIUS, _FOOT_RADIUS]),
    )


def _sphere_distance(along: Array, square: Array, radius: Array) -> Array:
    """First crossing of a sphere, its centre `along` the ray and sqrt(`square`) from the ray's origin."""
    inside = along**2 - square + radius**2
    distance = along - np.sqrt(np.maximum(inside, 0.0))
    return np.where((inside > 0) & (distance > 0), distance, np.inf)


def _side_distance(ray: Array, first: Array, axis: Array, length: Array, radius: Array, along_first: Array) -> Array:
    """First crossing of the side of a cylinder from `first` along the unit `axis`."""
    ray_axis = np.einsum("...d,...d->...", ray, axis)
    first_axis = np.einsum("...d,...d->...", first, axis)
    a = np.maximum(1 - ray_axis**2, _TINY)
    b = along_first - ray_axis * first_axis
    c = np.einsum("...d,...d->...", first, first) - first_axis**2 - radius**2
    inside = b**2 - a * c
    distance = (b - np.sqrt(np.maximum(inside, 0.0))) / a
    height = distance * ray_axis - first_axis
    return np.where((inside > 0) & (distance > 0) & (height > 0) & (height < length), distance, np.inf)


def hit_distance(origin: Array, directions: Array, first: Array, second: Array, radius: Array) -> Array:
    """Distance along rays to the first crossing of each capsule.

    Args:
        origin: Where all rays start, outside of every capsule, `[3]`.
        directions: Unit vectors `[..., 3]`.
        first: One end of the capsules' axes, `[..., segment, 3]`.
        second: The other end, alike.
        radius: `[segment]`.

    Returns:
        `[..., segment]`, in metres, infinite where a ray misses.
    """
    ray = directions[..., None, :]
    start, stop = first - origin, second - origin
    length = np.linalg.norm(stop - start, axis=-1)
    axis = (stop - start) / np.maximum(length, _TINY)[..., None]
    along_start = np.einsum("...d,...d->...", ray, start)
    along_stop = np.einsum("...d,...d->...", ray, stop)
    side = _side_distance(ray, start, axis, length, radius, along_start)
    first_cap = _sphere_distance(along_start, np.einsum("...d,...d->...", start, start), radius)
    second_cap = _sphere_distance(along_stop, np.einsum("...d,...d->...", stop, stop), radius)
    return np.asarray(np.minimum(side, np.minimum(first_cap, second_cap)))


def hidden(origin: Array, points: Array, body: Capsules, depth: float) -> NDArray[np.bool_]:
    """Whether the body lies over `depth` metres in front of points `[time, point, 3]`: `[time, point]`."""
    rays = points - origin
    distance = np.linalg.norm(rays, axis=-1)
    hits = hit_distance(origin, rays / distance[..., None], body.first[:, None], body.second[:, None], body.radius)
    return np.asarray(hits.min(axis=-1) < distance - depth)
