"""Which clips train and which validate: protocols P1-P3, splits S1-S3, and a part held out for selection.

Source of protocols and splits: the public toolbox of the data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from examples.mmfi.layout import ClipId

ACTIONS = tuple(f"A{number:02d}" for number in range(1, 28))
SUBJECTS = tuple(f"S{number:02d}" for number in range(1, 41))
SCENES = ("E01", "E02", "E03", "E04")
_DAILY = (2, 3, 4, 5, 13, 14, 17, 18, 19, 20, 21, 22, 23, 27)

PROTOCOLS: dict[str, tuple[str, ...]] = {
    "P1": tuple(f"A{number:02d}" for number in _DAILY),
    "P2": tuple(f"A{number:02d}" for number in range(1, 28) if number not in _DAILY),
    "P3": ACTIONS,
}
SPLITS = ("S1", "S2", "S3")


class Split(NamedTuple):
    """Clips to train on and clips to validate on, each sorted."""

    train: tuple[ClipId, ...]
    validation: tuple[ClipId, ...]


def scene_of(subject: str) -> str:
    """Scene in which a subject was recorded: ten subjects each, in order.

    Raises:
        ValueError: There is no such subject.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"A subject should be one of S01 to S40. Got `{subject}`. Pass for example 'S07'.")
    return SCENES[SUBJECTS.index(subject) // 10]


def all_clips() -> tuple[ClipId, ...]:
    """Return the 1 080 clips of the complete data set."""
    return tuple(ClipId(scene_of(subject), subject, action) for subject in SUBJECTS for action in ACTIONS)


def random_validation_subjects(protocol: str) -> dict[str, frozenset[str]]:
    """Split S1: the eight validation subjects of every action, as the public toolbox draws them.

    The seed is the action's position in the protocol, so an action has other subjects in P3 than in P1.
    """
    _check("protocol", protocol, PROTOCOLS)
    return {
        action: frozenset(SUBJECTS[index] for index in np.random.RandomState(seed).permutation(40)[32:])
        for seed, action in enumerate(PROTOCOLS[protocol])
    }


def split_clips(clips: Iterable[ClipId], protocol: str, split: str) -> Split:
    """Divide clips into training and validation.

    Args:
        clips: The clips at hand, of any action; those outside the protocol are left out.
        protocol: `P1` (daily activities), `P2` (rehabilitation) or `P3` (all).
        split: `S1` (random subjects per action), `S2` (cross-subject: every fifth subject validates) or `S3`
            (cross-scene: the fourth scene validates).

    Raises:
        ValueError: The protocol or the split is unknown.
    """
    _check("protocol", protocol, PROTOCOLS)
    _check("split", split, SPLITS)
    drawn = random_validation_subjects(protocol)
    train: list[ClipId] = []
    validation: list[ClipId] = []
    for clip in sorted(clip for clip in clips if clip.action in drawn):
        held = {
            "S1": clip.subject in drawn[clip.action],
            "S2": clip.subject in SUBJECTS[4::5],
            "S3": clip.scene == SCENES[-1],
        }
        (validation if held[split] else train).append(clip)
    return Split(tuple(train), tuple(validation))


def hold_out(clips: Iterable[ClipId], share: float, seed: int) -> Split:
    """Set a part of the training clips aside, to choose an epoch or an option without the validation clips.

    A clip's rank is a digest of the seed and its name: the choice does not touch any random state, and a clip
    missing from a copy does not reshuffle the others.

    Args:
        clips: Training clips.
        share: Share of the clips to hold out, between 0 and 1; of two clips or more at least one is, and one kept.
        seed: Number of the draw.

    Raises:
        ValueError: `share` is not between 0 and 1, or there are not two clips.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` (`--held-out`) should be between 0 and 1. Got `{share}`. Pass for example 0.1.")
    ranked = sorted(clips, key=lambda clip: hashlib.blake2b(f"{seed}/{clip}".encode()).digest())
    if len(ranked) < 2:
        raise ValueError(
            f"There should be two training clips or more, to hold one out (`--held-out`). Got {len(ranked)}. Pack "
            "more clips of the protocol, or choose another protocol or split."
        )
    count = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    return Split(tuple(sorted(ranked[count:])), tuple(sorted(ranked[:count])))


def _check(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(f"`{name}` should be one of {', '.join(known)}. Got `{value}`.")
