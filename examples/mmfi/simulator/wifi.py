"""WiFi: channel state information as a sum over propagation paths."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from examples.mmfi.simulator.common import LIGHT, Array, Complex
from examples.mmfi.simulator.room import Room, mirror_images
from examples.mmfi.simulator.surface import Capsules

_FURNITURE = 0.3  # bistatic cross-section over area of a piece of furniture (invented, plausible)


@dataclass(frozen=True)
class Wifi:
    """One transmit antenna, three receive antennas, 40 MHz in the 5 GHz band.

    Attributes:
        frequency: Centre frequency in Hz.
        subcarriers: Number of measured subcarriers.
        spacing: Hz between two of them.
        antennas: Receive antennas, half a wavelength apart along x.
        packets: Packets per frame.
        transmitter: Position in camera coordinates, metres (invented: not known for the real data).
        receiver: Position of the first receive antenna.
        displacement: Standard deviation of both from scene to scene, metres.
        target: Level in dB that automatic gain aims at.
        gain_step: Standard deviation of the gain's jitter from packet to packet, dB.
        noise: Receiver noise below the target level, dB.
        lost: Share of packets that are lost: nan.
        silent: Share of packets in which one antenna reports zeros: minus infinity in dB.
    """

    frequency: float = 5.32e9
    subcarriers: int = 114
    spacing: float = 312.5e3
    antennas: int = 3
    packets: int = 10
    transmitter: tuple[float, float, float] = (-1.6, -0.2, 1.6)
    receiver: tuple[float, float, float] = (1.6, -0.2, 1.4)
    displacement: float = 0.25
    target: float = 43.0
    gain_step: float = 0.5
    noise: float = -28.0
    lost: float = 5e-4
    silent: float = 2e-4


@dataclass(frozen=True)
class Link:
    """Antennas in a room: `transmitter` `[3]`, `receivers` `[antenna, 3]`, metres."""

    transmitter: Array
    receivers: Array


def place_link(wifi: Wifi, rng: np.random.Generator) -> Link:
    """The antennas of one scene, displaced around their usual places."""
    transmitter, receiver = (
        np.add(place, wifi.displacement * rng.standard_normal(3)) for place in (wifi.transmitter, wifi.receiver)
    )
    step = np.array([LIGHT / wifi.frequency / 2, 0.0, 0.0])
    return Link(transmitter, receiver + step * np.arange(wifi.antennas)[:, None])


def _subcarrier_offsets(wifi: Wifi) -> Array:
    return np.asarray(wifi.spacing * (np.arange(wifi.subcarriers) - (wifi.subcarriers - 1) / 2))


def channel(amplitudes: Array, lengths: Array, wifi: Wifi, order: int = 12) -> Complex:
    """Sum over paths of a exp(-j 2 pi f d / c) on every subcarrier.

    The phase across the band is small for paths of similar length, so that exp is expanded in powers of the
    length around a middle length: paths are summed once per power instead of once per subcarrier.

    Args:
        amplitudes: Strength of each path, `[..., path]`.
        lengths: Length of each path, same shape, metres.
        wifi: The radio.
        order: Highest power; 12 leaves 1e-6 of the amplitude for lengths within 5 m of the middle.

    Returns:
        Complex channel `[..., subcarrier]`.
    """
    middle = (lengths.min() + lengths.max()) / 2
    waves = amplitudes * np.exp(-2j * np.pi * wifi.frequency / LIGHT * lengths)
    slope = -2j * np.pi / LIGHT * _subcarrier_offsets(wifi)
    response = np.zeros((*lengths.shape[:-1], wifi.subcarriers), dtype=np.complex128)
    for power in range(order + 1):
        moment = (waves * (lengths - middle) ** power).sum(axis=-1)
        response += moment[..., None] * (slope**power / factorial(power))
    return np.asarray(response * np.exp(slope * middle))


def static_channel(room: Room, link: Link, wifi: Wifi) -> Complex:
    """The empty room, `[antenna, subcarrier]`: line of sight, walls, furniture; Friis and radar equations."""
    images, reflection = mirror_images(room, link.transmitter)
    sources = np.concatenate([link.transmitter[None], images])
    direct = np.linalg.norm(link.receivers[:, None] - sources, axis=-1)
    furniture = room.furniture.mean(axis=1)
    outward = np.linalg.norm(furniture - link.transmitter, axis=-1)
    inward = np.linalg.norm(furniture - link.receivers[:, None], axis=-1)
    face = np.diff(room.furniture, axis=1)[:, 0, 1:]  # height and depth: the side towards the room's middle
    section = _FURNITURE * np.prod(face, axis=-1)
    wavelength = LIGHT / wifi.frequency
    amplitudes = np.concatenate(
        [
            wavelength / (4 * np.pi * direct) * np.append(1.0, reflection),
            wavelength * np.sqrt(section) / ((4 * np.pi) ** 1.5 * outward * inward),
        ],
        axis=-1,
    )
    return channel(amplitudes, np.concatenate([direct, outward + inward], axis=-1), wifi)


def body_channel(body: Capsules, link: Link, wifi: Wifi, points: int = 3) -> Complex:
    """Waves scattered by the body, `[time, antenna, subcarrier]`: the bistatic radar equation per limb point.

    A limb point scatters like its share of the limb's projected area, that is 2 r times the length.
    """
    shares = (np.arange(points) + 0.5) / points
    along = body.second - body.first
    places = (body.first[:, :, None] + shares[:, None] * along[:, :, None]).reshape(len(along), -1, 3)
    length = np.linalg.norm(along, axis=-1) + 2 * body.radius
    section = np.repeat(2 * body.radius * length / points, points, axis=-1)
    outward = np.linalg.norm(places - link.transmitter, axis=-1)[:, None]
    inward = np.linalg.norm(places[:, None] - link.receivers[:, None], axis=-1)
    wavelength = LIGHT / wifi.frequency
    amplitudes = wavelength * np.sqrt(section)[:, None] / ((4 * np.pi) ** 1.5 * outward * inward)
    return channel(amplitudes, outward + inward, wifi)


def _receive(clean: Complex, wifi: Wifi, rng: np.random.Generator) -> Complex:
    """What the receiver reports: gain, noise, clock offsets, whole numbers, silent antennas; same shape."""
    power = np.mean(np.abs(clean) ** 2, axis=(1, 2), keepdims=True)
    jitter = wifi.gain_step * rng.standard_normal(power.shape)
    gain = 10 ** ((wifi.target + jitter) / 20) / np.sqrt(power)
    turn = rng.uniform(-np.pi, np.pi, power.shape)
    delay = rng.normal(0.0, 50e-9, power.shape)  # packet detection, seconds
    clocks = np.exp(1j * (turn - 2 * np.pi * delay * _subcarrier_offsets(wifi)))
    level = 10 ** ((wifi.target + wifi.noise) / 20) / np.sqrt(2)
    noise = rng.standard_normal((*clean.shape, 2)).view(np.complex128)[..., 0]
    report = np.round(gain * clocks * clean + level * noise)
    report[rng.uniform(size=report.shape[:2]) < wifi.silent] = 0.0
    return np.asarray(report)


def _by_frame(packets: Array, count: int) -> Array:
    """`[frame * packet, antenna, subcarrier]` to `[frame, antenna, subcarrier, packet]`."""
    return packets.reshape(-1, count, *packets.shape[1:]).transpose(0, 2, 3, 1)


def measure_csi(body: Capsules, room: Room, link: Link, wifi: Wifi, rng: np.random.Generator) -> tuple[Array, Array]:
    """Amplitude in dB and phase in radians, `[frame, antenna, subcarrier, packet]` each.

    `body` is sampled once per packet. Lost packets are nan in both; a silent antenna is minus infinity dB.
    """
    report = _receive(static_channel(room, link, wifi) + body_channel(body, link, wifi), wifi, rng)
    with np.errstate(divide="ignore"):
        amplitude = 20 * np.log10(np.abs(report))
    phase = np.angle(report)
    lost = rng.uniform(size=len(report)) < wifi.lost
    amplitude[lost] = phase[lost] = np.nan
    return _by_frame(amplitude, wifi.packets), _by_frame(phase, wifi.packets)
