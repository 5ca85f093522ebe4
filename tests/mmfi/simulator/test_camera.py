import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi.simulator.body import JOINTS
from examples.mmfi.simulator.camera import KEYPOINTS, Camera, detect_keypoints, keypoints_3d, project
from examples.mmfi.simulator.clip import Settings, body_of, perform
from examples.mmfi.simulator.surface import capsules

SHARED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@pytest.fixture(scope="module")
def motion():
    return perform("S03", "A13", Settings(frames=20)).every(10)


def test_the_points_are_the_17_of_coco_left_before_right():
    assert len(KEYPOINTS) == 17
    assert KEYPOINTS[:5] == ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    assert KEYPOINTS[5:7] == ("left_shoulder", "right_shoulder")
    assert KEYPOINTS[-1] == "right_ankle"


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1, 5))
def test_a_pixel_and_its_depth_give_the_point_back(x, y, z):
    camera = Camera()
    u, v = project(np.array([x, y, z]), camera)
    np.testing.assert_allclose([(u - 320) * z / 617, (v - 240) * z / 617], [x, y], atol=1e-12)


def test_detection_without_noise_is_the_projection(motion):
    body = capsules(body_of(0, "S03"), motion)
    rng = np.random.default_rng
    found = detect_keypoints(motion, body, Camera(noise=0, hidden_noise=0, habit=0), rng(0), rng(1))
    np.testing.assert_allclose(found, project(keypoints_3d(motion, np.zeros((17, 3))), Camera()))


def test_keypoints_lie_near_but_not_on_the_ground_truth(motion):
    points = keypoints_3d(motion, np.zeros((17, 3)))
    for number, name in enumerate(KEYPOINTS):
        if name.split("_")[-1] in SHARED:
            offset = np.linalg.norm(points[:, number] - motion.joints[:, JOINTS.index(name)], axis=-1)
            assert offset.max() < 0.06
    assert np.abs(points[:, 11] - motion.joints[:, JOINTS.index("left_hip")]).max() > 0.02


def test_left_keypoints_are_at_the_right_of_the_picture(motion):
    pixels = project(keypoints_3d(motion, np.zeros((17, 3))), Camera()).mean(axis=0)
    for left, right in zip(range(1, 17, 2), range(2, 17, 2), strict=True):
        assert pixels[left, 0] > pixels[right, 0]


def test_hidden_joints_are_noisier(motion):
    still = perform("S03", "A13", Settings(frames=200)).every(10)
    body = capsules(body_of(0, "S03"), still)
    rng = np.random.default_rng
    truth = project(keypoints_3d(still, np.zeros((17, 3))), Camera())
    clear = detect_keypoints(still, body, Camera(habit=0), rng(0), rng(1)) - truth
    assert clear.std() == pytest.approx(2.5, rel=0.3)
    wall = capsules(body_of(0, "S03"), still)
    for ends in (wall.first, wall.second):
        ends[..., 2] -= 1.0  # the same body stands in the way
    hidden_error = detect_keypoints(still, wall, Camera(habit=0), rng(0), rng(1)) - truth
    assert hidden_error.std() > 1.5 * clear.std()
