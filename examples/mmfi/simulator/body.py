"""Bodies: the 17-joint skeleton, bone vectors and girth of one subject, forward kinematics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmfi.simulator.common import Array

JOINTS = (
    "pelvis",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "spine",
    "thorax",
    "nose",
    "head",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
)
"""The ground truth's joints, in the order of Human3.6M."""

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""Index of each joint's parent; the pelvis has none."""

ANKLE_HEIGHT = 0.08
"""Metres from the floor to the ankle joint of a standing foot."""

# Metres, standing with hanging arms and facing the camera; lengths of one real ground-truth frame.
_LEFT_AND_MIDDLE = {
    "left_hip": (0.107, 0.0, 0.0),
    "left_knee": (0.0, 0.40, 0.0),
    "left_ankle": (0.0, 0.453, 0.0),
    "spine": (0.0, -0.301, 0.0),
    "thorax": (0.0, -0.301, 0.0),
    "nose": (0.0, -0.124, -0.022),
    "head": (0.0, -0.060, 0.030),
    "left_shoulder": (0.169, 0.062, 0.0),
    "left_elbow": (0.0, 0.249, 0.0),
    "left_wrist": (0.0, 0.25, 0.0),
}

# Standard deviations of body proportions between adults, as shares (invented, plausible).
_STATURE, _PROPORTION, _BREADTH, _GIRTH = 0.045, 0.03, 0.05, 0.10
_PART = dict.fromkeys(("hip", "shoulder"), "breadth")
_PART |= dict.fromkeys(("knee", "ankle"), "leg") | dict.fromkeys(("elbow", "wrist"), "arm")
_PART |= dict.fromkeys(("spine", "thorax", "nose", "head"), "trunk")


@dataclass(frozen=True)
class Body:
    """One subject's build.

    Attributes:
        bones: Vector from parent to joint at rest, `[17, 3]`, metres; the pelvis' is 0.
        girth: Factor on the radii of trunk and limbs.
    """

    bones: Array
    girth: float


def average_body() -> Body:
    """The body whose bone lengths are those of the one known real frame."""
    bones = np.zeros((len(JOINTS), 3))
    for name, vector in _LEFT_AND_MIDDLE.items():
        bones[JOINTS.index(name)] = vector
        if name.startswith("left_"):
            bones[JOINTS.index(name.replace("left", "right"))] = np.multiply(vector, (-1, 1, 1))
    return Body(bones, girth=1.0)


def draw_body(rng: np.random.Generator) -> Body:
    """A subject drawn around the average body: stature, proportions, breadth and girth differ."""
    spread = {"breadth": _BREADTH, "leg": _PROPORTION, "arm": _PROPORTION, "trunk": _PROPORTION}
    parts = {part: 1 + share * rng.standard_normal() for part, share in spread.items()}
    stature = 1 + _STATURE * rng.standard_normal()
    girth = stature * (1 + _GIRTH * rng.standard_normal())
    scale = [1.0] + [stature * parts[_PART[name.split("_")[-1]]] for name in JOINTS[1:]]
    return Body(average_body().bones * np.array(scale)[:, None], girth)


def forward_kinematics(bones: Array, orientations: Array) -> Array:
    """Place the joints of a skeleton whose pelvis is at the origin.

    Args:
        bones: Bone vectors at rest, `[17, 3]`.
        orientations: Global rotation of the bone that ends at each joint, `[time, 17, 3, 3]`.

    Returns:
        Joint positions `[time, 17, 3]`, in the unit of the bones.
    """
    vectors = np.einsum("tjab,jb->tja", orientations, bones)
    joints = np.zeros_like(vectors)
    for joint, parent in enumerate(PARENTS[1:], start=1):
        joints[:, joint] = joints[:, parent] + vectors[:, joint]
    return np.asarray(joints)
