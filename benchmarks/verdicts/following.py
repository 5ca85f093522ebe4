"""What comes of following a verdict: the model is trained again, without who is idle, or with others held back."""

from __future__ import annotations

from math import isfinite
from typing import Any

from awc_balance.calibration import Verdict
from benchmarks.verdicts.change import Change
from tests.diagnose.sets import Trained

LEFT_OUT = "left out"


def advised(verdict: Verdict) -> dict[str, Change]:
    """Ways to follow a verdict, by name, and what it is to be compared with.

    Of several that are idle those are left out that can be left out at once.
    """
    named = verdict.modalities
    if verdict.kind == "idle":
        fine = max((some for some in verdict.droppable if some <= set(named)), key=len, default=frozenset())
        return {LEFT_OUT: Change(without=tuple(sorted(fine)))} if fine else {}
    pull = {"held back by a pull": Change(held=named)}
    if verdict.kind == "overfits":
        return pull | {"trained with the rule": Change(rule=True), LEFT_OUT: Change(without=named)}
    return pull | {"trained twice as long": Change(times=2)} if verdict.kind == "starves" else {}


def follow(verdict: Verdict, plain: Trained, again: Any) -> dict[str, float | None]:  # noqa: ANN401 - untyped
    """By action, the change of the loss on new samples in per cent; None where the training diverged.

    Args:
        verdict: What is followed.
        plain: The model that it speaks of.
        again: From a `Change` to a model that is trained so, from the same initial parameters on the same data.
    """
    before = plain.error()
    return {action: _change(before, again, change) for action, change in advised(verdict).items()}


def _change(before: float, again: Any, change: Change) -> float | None:  # noqa: ANN401
    try:
        after = again(change).error()
    except ValueError as error:
        if not str(error).startswith("Parameters of encoders should be finite"):
            raise
        return None
    return 100 * (after / before - 1) if isfinite(after) else None
