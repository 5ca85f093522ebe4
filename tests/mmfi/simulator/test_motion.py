import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi.simulator.actions import ACTIONS
from examples.mmfi.simulator.body import (
    ANKLE_HEIGHT,
    JOINTS,
    PARENTS,
    average_body,
    draw_body,
    forward_kinematics,
)
from examples.mmfi.simulator.common import FLOOR
from examples.mmfi.simulator.motion import draw_style, key_angles, move, orientations, smooth_noise
from examples.mmfi.simulator.poses import ANGLES, REST, mirror_pose
from examples.mmfi.simulator.rotations import about_x, about_y, about_z

WAVE = {"left_arm": 90, "left_plane": 90, "left_elbow": 90, "left_roll": 90}
TIMES = np.arange(0, 6, 0.01)


def perform(action, seed=0):
    rng = np.random.default_rng(seed)
    return move(ACTIONS[action], draw_body(rng), draw_style(rng, rng), TIMES, rng)


def joints_of(pose):
    angles = {name: np.array([value]) for name, value in (REST | pose).items()}
    turned = orientations(angles, np.zeros(1))
    return dict(zip(JOINTS, forward_kinematics(average_body().bones, turned)[0], strict=True))


def bone_lengths(joints):
    return np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)


@given(st.floats(-10, 10), st.sampled_from([about_x, about_y, about_z]))
def test_a_rotation_is_orthogonal_and_proper(angle, about):
    matrix = about(np.array(angle))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0)


@pytest.mark.parametrize("action", ACTIONS)
def test_bone_lengths_are_constant_over_a_clip(action):
    lengths = bone_lengths(perform(action).joints)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-12)


def test_the_average_body_has_the_bones_of_the_known_real_frame():
    lengths = np.linalg.norm(average_body().bones, axis=-1)
    known = {"right_hip": 0.107, "right_knee": 0.40, "left_ankle": 0.453, "spine": 0.301, "thorax": 0.301}
    known |= {"nose": 0.126, "head": 0.067, "left_shoulder": 0.18, "right_elbow": 0.249, "left_wrist": 0.25}
    for name, length in known.items():
        assert lengths[JOINTS.index(name)] == pytest.approx(length, abs=0.003)


def test_bodies_differ():
    lengths = [np.linalg.norm(draw_body(np.random.default_rng(seed)).bones, axis=-1) for seed in range(20)]
    assert np.all(np.std(lengths, axis=0)[1:] > 0.002)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_lower_foot_stands_on_the_floor(action):
    ankles = perform(action).joints[:, [JOINTS.index("left_ankle"), JOINTS.index("right_ankle")], 1]
    height = FLOOR - ANKLE_HEIGHT - ankles.max(axis=1)
    assert height.min() > -1e-9
    assert height.max() < (0.4 if action == "A26" else 0.05)


def test_a_subject_facing_the_camera_has_the_left_side_at_the_right_of_the_picture():
    joints = joints_of({})
    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        assert joints[f"left_{part}"][0] > 0 > joints[f"right_{part}"][0]


@pytest.mark.parametrize(
    ("pose", "joint", "origin", "axis", "sign"),
    [
        ({"left_arm": 90, "left_plane": 0}, "left_elbow", "left_shoulder", 2, -1),
        ({"left_arm": 90, "left_plane": 90}, "left_elbow", "left_shoulder", 0, +1),
        ({"right_arm": 90, "right_plane": 90}, "right_elbow", "right_shoulder", 0, -1),
        ({"left_arm": 175}, "left_elbow", "left_shoulder", 1, -1),
        ({"left_arm": 0, "left_elbow": 90}, "left_wrist", "left_elbow", 2, -1),
        (WAVE, "left_wrist", "left_elbow", 1, -1),
        ({"left_leg": 0, "left_knee": 90}, "left_ankle", "left_knee", 2, +1),
        ({"right_leg": 80, "right_leg_plane": 0}, "right_knee", "right_hip", 2, -1),
        ({"lean": 60}, "thorax", "pelvis", 2, -1),
        ({"side": 60}, "thorax", "pelvis", 0, +1),
        ({"twist": 80}, "left_shoulder", "right_shoulder", 2, +1),
        ({"nod": 60}, "nose", "thorax", 2, -1),
    ],
)
def test_an_angle_moves_its_limb_the_way_it_says(pose, joint, origin, axis, sign):
    joints = joints_of(pose)
    vector = joints[joint] - joints[origin]
    assert sign * vector[axis] > 0.6 * np.linalg.norm(vector)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_mirrored_pose_is_the_mirror_image(action):
    for pose in ACTIONS[action].keys:
        joints, mirrored = joints_of(pose), joints_of(mirror_pose(pose))
        for name, place in joints.items():
            side, _, part = name.rpartition("_")
            other = f"{ {'left': 'right', 'right': 'left'}[side] }_{part}" if side else name
            np.testing.assert_allclose(mirrored[other], place * (-1, 1, 1), atol=1e-12)


def test_key_poses_name_known_angles_only():
    assert all(set(pose) <= set(ANGLES) for action in ACTIONS.values() for pose in action.keys)
    assert set(REST) == set(ANGLES)


@pytest.mark.parametrize("dwell", [0.0, 0.3])
def test_key_poses_are_met_and_repeat(dwell):
    action = ACTIONS["A06"]
    phase = np.arange(2 * len(action.keys)) / len(action.keys)
    angles = key_angles(action, phase, dwell)
    expected = [[(REST | pose)[name] for name in ANGLES] for pose in action.keys]
    np.testing.assert_allclose(angles, expected + expected, atol=1e-9)


def test_motion_is_smooth():
    for action in ACTIONS:
        velocity = np.diff(perform(action).joints, axis=0) / 0.01
        assert np.abs(velocity).max() < 9  # metres per second
        assert np.abs(np.diff(velocity, axis=0)).max() < 1.5  # 150 m/s^2 at 100 Hz


def test_the_27_actions_differ_by_more_than_one_subject_s_repetitions():
    def spread(action, seed):
        joints = perform(action, seed).joints
        relative = joints - joints[:, :1]
        return np.concatenate([relative.mean(axis=0).ravel(), relative.std(axis=0).ravel()])

    features = np.array([[spread(action, seed) for action in ACTIONS] for seed in (1, 2)])
    distance = np.linalg.norm(features[0][:, None] - features[0], axis=-1)
    assert np.min(distance[~np.eye(27, dtype=bool)]) > 0.05
    nearest = np.linalg.norm(features[0][:, None] - features[1], axis=-1).argmin(axis=1)
    assert np.mean(nearest == np.arange(27)) > 0.6


def test_subjects_perform_the_same_action_differently():
    assert np.abs(perform("A12", 1).joints - perform("A12", 2).joints).mean() > 0.03


def test_joints_stay_where_the_real_ones_are():
    joints = np.concatenate([perform(action, seed).joints for seed, action in enumerate(ACTIONS)])
    x, y, z = np.moveaxis(joints, -1, 0)
    assert np.percentile(np.abs(x), 99.5) < 1.1
    assert y.min() > -1.5  # hands overhead
    assert y.max() < FLOOR
    assert z.min() > 1.7
    assert z.max() < 4.0


def test_slow_noise_has_unit_variance():
    noise = smooth_noise(np.random.default_rng(0), np.arange(0, 100, 0.1), 200)
    assert noise.std() == pytest.approx(1.0, rel=0.05)
