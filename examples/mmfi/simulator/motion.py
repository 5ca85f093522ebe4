"""Motion: key poses, a subject's personal style and gravity's floor to joint positions over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmfi.simulator.actions import Action
from examples.mmfi.simulator.body import ANKLE_HEIGHT, JOINTS, Body, forward_kinematics
from examples.mmfi.simulator.common import FLOOR, Array
from examples.mmfi.simulator.poses import ANGLES, REST
from examples.mmfi.simulator.rotations import about_x, about_y, about_z

_ANKLES = {"left": [JOINTS.index("left_ankle")], "right": [JOINTS.index("right_ankle")]}
_ANKLES["both"] = _ANKLES["left"] + _ANKLES["right"]
_LIMITS = {"arm": (-60.0, 180.0), "elbow": (0.0, 150.0), "knee": (0.0, 140.0), "lift": (0.0, 60.0)}
_SOFT_CONTACT = 0.01  # metres over which the weight passes from one foot to the other


@dataclass(frozen=True)
class Style:
    """How one subject performs one action. Angles in degrees, indexed like `ANGLES`.

    Attributes:
        tempo: Factor on the speed.
        start: Share of a repetition done at the first frame.
        dwell: Share of the time between two key poses spent at rest.
        gain: Factor on each angle's departure from rest.
        posture: Offset of each angle.
        place: Where the subject stands, x and z in metres.
        yaw: Turn of the subject from facing the camera.
    """

    tempo: float
    start: float
    dwell: float
    gain: Array
    posture: Array
    place: Array
    yaw: float


def draw_style(subject_rng: np.random.Generator, clip_rng: np.random.Generator) -> Style:
    """Personal habits (the same in all clips of a subject) with the variation of one clip on top."""
    count = len(ANGLES)
    habit = subject_rng.standard_normal
    today = clip_rng.standard_normal
    return Style(
        tempo=float(np.exp(0.15 * habit() + 0.07 * today())),
        start=float(clip_rng.uniform()),
        dwell=float(subject_rng.uniform(0.0, 0.3)),
        gain=1.0 + 0.08 * habit() + 0.08 * habit(count) + 0.06 * today(count),
        posture=3.0 * habit(count) + 2.0 * today(count),
        place=np.array([0.0, 3.0]) + 0.05 * habit(2) + 0.03 * today(2),
        yaw=float(4.0 * habit() + 3.0 * today()),
    )


@dataclass(frozen=True)
class Motion:
    """A moving skeleton in camera coordinates, metres.

    Attributes:
        joints: `[time, 17, 3]`.
        head: Orientation of the head, `[time, 3, 3]`.
        chest: Orientation of the chest, `[time, 3, 3]`.
        heading: Orientation of the feet: the turn about the vertical only, `[time, 3, 3]`.
    """

    joints: Array
    head: Array
    chest: Array
    heading: Array

    def every(self, step: int) -> Motion:
        """The motion at every `step`-th instant."""
        return Motion(self.joints[::step], self.head[::step], self.chest[::step], self.heading[::step])


def smooth_noise(rng: np.random.Generator, times: Array, count: int) -> Array:
    """Slow, smooth noise of unit variance, `[time, count]`: a few random sinusoids below .4 Hz."""
    waves = 5
    frequency = rng.uniform(0.05, 0.4, (waves, count))
    phase = rng.uniform(0.0, 2 * np.pi, (waves, count))
    angle = 2 * np.pi * frequency * times[:, None, None] + phase
    return np.asarray(np.sqrt(2 / waves) * np.sin(angle).sum(axis=1))


def key_angles(action: Action, phase: Array, dwell: float) -> Array:
    """Angles `[time, len(ANGLES)]` in degrees at a phase in repetitions, eased between the key poses."""
    keys = np.array([[(REST | key)[name] for name in ANGLES] for key in action.keys])
    position = phase * len(keys)
    index = np.floor(position).astype(int)
    share = np.clip((position - index - dwell / 2) / (1 - dwell), 0.0, 1.0)
    ease = share**3 * (10 - 15 * share + 6 * share**2)  # no jump in velocity or acceleration
    before, after = keys[index % len(keys)], keys[(index + 1) % len(keys)]
    return np.asarray(before + ease[:, None] * (after - before))


def _limit(angles: dict[str, Array]) -> dict[str, Array]:
    return {
        name: np.clip(value, *_LIMITS.get(name.split("_", 1)[-1], (-180.0, 180.0))) for name, value in angles.items()
    }


def styled_angles(action: Action, style: Style, times: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Each angle over time in degrees, `[time]`, with tempo, amplitude and posture wandering slowly."""
    tempo, size, sway = np.split(smooth_noise(rng, times, 2 + len(ANGLES)), [1, 2], axis=1)
    rate = style.tempo / action.period * np.exp(0.1 * tempo[:, 0])
    phase = style.start + np.concatenate([[0.0], np.cumsum(rate[1:] * np.diff(times))])
    rest = np.array([REST[name] for name in ANGLES])
    departure = key_angles(action, phase, style.dwell) - rest
    posture = np.where([name == "lift" for name in ANGLES], 0.0, style.posture + 1.2 * sway)
    angles = rest + posture + style.gain * (1 + 0.06 * size) * departure
    return _limit(dict(zip(ANGLES, angles.T, strict=True)))


