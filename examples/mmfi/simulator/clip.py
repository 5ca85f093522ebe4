"""One clip: every sensor's view of one subject doing one action, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from examples.mmfi.protocols import scene_of
from examples.mmfi.simulator.actions import action_named
from examples.mmfi.simulator.body import Body, draw_body
from examples.mmfi.simulator.camera import Camera, detect_keypoints
from examples.mmfi.simulator.common import Array
from examples.mmfi.simulator.lidar import Lidar, scan
from examples.mmfi.simulator.motion import Motion, draw_style, move
from examples.mmfi.simulator.radar import Radar, measure_points
from examples.mmfi.simulator.room import Room, draw_room
from examples.mmfi.simulator.surface import capsules
from examples.mmfi.simulator.wifi import Wifi, measure_csi, place_link

FRAME_RATE = 10
"""Frames per second."""


@dataclass(frozen=True)
class Settings:
    """Everything that a simulated tree depends on.

    Attributes:
        seed: Of all randomness.
        frames: Frames of every clip; the real clips have 297.
        camera: RGB camera and keypoint detector.
        lidar: LiDAR.
        radar: mmWave radar.
        wifi: WiFi radio.

    Raises:
        ValueError: If `seed` is negative or `frames` is not positive.
    """

    seed: int = 0
    frames: int = 297
    camera: Camera = field(default_factory=Camera)
    lidar: Lidar = field(default_factory=Lidar)
    radar: Radar = field(default_factory=Radar)
    wifi: Wifi = field(default_factory=Wifi)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.seed < 0:
            raise ValueError(f"`seed` should not be negative. Got `{self.seed}`. Pass 0 or more.")
        if self.frames < 1:
            raise ValueError(f"`frames` should be positive. Got `{self.frames}`. The real clips have 297.")


@dataclass(frozen=True)
class Clip:
    """One simulated clip, as it is laid out on disk.

    Attributes:
        ground_truth: Joints in camera coordinates, `[frames, 17, 3]`, metres, float64.
        rgb: COCO keypoints, `[frames, 17, 2]`, pixels, float32.
        lidar: Per frame `[points, 3]`, metres, float64.
        mmwave: Per frame `[points, 5]`, float64; may be empty.
        csi_amplitude: dB, `[frames, 3, 114, 10]`, float64, with nan and inf.
        csi_phase: Radians, same shape.
    """

    ground_truth: Array
    rgb: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    lidar: list[Array]
    mmwave: list[Array]
    csi_amplitude: Array
    csi_phase: Array


def _number(name: str) -> int:
    return int(name[1:])


def generator(seed: int, purpose: str, *names: str) -> np.random.Generator:
    """A random generator of its own for every purpose and subject, action or scene, such as "S07"."""
    key = (*purpose.encode(), *map(_number, names))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@lru_cache(maxsize=8)
def room_of(seed: int, scene: str) -> Room:
    """The room of a scene."""
    return draw_room(generator(seed, "room", scene))


def body_of(seed: int, subject: str) -> Body:
    """The body of a subject."""
    return draw_body(generator(seed, "body", subject))


def perform(subject: str, action: str, settings: Settings) -> Motion:
    """A subject's motion sampled once per WiFi packet, `frames * packets` instants.

    Raises:
        ValueError: If there is no such action.
    """
    movement = action_named(action)
    seed, packets = settings.seed, settings.wifi.packets
    style = draw_style(generator(seed, "habit", subject), generator(seed, "style", subject, action))
    times = np.arange(settings.frames * packets) / (FRAME_RATE * packets)
    wander = generator(seed, "wander", subject, action)
    return move(movement, body_of(seed, subject), style, times, wander)


def simulate_clip(subject: str, action: str, settings: Settings) -> Clip:
    """Simulate one clip. Pure: the same arguments give the same arrays, whatever else is simulated.

    Args:
        subject: "S01" to "S40".
        action: "A01" to "A27".
        settings: Seed, number of frames and sensors.

    Raises:
        ValueError: If there is no such subject or action.
    """
    seed, packets, scene = settings.seed, settings.wifi.packets, scene_of(subject)
    motion = perform(subject, action, settings)
    body, room = capsules(body_of(seed, subject), motion), room_of(seed, scene)
    frames = motion.every(packets)
    frame_body = capsules(body_of(seed, subject), frames)
    link = place_link(settings.wifi, generator(seed, "link", scene))

    def noise(sensor: str) -> np.random.Generator:
        return generator(seed, sensor, subject, action)

    amplitude, phase = measure_csi(body, room, link, settings.wifi, noise("wifi"))
    keypoints = detect_keypoints(
        frames, frame_body, settings.camera, generator(seed, "keypoints", subject), noise("camera")
    )
    return Clip(
        ground_truth=frames.joints,
        rgb=keypoints.astype(np.float32),
        lidar=scan(frame_body, room, settings.lidar, noise("lidar")),
        mmwave=measure_points(body, room, settings.radar, 1 / (FRAME_RATE * packets), packets, noise("radar")),
        csi_amplitude=amplitude,
        csi_phase=phase,
    )
