"""mmWave: the signal chain of a small FMCW radar, from scatterers to a sparse point cloud.

Scatterers add up coherently in a cube of range, Doppler and antenna; thermal noise is added; cells above a
threshold become points whose direction is estimated from the few antennas. Missed parts, coarse angles,
ghosts and false alarms follow from that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from examples.mmfi.simulator.common import FLOOR, LIGHT, Array, Complex
from examples.mmfi.simulator.mount import Mount
from examples.mmfi.simulator.room import Room
from examples.mmfi.simulator.scatterers import (
    Scatterers,
    body_scatterers,
    floor_ghosts,
    furniture_scatterers,
    join,
)
from examples.mmfi.simulator.surface import Capsules

_COLUMNS = ("x", "y", "z", "intensity", "doppler")


@dataclass(frozen=True)
class Radar:
    """An eight by one azimuth array with four elevated antennas, as sold for development at 60 GHz.

    Attributes:
        frequency: Hz.
        range_step: Metres per range cell.
        nearest: First range cell, metres.
        range_cells: Number of range cells.
        velocity_step: m/s per Doppler cell (real radar MARS: .356).
        velocity_cells: Number of Doppler cells.
        gain: Amplitude over the noise of a 1 m^2 reflector at 1 m.
        leak: Share of the static echo that clutter removal leaves.
        threshold: Power over the noise, averaged over antennas, from which a cell is a point.
        capacity: Most points of a frame (MARS: 64).
        sharpness: How much brighter a limb is from its side than from its end.
        per_segment: Scatterers per capsule.
        floor: Share of the amplitude that the floor returns.
        lost: Share of frames that the radar's link loses.
        intensity: Factor from a point's amplitude over the noise to the reported number.
        columns: Order of the five numbers of a point on disk (by public code that uses the data, unverified).
        mount: Sensor axes (likewise unverified).
        mount_spread: Standard deviation of the mount's offset from clip to clip, metres.

    Raises:
        ValueError: If `columns` are not the five numbers of a point, each once.
    """

    frequency: float = 60e9
    range_step: float = 0.047
    nearest: float = 1.6
    range_cells: int = 64
    velocity_step: float = 0.356
    velocity_cells: int = 16
    gain: float = 1200.0
    leak: float = 0.03
    threshold: float = 4.0
    capacity: int = 64
    sharpness: float = 6.0
    per_segment: int = 5
    floor: float = 0.25
    lost: float = 0.003
    intensity: float = 4.3
    columns: tuple[str, ...] = _COLUMNS
    mount: Mount = field(default_factory=lambda: Mount(("z", "x", "y"), (-0.2, 0.0, 0.2)))
    mount_spread: float = 0.02

    def __post_init__(self) -> None:
        """Check the columns."""
        if sorted(self.columns) != sorted(_COLUMNS):
            raise ValueError(
                f"`columns` should name {_COLUMNS} once each, in any order. Got `{self.columns}`. "
                "Leave it out for the usual order."
            )


# Antennas of the virtual array in half wavelengths, right and up: a row of eight and four above its middle.
_ROW = [(column, 0) for column in range(8)]
_UPPER = [(column, 1) for column in range(2, 6)]
_ARRAY = np.array(_ROW + _UPPER, dtype=np.float64)
_OVERLAP = slice(2, 6)
_BEAMS = 64  # points of the angle transform


def _hann(offset: Array) -> Array:
    """Response of a Hann-windowed transform, `offset` cells from its peak."""
    near = np.abs(np.abs(offset) - 1) < 1e-6
    return np.where(near, 0.5, np.sinc(offset) / np.where(near, 1.0, 1 - offset**2))


def doppler_response(velocity: Array, cell: Array, leak: float) -> Array:
    """Response of a Doppler cell to a velocity (in cells), after the mean over the chirps was taken off."""
    return np.asarray(_hann(cell - velocity) - (1 - leak) * np.sinc(velocity) * _hann(cell))


def signal_cube(points: Scatterers, radar: Radar) -> Complex:
    """Noise-free echo `[time, range, Doppler, antenna]` of scatterers, in units of the noise's amplitude."""
    position = (points.range - radar.nearest) / radar.range_step
    speed = points.velocity / radar.velocity_step
    element = np.maximum(1 - points.right**2 - points.up**2, 0.0)  # patch antennas, there and back: cos^2
    wave = radar.gain * element * points.amplitude * np.exp(-4j * np.pi * radar.frequency / LIGHT * points.range)
    steering = np.exp(1j * np.pi * (points.right[..., None] * _ARRAY[:, 0] + points.up[..., None] * _ARRAY[:, 1]))
    echo = wave[..., None] * steering
    times = len(position)
    cube = np.zeros((times * radar.range_cells * radar.velocity_cells, len(_ARRAY)), dtype=np.complex128)
    moment = np.arange(times)[:, None]
    for near in (-1, 0, 1):
        cell = np.round(position).astype(int) + near
        inside = (cell >= 0) & (cell < radar.range_cells) & (points.amplitude > 0)
        in_range = _hann(cell - position)
        for slow in (-1, 0, 1):
            bin_ = np.round(speed).astype(int) + slow
            weight = in_range * doppler_response(speed, bin_.astype(np.float64), radar.leak)
            row = (moment * radar.range_cells + cell) * radar.velocity_cells + bin_ % radar.velocity_cells
            np.add.at(cube, row[inside], (weight[..., None] * echo)[inside])
    return cube.reshape(times, radar.range_cells, radar.velocity_cells, len(_ARRAY))


