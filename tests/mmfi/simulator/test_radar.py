import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.mmfi.simulator.clip import Settings, body_of, perform, room_of
from examples.mmfi.simulator.radar import Radar, detect, doppler_response, measure_points, signal_cube
from examples.mmfi.simulator.scatterers import Scatterers, body_scatterers, bright_points, floor_ghosts
from examples.mmfi.simulator.surface import Capsules, capsules


def one_scatterer(distance=2.5, velocity=0.712, right=0.0, up=0.0, amplitude=0.1):
    values = (distance, velocity, right, up, amplitude)
    return Scatterers(*(np.array([[float(value)]]) for value in values))


def strongest(points):
    return max(points, key=lambda point: point[3])


def pendulum(speed=1.0, step=0.01, count=100):
    """A vertical limb that comes and goes at 3 m."""
    depth = 3 + 0.2 * np.sin(speed * np.arange(count) * step / 0.2)
    top = np.stack([np.zeros(count), np.full(count, -0.5), depth], axis=-1)[:, None]
    return Capsules(top, top + np.array([0.0, 0.5, 0.0]), np.array([0.1]))


def test_radial_velocity_is_the_finite_difference_of_the_range():
    body, origin = pendulum(), np.array([0.3, 0.0, 0.1])
    found = body_scatterers(origin, body, 0.01, 10, 4, 6.0)
    points, _ = bright_points(origin, body, 4)
    ranges = np.linalg.norm(points - origin, axis=-1)
    np.testing.assert_allclose(found.range, ranges[::10])
    np.testing.assert_allclose(found.velocity[1:], ((ranges[11::10] - ranges[9:-1:10]) / 0.02), atol=1e-9)


def test_bright_points_lie_on_the_surface_and_face_the_radar():
    origin = np.zeros(3)
    body = capsules(body_of(0, "S01"), perform("S01", "A04", Settings(frames=2)).every(10))
    points, aspect = bright_points(origin, body, 3)
    assert points.shape == (2, 3 * body.radius.size, 3)
    assert np.all((aspect >= 0) & (aspect <= 1 + 1e-9))
    shares, along = np.array([1, 3, 5])[:, None] / 6, body.second - body.first
    centres = (body.first[:, :, None] + shares * along[:, :, None]).reshape(points.shape)
    offset = np.linalg.norm(points - centres, axis=-1)
    np.testing.assert_allclose(offset, np.broadcast_to(np.repeat(body.radius, 3), offset.shape))
    assert np.all(np.linalg.norm(points, axis=-1) <= np.linalg.norm(centres, axis=-1) + 1e-9)


@settings(max_examples=30)
@given(st.floats(1.8, 4.0), st.integers(-6, 6).filter(bool), st.floats(-0.5, 0.5), st.floats(-0.4, 0.4))
def test_a_strong_scatterer_is_found_where_it_is(distance, bins, right, up):
    radar = Radar()
    cube = signal_cube(one_scatterer(distance, bins * radar.velocity_step, right, up), radar)
    x, y, z, _, doppler = strongest(detect(cube, radar)[0])
    assert np.linalg.norm([x, y, z]) == pytest.approx(distance, abs=radar.range_step)
    assert doppler == pytest.approx(bins * radar.velocity_step)
    assert x / distance == pytest.approx(right, abs=0.05)
    assert -y / distance == pytest.approx(up, abs=0.05)


def test_clutter_removal_cancels_what_does_not_move():
    cells = np.arange(-8.0, 8.0)
    np.testing.assert_allclose(doppler_response(np.zeros(16), cells, leak=0.0), 0, atol=1e-12)
    assert doppler_response(np.array(2.0), np.array(2.0), leak=0.0) == pytest.approx(1.0, abs=1e-6)


def test_static_parts_are_missed_more_often_than_moving_ones():
    radar, room = Radar(leak=0.0, lost=0.0, mount_spread=0.0), room_of(0, "E01")

    def mean_count(speed):
        frames = measure_points(pendulum(speed), room, radar, 0.01, 10, np.random.default_rng(0))
        return np.mean([len(points) for points in frames])

    assert mean_count(0.0) < 0.2 * mean_count(0.6)


def test_the_echo_is_linear_in_the_amplitude():
    radar = Radar()
    single, double = (signal_cube(one_scatterer(amplitude=a), radar) for a in (0.1, 0.2))
    np.testing.assert_allclose(2 * single, double)


def test_scatterers_out_of_reach_leave_the_cube_empty():
    assert not signal_cube(one_scatterer(distance=9.0), Radar()).any()


def test_a_ghost_is_weaker_and_farther():
    ghost = floor_ghosts(one_scatterer(up=-0.1), height=1.0, reflection=0.5)
    assert ghost.range[0, 0] > 2.5
    assert ghost.amplitude[0, 0] < 0.05
    assert ghost.up[0, 0] < -0.1


def test_columns_and_mount_are_options():
    body, room = pendulum(0.6), room_of(0, "E01")
    names = ("doppler", "intensity", "z", "y", "x")
    usual, turned = (
        np.concatenate(measure_points(body, room, radar, 0.01, 10, np.random.default_rng(0)))
        for radar in (Radar(), Radar(columns=names))
    )
    np.testing.assert_array_equal(usual[:, [4, 3, 2, 1, 0]], turned)
    assert (usual[:, 3] > 0).all()
    assert (usual[:, 4] < 0).any()


def test_columns_that_are_not_the_five_are_refused():
    with pytest.raises(ValueError, match="once each"):
        Radar(columns=("x", "y", "z", "doppler", "doppler"))
