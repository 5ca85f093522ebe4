"""What is tried: a `Condition` says whom to hold back, how, how hard, how long, and towards what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GROUPS = ("superior", "inferior", "both")
"""Beside each modality alone."""
STRENGTHS = {
    ("fisher", "epoch"): (3.0, 100.0, 3000.0),
    ("fisher", "init"): (3.0, 100.0, 3000.0),
    ("fisher", "zero"): (0.01, 0.3, 10.0),
    ("plain", "epoch"): (1.0, 30.0, 1000.0),
    ("plain", "init"): (1.0, 30.0, 1000.0),
    ("plain", "zero"): (0.003, 0.1, 3.0),
    ("sized", "zero"): (0.003, 0.1, 3.0),
    ("slow", ""): (0.3, 0.1, 0.03),
    ("freeze", ""): (0.0,),
}
"""From weak to strong, by the way to hold back and the anchor: from next to nothing to next to freezing.

Parameters are far from zero and close to where they were a moment ago, so that a pull to zero needs smaller numbers.
For "slow" these are factors of the update; "freeze" has none.
"""
WINDOWS = (0.2, 0.4, 1.0)
"""Shares of the epochs, from the first."""


@dataclass(frozen=True)
class Condition:
    """A way to train.

    Attributes:
        whom: One of `GROUPS`, a modality, or "nobody".
        how: "fisher", a Fisher-weighted pull; "plain", a pull; "sized", a pull of what sets the size of the features;
            "slow", a factor on the update; or "freeze".
        strength: Of the pull, or the factor.
        window: Share of the epochs, from the first, in which it lasts.
        anchor: Of a pull: "epoch", the parameters at the epoch's start; "init", the initial ones; "zero", which is a
            weight decay of that encoder alone. "" for the others.
    """

    whom: str = "nobody"
    how: str = "nothing"
    strength: float = 0.0
    window: float = 0.0
    anchor: str = ""

    @property
    def way(self) -> str:
        """Everything but whom."""
        towards = f" to {self.anchor}" if self.anchor else ""
        strength = "" if self.how == "freeze" else f" {self.strength:g}"
        return f"{self.how}{towards}{strength}, {100 * self.window:g} %"


NOBODY = Condition()
CORE = (("plain", "zero", 1.0), ("fisher", "epoch", 0.4))
"""Ways, anchors and windows that every cell has, at the middle strength: the simplest, and the paper's."""
USUAL = (*CORE, ("plain", "epoch", 0.4), ("slow", "", 0.4), ("freeze", "", 0.4))
"""Every way with its usual anchor and window."""


def middle(how: str, anchor: str) -> float:
    """The middle strength."""
    values = STRENGTHS[how, anchor]
    return values[len(values) // 2]


def core(modalities: Sequence[str]) -> list[Condition]:
    """Nobody; superior, inferior, and each modality alone, with two ways."""
    return [NOBODY] + [
        Condition(who, how, middle(how, anchor), window, anchor)
        for how, anchor, window in CORE
        for who in (*GROUPS[:2], *modalities)
    ]


def ways(modalities: Sequence[str]) -> list[Condition]:
    """The same with every other way, at the middle strength."""
    return [
        Condition(who, how, middle(how, anchor), window, anchor)
        for how, anchor, window in USUAL
        for who in (*GROUPS[:2], *modalities)
        if (how, anchor, window) not in CORE
    ]


def sized(modalities: Sequence[str]) -> list[Condition]:
    """The pull of the calibration rule on each modality alone, at the middle strength."""
    return [Condition(who, "sized", middle("sized", "zero"), 1.0, "zero") for who in (*GROUPS[:2], *modalities)]


def strengths(_: Sequence[str]) -> list[Condition]:
    """Superior modalities, inferior ones, and then all with every strength of every way."""
    return [
        Condition(who, how, strength, window, anchor)
        for groups in (GROUPS[:2], GROUPS[2:])
        for how, anchor, window in USUAL
        for strength in STRENGTHS[how, anchor]
        for who in groups
    ]


def windows(_: Sequence[str]) -> list[Condition]:
    """Superior and inferior modalities with other windows, or with other anchors, at the middle strength."""
    usual = {(how, anchor): window for how, anchor, window in USUAL}
    shown = [(how, anchor, window) for how, anchor in usual for window in WINDOWS]
    shown += [(how, anchor, 0.4) for how, anchor in STRENGTHS if (how, anchor) not in usual]
    return [
        Condition(who, how, middle(how, anchor), window, anchor) for how, anchor, window in shown for who in GROUPS[:2]
    ]


def full(modalities: Sequence[str]) -> list[Condition]:
    """The whole factorial."""
    return [NOBODY] + [
        Condition(who, how, strength, window, anchor)
        for who in (*GROUPS, *modalities)
        for (how, anchor), values in STRENGTHS.items()
        for window in WINDOWS
        for strength in values
    ]


PARTS = {"core": core, "ways": ways, "strengths": strengths, "windows": windows, "sized": sized, "full": full}
"""Fractions of the factorial, from modalities to conditions."""
