"""The 27 actions as cycles of key poses between which a body moves.

Names are those of the public toolbox; the movements are invented to fit the names.
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.mmfi.simulator.poses import MIRROR, Pose, both, left, mirror_pose, right


@dataclass(frozen=True)
class Action:
    """One action.

    Attributes:
        name: What the subject does.
        period: Seconds of one repetition at average tempo.
        keys: Key poses of one repetition, evenly spaced; what a pose does not name is as in `REST`.
        support: The foot that stays in place: "left", "right" or "both".
    """

    name: str
    period: float
    keys: tuple[Pose, ...]
    support: str = "both"


def _mirror(action: Action, name: str) -> Action:
    return Action(name, action.period, tuple(map(mirror_pose, action.keys)), MIRROR[action.support])


_STILL: Pose = {}
_HANDS_ON_HIPS = both(arm=40, plane=110, elbow=95, roll=-50)

_TWIST = Action(
    "Twist (left)",
    4.3,
    (both(arm=75, plane=35, elbow=80), both(arm=75, plane=35, elbow=80) | {"twist": 65}),
)
_LIMB_EXTENSION = Action(
    "Limb extension (left)",
    4.9,
    (_STILL, left(arm=95, plane=85, elbow=5, leg=38, leg_plane=85) | {"side": -8}),
    support="right",
)
_FRONT_LUNGE = Action(
    "Lunge (toward left-front)",
    5.4,
    (
        _HANDS_ON_HIPS,
        _HANDS_ON_HIPS | left(leg=62, leg_plane=30, knee=72) | right(leg=-25, leg_plane=10, knee=22) | {"lean": 8},
    ),
    support="right",
)
_SIDE_LUNGE = Action(
    "Lunge (toward left side)",
    5.4,
    (
        both(arm=60, plane=10, elbow=70),
        both(arm=85, plane=10, elbow=20)
        | left(leg=62, leg_plane=65, knee=75)
        | right(leg=38, leg_plane=92, knee=3)
        | {"lean": 22},
    ),
    support="right",
)
_RAISE_HAND = Action("Raising hand (left)", 4.1, (_STILL, left(arm=168, plane=15, elbow=8)))
_WAVE = Action(
    "Waving hand (left)",
    2.2,
    (
        left(arm=78, plane=80, elbow=85, roll=115),
        left(arm=88, plane=80, elbow=55, roll=75),
    ),
)
_THROW = Action(
    "Throwing (toward left side)",
    3.8,
    (
        _STILL,
        right(arm=95, plane=110, elbow=100, roll=70) | left(arm=45, plane=30) | {"twist": -35, "side": -8},
        right(arm=88, plane=-25, elbow=10) | left(arm=20, plane=110) | {"twist": 40, "lean": 15},
    ),
)
_KICK = Action(
    "Kicking (toward left side)",
    3.8,
    (
        left(leg=-15, leg_plane=0, knee=45) | both(arm=30, plane=80, elbow=40),
        left(leg=62, leg_plane=65, knee=8) | both(arm=45, plane=90, elbow=35) | {"side": -12, "lean": -5},
    ),
    support="right",
)
_BODY_EXTENSION = Action(
    "Body extension (left)",
    5.7,
    (
        both(leg=12),
        both(leg=12) | right(arm=165, plane=75, elbow=20) | left(arm=35, elbow=80, roll=-50) | {"side": 32},
    ),
)

ACTIONS: dict[str, Action] = {
    "A01": Action(
        "Stretching and relaxing",
        6.8,
        (
            _STILL,
            both(arm=172, plane=40, elbow=12) | {"lean": -12, "nod": -15},
            both(arm=95, plane=88, elbow=8),
        ),
    ),
    "A02": Action(
        "Chest expansion (horizontal)",
        4.1,
        (both(arm=84, plane=-5, elbow=115, roll=-60), both(arm=86, plane=100, elbow=8) | {"lean": -6}),
    ),
    "A03": Action(
        "Chest expansion (vertical)",
        4.1,
        (both(arm=-25, plane=0, elbow=8), both(arm=165, plane=12, elbow=10) | {"lean": -10}),
    ),
    "A04": _TWIST,
    "A05": _mirror(_TWIST, "Twist (right)"),
    "A06": Action(
        "Mark time",
        3.2,
        (
            left(leg=70, leg_plane=5, knee=85, arm=-25, plane=0) | right(arm=40, plane=0, elbow=40),
            _STILL,
            right(leg=70, leg_plane=5, knee=85, arm=-25, plane=0) | left(arm=40, plane=0, elbow=40),
            _STILL,
        ),
    ),
    "A07": _LIMB_EXTENSION,
    "A08": _mirror(_LIMB_EXTENSION, "Limb extension (right)"),
    "A09": _FRONT_LUNGE,
    "A10": _mirror(_FRONT_LUNGE, "Lunge (toward right-front)"),
    "A11": Action(
        "Limb extension (both)",
        4.6,
        (both(arm=60, plane=10, elbow=100), both(arm=130, plane=85, elbow=5, leg=24)),
    ),
    "A12": Action(
        "Squat", 4.9, (_STILL, both(leg=85, leg_plane=18, knee=108, arm=82, plane=5, elbow=8) | {"lean": 38})
    ),
    "A13": _RAISE_HAND,
    "A14": _mirror(_RAISE_HAND, "Raising hand (right)"),
    "A15": _SIDE_LUNGE,
    "A16": _mirror(_SIDE_LUNGE, "Lunge (toward right side)"),
    "A17": _WAVE,
    "A18": _mirror(_WAVE, "Waving hand (right)"),
    "A19": Action(
        "Picking up things",
        6.2,
        (
            _STILL,
            both(leg=42, leg_plane=8, knee=55) | right(arm=62, plane=0, elbow=5) | {"lean": 78, "nod": 15},
            right(arm=25, plane=0, elbow=95) | {"lean": 5},
        ),
    ),
    "A20": _THROW,
    "A21": _mirror(_THROW, "Throwing (toward right side)"),
    "A22": _KICK,
    "A23": _mirror(_KICK, "Kicking (toward right side)"),
    "A24": _BODY_EXTENSION,
    "A25": _mirror(_BODY_EXTENSION, "Body extension (right)"),
    "A26": Action(
        "Jumping up",
        3.8,
        (
            _STILL,
            both(leg=48, leg_plane=10, knee=65, arm=-30, plane=0, elbow=10) | {"lean": 30},
            both(arm=130, plane=25, elbow=20) | {"lift": 16},
            both(leg=32, leg_plane=10, knee=45, arm=25, plane=30) | {"lean": 18},
        ),
    ),
    "A27": Action("Bowing", 5.7, (_STILL, {"lean": 68, "nod": 18} | both(arm=20, plane=5, elbow=8))),
}
"""The actions by their folder's name (names: public toolbox)."""


def action_named(name: str) -> Action:
    """The action of a folder such as "A12".

    Raises:
        ValueError: If there is no such action.
    """
    if name not in ACTIONS:
        raise ValueError(f"An action should be one of A01 to A27. Got `{name}`. Pass for example 'A12'.")
    return ACTIONS[name]
