import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from examples.mmfi.simulator.surface import Capsules, hidden, hit_distance

coordinate = st.floats(-1, 1)


def distance_to_capsule(point, first, second, radius):
    along = second - first
    share = np.clip((point - first) @ along / max(along @ along, 1e-12), 0, 1)
    return np.linalg.norm(point - first - share * along) - radius


def march(origin, direction, first, second, radius):
    """Reference: walk along the ray by the distance to the surface."""
    travelled = 0.0
    for _ in range(5000):
        step = distance_to_capsule(origin + travelled * direction, first, second, radius)
        if step < 1e-7:
            return travelled
        travelled += step
        if travelled > 20:
            return np.inf
    return np.nan


@given(arrays(float, 3, elements=coordinate), arrays(float, 3, elements=coordinate), st.floats(0.05, 0.5))
def test_a_ray_meets_a_capsule_where_marching_meets_it(first, second, radius):
    origin = np.array([0.1, -0.2, -4.0])
    centre = (first + second) / 2
    for aim in (centre, first + 0.7 * radius, second - 0.5 * radius, centre + 1.5 * radius):
        direction = (aim - origin) / np.linalg.norm(aim - origin)
        found = hit_distance(origin, direction, first[None], second[None], np.array([radius]))[0]
        expected = march(origin, direction, first, second, radius)
        if np.isnan(expected) or np.isinf(found) != np.isinf(expected):
            # only a grazing ray may be decided either way
            steps = origin + np.linspace(2, 7, 4000)[:, None] * direction
            assert abs(min(distance_to_capsule(step, first, second, radius) for step in steps)) < 1e-3
        elif np.isfinite(found):
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_capsule_of_no_length_is_a_sphere():
    centre = np.array([[0.0, 0.0, 3.0]])
    found = hit_distance(np.zeros(3), np.array([0.0, 0.0, 1.0]), centre, centre, np.array([0.25]))
    np.testing.assert_allclose(found, [2.75])


def test_nothing_behind_the_origin_is_hit():
    first, second = np.array([[-1.0, 0.0, -3.0]]), np.array([[1.0, 0.0, -3.0]])
    assert np.isinf(hit_distance(np.zeros(3), np.array([0.0, 0.0, 1.0]), first, second, np.array([0.3])))


def test_points_behind_the_body_are_hidden_and_points_before_or_beside_it_are_not():
    body = Capsules(np.array([[[0.0, -0.5, 3.0]]]), np.array([[[0.0, 0.5, 3.0]]]), np.array([0.2]))
    points = np.array([[[0.0, 0.0, 3.5], [0.0, 0.0, 2.5], [0.4, 0.0, 3.0], [0.0, 0.0, 2.85]]])
    assert hidden(np.zeros(3), points, body, 0.1).tolist() == [[True, False, False, False]]
