"""Poses as joint angles in degrees, and their mirror images.

Conventions, for a subject who faces the camera: `lean` forward, `side` and `twist` to the subject's left,
`nod` forward, `lift` in centimetres above the ground. Per limb: `arm` and `leg` are elevations from hanging
down, in the vertical plane `plane` / `leg_plane` (0 forward, 90 outward, negative across the body); `roll`
turns the arm outward about its own axis; `elbow` and `knee` flex.
"""

from __future__ import annotations

Pose = dict[str, float]

TRUNK_ANGLES = ("lean", "side", "twist", "nod", "lift")
LIMB_ANGLES = ("arm", "plane", "roll", "elbow", "leg", "leg_plane", "knee")
ANGLES = TRUNK_ANGLES + tuple(f"{side}_{name}" for side in ("left", "right") for name in LIMB_ANGLES)
"""Every degree of freedom of a pose."""


def left(**limb: float) -> Pose:
    """A change of the left limbs: `left(arm=90)` is {"left_arm": 90}."""
    return {f"left_{name}": value for name, value in limb.items()}


def both(**limb: float) -> Pose:
    """The same change of the limbs on both sides."""
    return left(**limb) | {f"right_{name}": value for name, value in limb.items()}


def right(**limb: float) -> Pose:
    """A change of the right limbs."""
    return {f"right_{name}": value for name, value in limb.items()}


MIRROR = {"left": "right", "right": "left", "both": "both"}
"""What a side is called in a mirror."""


def mirror_pose(pose: Pose) -> Pose:
    """The pose seen in a mirror: left and right limbs change places, `side` and `twist` change sign."""
    mirrored: Pose = {}
    for name, value in pose.items():
        side, _, rest = name.partition("_")
        mirrored[f"{MIRROR[side]}_{rest}" if rest else name] = -value if name in ("side", "twist") else value
    return mirrored


REST: Pose = dict.fromkeys(TRUNK_ANGLES, 0.0) | both(arm=8, plane=80, roll=0, elbow=15, leg=4, leg_plane=90, knee=4)
"""Standing at ease; every pose is a change of it."""
