import numpy as np
import pytest

from examples.mmfi.simulator.clip import Settings, body_of, perform, room_of
from examples.mmfi.simulator.lidar import Lidar, body_distance, ray_angles, scan
from examples.mmfi.simulator.mount import Mount
from examples.mmfi.simulator.room import background_distance
from examples.mmfi.simulator.surface import Capsules, capsules, hit_distance

CLEAN = Lidar(noise=0.0, dropout=0.0)


@pytest.fixture(scope="module")
def body():
    return capsules(body_of(0, "S03"), perform("S03", "A12", Settings(frames=8)).every(10))


@pytest.fixture(scope="module")
def room():
    return room_of(0, "E01")


def rays(points):
    distance = np.linalg.norm(points, axis=-1)
    return points / distance[:, None], distance


def test_the_fast_tracing_of_near_rays_equals_tracing_them_all(body):
    azimuth, elevation = ray_angles(CLEAN)
    flat = np.cos(elevation)
    directions = np.stack([flat * np.sin(azimuth), -np.sin(elevation), flat * np.cos(azimuth)], axis=-1)
    origin = CLEAN.mount.position
    hits = hit_distance(origin, directions, body.first[:, None], body.second[:, None], body.radius)
    np.testing.assert_allclose(body_distance(origin, azimuth, elevation, body), hits.min(axis=-1))


def test_occluded_surfaces_give_no_points(body, room):
    """No surface, of the body or the room, lies in front of a returned point."""
    clouds = scan(body, room, CLEAN, np.random.default_rng(0))
    for frame, first, second in zip(clouds, body.first, body.second, strict=True):
        points = CLEAN.mount.to_camera(frame)
        directions, distance = rays(points - CLEAN.mount.position)
        hits = hit_distance(CLEAN.mount.position, directions, first, second, body.radius).min(axis=-1)
        assert np.all(hits >= distance - 1e-6)
        assert np.all(background_distance(room, CLEAN.mount.position, directions) >= distance - 1e-6)


def test_a_body_in_front_hides_the_one_behind(room):
    def standing(*depths):
        top = np.array([[[0.0, -0.8, depth] for depth in depths]])
        return Capsules(top, top + np.array([0.0, 1.5, 0.0]), np.full(len(depths), 0.15))

    near, both = (scan(body, room, CLEAN, np.random.default_rng(0))[0] for body in (standing(2.5), standing(2.5, 3.5)))
    behind = np.abs(both[:, 0] + 0.1 - 3.5) < 0.2
    assert np.sum(behind & (np.abs(both[:, 1]) < 0.15)) == 0
    assert len(near) == len(both)


def test_the_sensor_s_axes_are_forward_left_up():
    assert CLEAN.mount.to_sensor(np.array([1.0, 2.0, 3.0])).tolist() == pytest.approx([2.9, -1.0, -2.2])


def test_to_camera_inverts_to_sensor():
    for mount in (CLEAN.mount, Mount(("z", "x", "y"), (-0.2, 0.0, 0.2))):
        points = np.random.default_rng(0).standard_normal((5, 3))
        np.testing.assert_allclose(mount.to_camera(mount.to_sensor(points)), points, atol=1e-12)
        np.testing.assert_allclose(mount.to_sensor(mount.position), 0, atol=1e-12)


def test_axes_that_are_not_three_are_refused():
    with pytest.raises(ValueError, match="x, y and z once each"):
        Mount(("x", "x", "z"), (0, 0, 0))


def test_the_empty_room_is_the_same_at_every_instant(room):
    far = np.full((3, 1, 3), -50.0)
    first, second, third = scan(Capsules(far, far, np.array([0.1])), room, CLEAN, np.random.default_rng(0))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_points_lie_in_the_room(body, room):
    points = CLEAN.mount.to_camera(np.concatenate(scan(body, room, CLEAN, np.random.default_rng(0))))
    assert np.all((points > room.low - 1e-6) & (points < room.high + 1e-6))
