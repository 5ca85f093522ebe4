"""Rooms: one per scene, a box with furniture; what static surroundings look like to a ray or a radio wave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmfi.simulator.common import FLOOR, Array


@dataclass(frozen=True)
class Room:
    """A room in camera coordinates, metres.

    Attributes:
        low: Corner of the room with the smallest coordinates (left, ceiling, behind the camera), `[3]`.
        high: The opposite corner (right, floor, back wall), `[3]`.
        furniture: Boxes as (corner of smallest, corner of largest coordinates), `[boxes, 2, 3]`.
        reflection: Share of a radio wave's amplitude that each wall sends back, `[low or high, axis]`.
    """

    low: Array
    high: Array
    furniture: Array
    reflection: Array


def draw_room(rng: np.random.Generator) -> Room:
    """A room of random size with furniture along its walls, clear of where the subject stands."""
    low = np.array([-rng.uniform(2.2, 3.5), FLOOR - rng.uniform(2.6, 3.2), -rng.uniform(1.0, 3.0)])
    high = np.array([rng.uniform(2.2, 3.5), FLOOR, rng.uniform(4.6, 6.5)])
    boxes = []
    for side in rng.choice([-1.0, 1.0], size=5):
        size = rng.uniform([0.3, 0.4, 0.3], [0.8, 1.9, 1.0])
        x = (high[0] - size[0] if side > 0 else low[0]) - side * rng.uniform(0.0, 0.3)
        z = rng.uniform(1.5, high[2] - size[2])
        corner = np.array([x, FLOOR - size[1], z])
        boxes.append([corner, corner + size])
    return Room(low, high, np.array(boxes), rng.uniform(0.4, 0.8, size=(2, 3)))


def background_distance(room: Room, origin: Array, directions: Array) -> Array:
    """Distance from a point to walls or furniture along unit `directions`: `[ray, 3]` to `[ray]`, metres."""
    with np.errstate(divide="ignore"):
        inverse = 1.0 / directions
    walls = np.maximum((room.low - origin) * inverse, (room.high - origin) * inverse).min(axis=-1)
    near, far = ((room.furniture[:, i] - origin)[:, None] * inverse for i in (0, 1))
    enter = np.minimum(near, far).max(axis=-1)
    leave = np.maximum(near, far).min(axis=-1)
    boxes = np.where((enter < leave) & (enter > 0), enter, np.inf).min(axis=0)
    return np.asarray(np.minimum(walls, boxes))


def mirror_images(room: Room, point: Array) -> tuple[Array, Array]:
    """Images of a point behind each of the six walls, `[6, 3]`, and the walls' reflections, `[6]`."""
    images, walls = np.tile(point, (2, 3, 1)), np.stack([room.low, room.high])
    for axis in range(3):
        images[:, axis, axis] = 2 * walls[:, axis] - point[axis]
    return images.reshape(6, 3), room.reflection.reshape(6)