def _swing(plane: Array, elevation: Array) -> Array:
    return about_y(-plane) @ about_x(-elevation) @ about_y(plane)


def _trunk(angles: dict[str, Array], share: float) -> Array:
    twist, side, lean = (np.radians(share * angles[name]) for name in ("twist", "side", "lean"))
    return about_y(-twist) @ about_z(side) @ about_x(lean)


def orientations(angles: dict[str, Array], yaw: Array) -> Array:
    """Global rotation of the bone that ends at each joint, `[time, 17, 3, 3]`; `yaw` in radians, `[time]`."""
    heading = about_y(yaw)
    pelvis, waist, chest = (heading @ _trunk(angles, share) for share in (0.35, 0.6, 1.0))
    neck = chest @ about_x(np.radians(angles["nod"]))
    bones = {"pelvis": pelvis, "spine": waist, "thorax": chest, "nose": neck, "head": neck}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        limb = {name: np.radians(angles[f"{side}_{name}"]) for name in ("arm", "roll", "elbow", "leg", "knee")}
        arm_plane, leg_plane = (sign * np.radians(angles[f"{side}_{name}"]) for name in ("plane", "leg_plane"))
        upper_arm = chest @ _swing(arm_plane, limb["arm"]) @ about_y(-sign * limb["roll"])
        thigh = heading @ _swing(leg_plane, limb["leg"])
        bones |= {
            f"{side}_shoulder": chest,
            f"{side}_elbow": upper_arm,
            f"{side}_wrist": upper_arm @ about_x(-limb["elbow"]),
            f"{side}_hip": pelvis,
            f"{side}_knee": thigh,
            f"{side}_ankle": thigh @ about_x(limb["knee"]),
        }
    return np.stack([bones[name] for name in JOINTS], axis=1)


def _stand(joints: Array, support: str, place: Array, lift: Array) -> Array:
    """Move a skeleton so that its supporting feet stay in place and the lower foot is on the floor."""
    horizontal = joints[:, _ANKLES[support]][..., [0, 2]].mean(axis=1)
    ankles = joints[:, _ANKLES["both"], 1]
    lowest = _SOFT_CONTACT * np.logaddexp(*(ankles.T / _SOFT_CONTACT))
    shift = np.empty((len(joints), 3))
    shift[:, [0, 2]] = place - horizontal
    shift[:, 1] = FLOOR - ANKLE_HEIGHT - lowest - lift
    return joints + shift[:, None]


def move(action: Action, body: Body, style: Style, times: Array, rng: np.random.Generator) -> Motion:
    """Perform an action.

    Args:
        action: What to do.
        body: Who does it.
        style: How.
        times: Seconds, evenly spaced, `[time]`.
        rng: Source of the slow wandering within the clip.

    Returns:
        The motion; bone lengths are constant and the lower foot touches the floor unless the subject jumps.
    """
    angles = styled_angles(action, style, times, rng)
    wander = smooth_noise(rng, times, 3) * (0.012, 0.012, 1.0)
    yaw = np.radians(style.yaw + wander[:, 2])
    turned = orientations(angles, yaw)
    joints = forward_kinematics(body.bones, turned)
    aside = 0.0 if action.support == "both" else body.bones[JOINTS.index(f"{action.support}_hip"), 0]
    place = style.place + wander[:, :2] + aside * np.stack([np.cos(yaw), -np.sin(yaw)], axis=1)
    joints = _stand(joints, action.support, place, angles["lift"] / 100)
    index = JOINTS.index
    return Motion(joints, turned[:, index("head")], turned[:, index("thorax")], about_y(yaw))
