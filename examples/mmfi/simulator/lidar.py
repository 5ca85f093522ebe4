"""LiDAR: rays against the body's visible surface and the room behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from examples.mmfi.simulator.common import Array
from examples.mmfi.simulator.mount import Mount
from examples.mmfi.simulator.room import Room, background_distance
from examples.mmfi.simulator.surface import Capsules, hit_distance


@dataclass(frozen=True)
class Lidar:
    """A spinning LiDAR, cut to the part of its view where the subject is. Angles in degrees.

    Attributes:
        beams: Beams from top to bottom, over `vertical`.
        step: Azimuth between two shots.
        vertical: Lowest and highest beam, up is positive.
        half_width: Azimuth kept on either side of straight ahead.
        noise: Standard deviation of a range, metres.
        dropout: Share of shots without return.
        reach: Longest range, metres.
        mount: Sensor axes x forward, y left, z up (by public code that uses the data, unverified).
    """

    beams: int = 32
    step: float = 0.703
    vertical: tuple[float, float] = (-22.5, 22.5)
    half_width: float = 28.0
    noise: float = 0.02
    dropout: float = 0.08
    reach: float = 20.0
    mount: Mount = field(default_factory=lambda: Mount(("z", "-x", "-y"), (-0.1, 0.0, -0.2)))


def ray_angles(lidar: Lidar) -> tuple[Array, Array]:
    """Azimuth (to the right) and elevation (up) of every shot in radians, `[ray]` each."""
    azimuth = np.arange(-lidar.half_width, lidar.half_width, lidar.step)
    elevation = np.linspace(*lidar.vertical, lidar.beams)
    grid = np.meshgrid(np.radians(azimuth), np.radians(elevation), indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def _directions(azimuth: Array, elevation: Array) -> Array:
    flat = np.cos(elevation)
    return np.stack([flat * np.sin(azimuth), -np.sin(elevation), flat * np.cos(azimuth)], axis=-1)


def body_distance(origin: Array, azimuth: Array, elevation: Array, body: Capsules) -> Array:
    """Distance of the body along every shot, `[time, ray]`, infinite where it is missed.

    Only shots within the angles that the capsules span at that time are traced.
    """
    ends = np.concatenate([body.first, body.second], axis=1) - origin
    distance = np.linalg.norm(ends, axis=-1)
    margin = np.arcsin(np.tile(body.radius, 2) / distance)
    width = margin / np.cos(np.arcsin(ends[..., 1] / distance))
    sideways, upwards = np.arctan2(ends[..., 0], ends[..., 2]), -np.arcsin(ends[..., 1] / distance)
    near = np.ones((len(ends), len(azimuth)), dtype=bool)
    for angle, ends_angle, reach in ((azimuth, sideways, width), (elevation, upwards, margin)):
        low, high = (ends_angle - reach).min(axis=1), (ends_angle + reach).max(axis=1)
        near &= (angle >= low[:, None] - 0.02) & (angle <= high[:, None] + 0.02)
    directions = _directions(azimuth, elevation)
    distances = np.full(near.shape, np.inf)
    for found, traced, first, second in zip(distances, near, body.first, body.second, strict=True):
        found[traced] = hit_distance(origin, directions[traced], first, second, body.radius).min(axis=-1)
    return distances


def scan(body: Capsules, room: Room, lidar: Lidar, rng: np.random.Generator) -> list[Array]:
    """One point cloud `[points, 3]` per instant in sensor coordinates, metres; the nearest surface wins."""
    azimuth, elevation = ray_angles(lidar)
    directions, origin = _directions(azimuth, elevation), lidar.mount.position
    distances = np.minimum(
        body_distance(origin, azimuth, elevation, body), background_distance(room, origin, directions)
    )
    kept = (distances < lidar.reach) & (rng.uniform(size=distances.shape) >= lidar.dropout)
    distances = distances + lidar.noise * rng.standard_normal(distances.shape)
    points = lidar.mount.to_sensor(origin + distances[..., None] * directions)
    return [frame[mask] for frame, mask in zip(points, kept, strict=True)]
