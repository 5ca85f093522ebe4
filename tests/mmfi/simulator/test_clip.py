from dataclasses import fields

import numpy as np
import pytest

from examples.mmfi.protocols import scene_of
from examples.mmfi.simulator import Settings, simulate_clip
from examples.mmfi.simulator.actions import ACTIONS
from examples.mmfi.simulator.clip import perform

SMALL = Settings(frames=12)


@pytest.fixture(scope="module")
def sample():
    """One short clip of every action, each by another subject."""
    settings = Settings(frames=25)
    return [simulate_clip(f"S{3 * i % 40 + 1:02d}", action, settings) for i, action in enumerate(ACTIONS)]


def as_bytes(clip):
    return [np.concatenate(getattr(clip, field.name)).tobytes() for field in fields(clip)]


def test_shapes_and_types_are_those_on_disk():
    clip = simulate_clip("S02", "A03", SMALL)
    assert (clip.ground_truth.shape, clip.ground_truth.dtype) == ((12, 17, 3), np.float64)
    assert (clip.rgb.shape, clip.rgb.dtype) == ((12, 17, 2), np.float32)
    assert len(clip.lidar) == len(clip.mmwave) == 12
    assert all(points.shape[1:] == (3,) and points.dtype == np.float64 for points in clip.lidar)
    assert all(points.shape[1:] == (5,) and points.dtype == np.float64 for points in clip.mmwave)
    assert clip.csi_amplitude.shape == clip.csi_phase.shape == (12, 3, 114, 10)


def test_the_same_arguments_give_the_same_bytes():
    first = as_bytes(simulate_clip("S02", "A03", SMALL))
    simulate_clip("S05", "A04", SMALL)
    assert as_bytes(simulate_clip("S02", "A03", SMALL)) == first


@pytest.mark.parametrize(
    ("subject", "action", "settings"),
    [("S03", "A03", SMALL), ("S02", "A13", SMALL), ("S02", "A03", Settings(frames=12, seed=1))],
)
def test_another_subject_action_or_seed_gives_other_data(subject, action, settings):
    usual, other = simulate_clip("S02", "A03", SMALL), simulate_clip(subject, action, settings)
    assert all(a != b for a, b in zip(as_bytes(usual), as_bytes(other), strict=True))


def test_scenes_hold_ten_subjects_each():
    assert [scene_of(name) for name in ("S01", "S10", "S11", "S20", "S30", "S31", "S40")] == [
        *("E01", "E01", "E02", "E02", "E03", "E04", "E04")
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate_clip("S41", "A01", SMALL), "S01 to S40"),
        (lambda: simulate_clip("s1", "A01", SMALL), "S01 to S40"),
        (lambda: simulate_clip("S01", "A28", SMALL), "A01 to A27"),
        (lambda: Settings(frames=0), "`frames` should be positive"),
        (lambda: Settings(seed=-1), "`seed` should not be negative"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_lidar_point_counts(sample):
    """1 000 to 3 000 points, of which 100 to 300 on the person."""
    mount = Settings().lidar.mount
    counts, on_body = [], []
    for clip in sample:
        for points, joints in zip(clip.lidar[::5], mount.to_sensor(clip.ground_truth[::5]), strict=True):
            distance = np.linalg.norm(points[:, None] - joints, axis=-1).min(axis=1)
            counts.append(len(points))
            on_body.append(np.sum(distance < 0.22))
    assert 1000 < np.percentile(counts, 5) < np.percentile(counts, 95) < 3000
    assert 100 < np.mean(on_body) < 300


def test_radar_statistics(sample):
    """Against the real radar of MARS, and 10 to 30 points of single MM-Fi frames."""
    counts = np.array([len(points) for clip in sample for points in clip.mmwave])
    points = np.concatenate([points for clip in sample for points in clip.mmwave])
    intensity, doppler = points[:, 3], points[:, 4]
    assert 10 < np.median(counts) < 30
    assert 10 < counts.mean() < 40
    assert np.percentile(counts, 5) <= 13
    assert counts.max() == 64
    assert np.mean(counts == 0) < 0.05
    np.testing.assert_allclose(doppler / 0.356, np.round(doppler / 0.356), atol=1e-9)
    assert np.mean(doppler == 0) == pytest.approx(0.20, abs=0.08)
    assert np.percentile(np.abs(doppler), 99) < 1.5  # MARS: 1.07, without kicks and jumps
    assert np.median(intensity) == pytest.approx(20, rel=0.25)
    assert np.percentile(intensity, 99) == pytest.approx(260, rel=0.35)


def test_csi_statistics(sample):
    """A sister data set has mean 42.3 dB and standard deviation 5."""
    values = np.concatenate([clip.csi_amplitude.ravel() for clip in sample])
    finite = values[np.isfinite(values)]
    assert finite.mean() == pytest.approx(42.3, abs=2)
    assert finite.std() == pytest.approx(5, abs=1.5)
    assert 0 < np.mean(~np.isfinite(values)) < 0.01


def test_keypoints_are_in_the_picture_and_near_the_projected_joints(sample):
    pixels = np.concatenate([clip.rgb for clip in sample])
    truth = np.concatenate([clip.ground_truth for clip in sample])
    inside = (pixels > 0) & (pixels < (640, 480))
    assert inside.mean() > 0.97
    wrist = truth[:, 13]
    projected = 617 * wrist[:, :2] / wrist[:, 2:] + (320, 240)
    assert np.median(np.linalg.norm(pixels[:, 9] - projected, axis=-1)) < 10


def test_the_mean_pose_is_wrong_by_as_much_as_on_real_data():
    """Real WiFi models, hardly better than the mean pose, err by 167 to 198 mm; one action: 127."""

    def poses(action, subjects):
        settings = Settings(frames=60)
        return np.stack([perform(f"S{i:02d}", action, settings).every(10).joints for i in subjects])

    def error(prediction, target):
        return np.linalg.norm(prediction - target, axis=-1).mean()

    known, held_out = (np.stack([poses(action, part) for action in ACTIONS]) for part in ((1, 2, 3, 4), (9, 10)))
    assert 0.15 < error(known.mean(axis=(0, 1, 2)), held_out) < 0.24
    by_action = [error(mine.mean(axis=(0, 1)), other) for mine, other in zip(known, held_out, strict=True)]
    assert 0.09 < np.median(by_action) < 0.2
