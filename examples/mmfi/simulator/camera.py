"""RGB: what a 2D keypoint detector finds in the camera's picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmfi.simulator.body import JOINTS
from examples.mmfi.simulator.common import Array
from examples.mmfi.simulator.motion import Motion
from examples.mmfi.simulator.surface import Capsules, hidden

KEYPOINTS = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
"""The detector's points, in the order of COCO."""

# Where annotators of pictures see a joint, against the ground truth's joint (invented, plausible): metres to
# the subject's left (mirrored for right joints), down and away from the viewer. Face points: from the nose.
_FACE = {
    "nose": (0.0, 0.012, -0.105),
    "eye": (0.032, -0.022, -0.085),
    "ear": (0.075, -0.012, 0.0),
}
_OFFSETS = _FACE | {
    "shoulder": (0.012, -0.022, 0.0),
    "elbow": (0.012, 0.0, 0.0),
    "wrist": (0.0, 0.0, 0.0),
    "hip": (0.028, -0.035, 0.0),
    "knee": (-0.006, -0.012, -0.02),
    "ankle": (0.008, 0.010, 0.01),
}
_OWN_DEPTH = 0.14  # metres: a joint lies this deep inside its own limb at most


@dataclass(frozen=True)
class Camera:
    """The camera and the keypoint detector.

    Attributes:
        focal: Focal length in pixels.
        width: Picture width in pixels.
        height: Picture height in pixels.
        noise: Standard deviation of a visible keypoint, pixels.
        hidden_noise: The same for a keypoint hidden by the body.
        memory: Correlation of the detector's error from one frame to the next.
        habit: Standard deviation of a subject's own joint offsets (clothing, build), metres.
    """

    focal: float = 617.0
    width: int = 640
    height: int = 480
    noise: float = 2.5
    hidden_noise: float = 10.0
    memory: float = 0.5
    habit: float = 0.01


def _place_and_axes(name: str, motion: Motion) -> tuple[Array, Array]:
    """The joint that a keypoint belongs to, `[time, 3]`, and the axes of that part, `[time, 3, 3]`."""
    part = name.split("_")[-1]
    if part in _FACE:
        return motion.joints[:, JOINTS.index("nose")], motion.head
    axes = motion.chest if part in ("shoulder", "elbow", "wrist") else motion.heading
    return motion.joints[:, JOINTS.index(name)], axes


def keypoints_3d(motion: Motion, habit: Array) -> Array:
    """The points a detector aims at, `[time, 17, 3]`, metres; `habit` `[17, 3]` shifts them in body axes."""
    points = np.empty((len(motion.joints), len(KEYPOINTS), 3))
    for number, name in enumerate(KEYPOINTS):
        joint, axes = _place_and_axes(name, motion)
        mirror = (-1, 1, 1) if name.startswith("right") else (1, 1, 1)
        offset = np.multiply(_OFFSETS[name.split("_")[-1]], mirror) + habit[number]
        points[:, number] = joint + axes @ offset
    return points


def project(points: Array, camera: Camera) -> Array:
    """Pinhole projection of camera coordinates `[..., 3]` to pixels `[..., 2]` (right, down)."""
    centre = (camera.width / 2, camera.height / 2)
    return np.asarray(camera.focal * points[..., :2] / points[..., 2:] + centre)


def _correlated(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> Array:
    noise = rng.standard_normal(shape)
    for time in range(1, len(noise)):
        noise[time] = memory * noise[time - 1] + np.sqrt(1 - memory**2) * noise[time]
    return noise


def detect_keypoints(
    motion: Motion,
    body: Capsules,
    camera: Camera,
    subject_rng: np.random.Generator,
    clip_rng: np.random.Generator,
) -> Array:
    """Detected 2D keypoints `[time, 17, 2]` in pixels: projection, a systematic mismatch, and noise.

    Noise is larger where the body hides a joint and shrinks with the distance, as the subject does.
    """
    habit = camera.habit * subject_rng.standard_normal((len(KEYPOINTS), 3))
    points = keypoints_3d(motion, habit)
    unseen = hidden(np.zeros(3), points, body, _OWN_DEPTH)
    spread = np.where(unseen, camera.hidden_noise, camera.noise) * 3.0 / points[..., 2]
    noise = _correlated(clip_rng, (*points.shape[:2], 2), camera.memory)
    return project(points, camera) + spread[..., None] * noise
