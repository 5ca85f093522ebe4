"""What a radar sees of a body: bright points on its surface, with range, velocity and cross-section."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from examples.mmfi.simulator.common import Array
from examples.mmfi.simulator.room import Room
from examples.mmfi.simulator.surface import Capsules, hidden

_FURNITURE = 0.1  # monostatic: a flat thing sends most of a wave elsewhere (invented, plausible)


@dataclass(frozen=True)
class Scatterers:
    """Points that reflect a radar wave, `[time, point]` each unless said otherwise.

    Attributes:
        range: Metres from the radar.
        velocity: Radial velocity in m/s, positive when moving away.
        right: Sine-space direction to the right (x over range).
        up: Sine-space direction upwards.
        amplitude: Square root of the radar cross-section over the square of the range (1 / m).
    """

    range: Array
    velocity: Array
    right: Array
    up: Array
    amplitude: Array


def bright_points(origin: Array, body: Capsules, per_segment: int) -> tuple[Array, Array]:
    """The points of each limb's surface nearest to the radar, and the limb's aspect there.

    Args:
        origin: The radar, `[3]`.
        body: The surface.
        per_segment: Points along each capsule.

    Returns:
        Points `[time, point, 3]` and the sine of the angle between view and limb axis, `[time, point]`:
        1 where the limb is seen from its side.
    """
    along = body.second - body.first
    shares = (np.arange(per_segment) + 0.5) / per_segment
    centres = body.first[:, :, None] + shares[:, None] * along[:, :, None]
    axis = (along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9))[:, :, None]
    view = origin - centres
    view /= np.linalg.norm(view, axis=-1, keepdims=True)
    across = view - (view * axis).sum(axis=-1, keepdims=True) * axis
    aspect = np.linalg.norm(across, axis=-1)
    points = centres + body.radius[:, None, None] * across / np.maximum(aspect, 1e-9)[..., None]
    return points.reshape(len(points), -1, 3), aspect.reshape(len(points), -1)


def cross_section(body: Capsules, aspect: Array, per_segment: int, sharpness: float) -> Array:
    """Radar cross-section in m^2, `[time, point]`: projected area, brightest from the limb's side."""
    length = np.linalg.norm(body.second - body.first, axis=-1) + 2 * body.radius
    area = np.repeat(2 * body.radius * length / per_segment, per_segment, axis=-1)
    return np.asarray(area * (0.1 + 0.9 * aspect**sharpness))


def radial_velocity(ranges: Array, step: float) -> Array:
    """Central difference of ranges `[time, point]` sampled `step` seconds apart; same shape, m/s."""
    return np.asarray(np.gradient(ranges, step, axis=0))


def body_scatterers(
    origin: Array, body: Capsules, step: float, every: int, per_segment: int, sharpness: float
) -> Scatterers:
    """The visible bright points of a moving body.

    Args:
        origin: The radar in camera coordinates, `[3]`.
        body: The surface, sampled `step` seconds apart.
        step: Seconds.
        every: Samples per returned instant.
        per_segment: Points per capsule.
        sharpness: How much brighter a limb is from its side than from its end.
    """
    points, aspect = bright_points(origin, body, per_segment)
    ranges = np.linalg.norm(points - origin, axis=-1)
    velocity = radial_velocity(ranges, step)[::every]
    now = Capsules(body.first[::every], body.second[::every], body.radius)
    points, aspect, ranges = points[::every], aspect[::every], ranges[::every]
    section = cross_section(now, aspect, per_segment, sharpness) * ~hidden(origin, points, now, 0.03)
    toward = (points - origin) / ranges[..., None]
    return Scatterers(ranges, velocity, toward[..., 0], -toward[..., 1], np.sqrt(section) / ranges**2)


def floor_ghosts(points: Scatterers, height: float, reflection: float) -> Scatterers:
    """The same scatterers seen over the floor: one way direct, the other by the floor's mirror image.

    The velocity is exact for horizontal motion.

    Args:
        points: The direct view.
        height: Of the radar above the floor, metres.
        reflection: Share of the amplitude that the floor returns.
    """
    x, z = points.range * points.right, points.range * points.up
    forward = np.sqrt(np.maximum(points.range**2 - x**2 - z**2, 0.0))
    image_z = -2 * height - z
    image = np.sqrt(x**2 + forward**2 + image_z**2)
    return Scatterers(
        range=(points.range + image) / 2,
        velocity=points.velocity * (points.range + image) / (2 * image),
        right=(points.right + x / image) / 2,
        up=(points.up + image_z / image) / 2,
        amplitude=reflection * points.amplitude * points.range / image,
    )


def furniture_scatterers(origin: Array, room: Room, times: int) -> Scatterers:
    """The furniture's faces as static scatterers; what clutter removal leaves of them is clutter."""
    centres = room.furniture.mean(axis=1)
    area = np.prod(room.furniture[:, 1, :2] - room.furniture[:, 0, :2], axis=-1)
    ranges = np.linalg.norm(centres - origin, axis=-1)
    toward = (centres - origin) / ranges[:, None]
    values = (
        ranges,
        np.zeros_like(ranges),
        toward[:, 0],
        -toward[:, 1],
        np.sqrt(_FURNITURE * area) / ranges**2,
    )
    return Scatterers(*(np.tile(value, (times, 1)) for value in values))


def join(*parts: Scatterers) -> Scatterers:
    """All scatterers as one set."""
    names = (item.name for item in fields(Scatterers))
    return Scatterers(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names))