def estimate_direction(cells: Complex) -> tuple[Array, Array]:
    """Direction in sine space, right and up, from the antennas' signals `[cell, antenna]`.

    Azimuth is the strongest beam of the row's transform; elevation the phase between the two rows.
    """
    spectrum = np.fft.fft(cells[:, : len(_ROW)], _BEAMS, axis=-1)
    beam = np.abs(spectrum).argmax(axis=-1)
    right = np.fft.fftfreq(_BEAMS)[beam] * 2
    lower, upper = cells[:, _OVERLAP], cells[:, len(_ROW) :]
    steer = np.exp(-1j * np.pi * right[:, None] * _ARRAY[len(_ROW) :, 0])
    up = np.angle((upper * steer).sum(axis=-1) * np.conj((lower * steer).sum(axis=-1))) / np.pi
    return right, up


def detect(cube: Complex, radar: Radar) -> list[Array]:
    """Points of every instant, `[points, 5]`: x right, y down, z forward, intensity, Doppler.

    Positions are in camera axes from the radar's origin, metres; Doppler in m/s, positive away.
    """
    power = np.mean(np.abs(cube) ** 2, axis=-1)
    time, cell, bin_ = np.nonzero(power > radar.threshold)
    right, up = estimate_direction(cube[time, cell, bin_])
    ranges = radar.nearest + radar.range_step * cell
    forward = 1 - right**2 - up**2
    half = radar.velocity_cells // 2
    doppler = radar.velocity_step * ((bin_ + half) % radar.velocity_cells - half)
    strength = radar.intensity * np.sqrt(power[time, cell, bin_])
    points = np.stack(
        [ranges * right, -ranges * up, ranges * np.sqrt(np.maximum(forward, 0.0)), strength, doppler], axis=-1
    )
    frames = [points[(time == moment) & (forward > 0)] for moment in range(len(cube))]
    return [frame[np.argsort(-frame[:, 3], kind="stable")[: radar.capacity]] for frame in frames]


def _on_disk(points: Array, mount: Mount, columns: tuple[str, ...]) -> Array:
    position = mount.to_sensor(mount.position + points[:, :3])
    named = dict(zip(("x", "y", "z"), position.T, strict=True))
    named |= {"intensity": points[:, 3], "doppler": points[:, 4]}
    return np.stack([named[name] for name in columns], axis=-1)


def measure_points(
    body: Capsules, room: Room, radar: Radar, step: float, every: int, rng: np.random.Generator
) -> list[Array]:
    """Radar points `[points, 5]` of every frame in the order of `radar.columns`; lost frames are empty.

    Args:
        body: The surface, sampled `step` seconds apart.
        room: Where furniture stands.
        radar: The radar.
        step: Seconds.
        every: Samples per frame.
        rng: Source of cloth and skin's fading, noise, losses and the mount of this clip.
    """
    mount = radar.mount.moved(radar.mount_spread * rng.standard_normal(3))
    origin = mount.position
    direct = body_scatterers(origin, body, step, every, radar.per_segment, radar.sharpness)
    ghosts = floor_ghosts(direct, FLOOR - float(origin[1]), radar.floor)
    clutter = furniture_scatterers(origin, room, len(direct.range))
    seen = join(direct, ghosts, clutter)
    fading = rng.rayleigh(np.sqrt(0.5), seen.amplitude.shape)
    cube = signal_cube(replace(seen, amplitude=seen.amplitude * fading), radar)
    cube += rng.standard_normal((*cube.shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2)
    lost = rng.uniform(size=len(cube)) < radar.lost
    return [
        _on_disk(points[: 0 if gone else None], mount, radar.columns)
        for points, gone in zip(detect(cube, radar), lost, strict=True)
    ]
