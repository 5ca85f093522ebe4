import numpy as np
import pytest

from examples.mmfi.simulator.clip import Settings, body_of, generator, perform, room_of
from examples.mmfi.simulator.surface import Capsules, capsules
from examples.mmfi.simulator.wifi import (
    LIGHT,
    Wifi,
    body_channel,
    channel,
    measure_csi,
    place_link,
    static_channel,
)

WIFI = Wifi()
FAULTLESS = Wifi(lost=0.0, silent=0.0)
EXACT = Wifi(lost=0.0, silent=0.0, gain_step=0.0, noise=-300.0, target=120.0)


def link():
    return place_link(WIFI, np.random.default_rng(0))


def measure(body, wifi):
    return measure_csi(body, room_of(0, "E01"), link(), wifi, np.random.default_rng(0))


def naive_channel(amplitudes, lengths, wifi):
    index = np.arange(wifi.subcarriers) - (wifi.subcarriers - 1) / 2
    frequencies = wifi.frequency + wifi.spacing * index
    waves = np.exp(-2j * np.pi * frequencies * lengths[..., None] / LIGHT)
    return (amplitudes[..., None] * waves).sum(axis=-2)


def moving_body(frames=3):
    return capsules(body_of(0, "S03"), perform("S03", "A12", Settings(frames=frames)))


def nobody(packets):
    far = np.full((packets, 1, 3), 1e6)
    return Capsules(far, far, np.array([0.1]))


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_the_expansion_equals_the_sum_over_paths(spread):
    rng = np.random.default_rng(0)
    amplitudes, lengths = rng.uniform(size=(4, 3, 20)), 3 + spread * rng.uniform(size=(4, 3, 20))
    found, expected = channel(amplitudes, lengths, WIFI), naive_channel(amplitudes, lengths, WIFI)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_channel_is_linear_in_the_paths():
    rng = np.random.default_rng(1)
    amplitudes, lengths = rng.uniform(size=(2, 6)), rng.uniform(3, 6, size=(2, 6))
    parts = sum(naive_channel(amplitudes[:, i : i + 3], lengths[:, i : i + 3], WIFI) for i in (0, 3))
    np.testing.assert_allclose(channel(amplitudes, lengths, WIFI), parts, atol=1e-5)


def test_the_empty_room_s_csi_is_constant_over_time():
    amplitude, _ = measure(nobody(20), EXACT)
    np.testing.assert_allclose(amplitude, amplitude[:1, :, :, :1] + np.zeros_like(amplitude), atol=1e-3)


def test_a_moving_body_changes_the_csi():
    amplitude, _ = measure(moving_body(20), EXACT)
    assert amplitude.std(axis=0).mean() > 0.1  # dB


def test_the_body_scatters_less_than_the_room_but_not_little():
    room = static_channel(room_of(0, "E01"), link(), WIFI)
    ratio = np.abs(body_channel(moving_body(), link(), WIFI)) / np.abs(room)
    assert 0.01 < np.median(ratio) < 0.5


def test_rooms_differ():
    first, second = (
        np.abs(static_channel(room_of(0, scene), place_link(WIFI, generator(0, "link", scene)), WIFI))
        for scene in ("E01", "E02")
    )
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.9


def test_amplitude_and_phase_have_the_shape_and_range_on_disk():
    amplitude, phase = measure(moving_body(), FAULTLESS)
    assert amplitude.shape == phase.shape == (3, 3, 114, 10)
    assert amplitude.dtype == phase.dtype == np.float64
    assert np.abs(phase).max() <= np.pi
    assert np.isfinite(amplitude).all()


def test_packets_follow_each_other_along_the_last_axis():
    """Frame 1, packet 4 is the 15th instant of the body."""
    room, body = room_of(0, "E01"), moving_body()
    amplitude, _ = measure(body, EXACT)
    clean = np.abs(static_channel(room, link(), EXACT) + body_channel(body, link(), EXACT)[14])
    difference = amplitude[1, :, :, 4] - 20 * np.log10(clean)
    np.testing.assert_allclose(difference, difference.mean(), atol=1e-3)


def test_lost_packets_are_nan_and_silent_antennas_infinite():
    faulty = Wifi(lost=0.2, silent=0.1)
    amplitude, phase = measure(moving_body(20), faulty)
    lost = np.isnan(amplitude)
    np.testing.assert_array_equal(lost, np.isnan(phase))
    np.testing.assert_array_equal(lost.any(axis=(1, 2)), lost.all(axis=(1, 2)))
    assert np.isneginf(amplitude).any()
