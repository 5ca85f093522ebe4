"""A verdict in plain sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awc_balance.calibration.limits import LEARNABLE, LEAST_BORNE_OUT, NEGLIGIBLE
from awc_balance.wording import interval, listed, number, percent, percents

if TYPE_CHECKING:
    from awc_balance.calibration.judgement import Estimate, Judgement, Verdict

_TRY_ALONE = "try what it tells when it is learned alone, by `train_alone` (`diagnose --alone`)"
_UNKNOWN = "cannot tell from this much data"
_LITTLE = f"less than {percent(NEGLIGIBLE)} of what the model explains"


def sentences(verdict: Verdict) -> list[str]:
    """What a reader should know, the verdict first; every claim with its number and 95 % interval."""
    if not verdict.learned:
        return [_not_learned(verdict), *_whole(verdict)]
    return [
        _verdict(verdict),
        *_starved(verdict),
        *_overfitting(verdict),
        *_idle(verdict),
        *(_unclear(one) for one in verdict.judgements if "unclear" in (one.overfits, one.idle, one.starved)),
        *_whole(verdict),
    ]


def _not_learned(verdict: Verdict) -> str:
    names = listed(one.modality for one in verdict.judgements)
    return (
        f"Verdict: cannot tell. The model has not learned what it could be judged by: it should explain at least "
        f"{percent(NEGLIGIBLE)} of its own training data. In doubt: {names}. Train it, or look for the fault in the "
        "training or in what is loaded."
    )


def _verdict(verdict: Verdict) -> str:
    return f"Verdict: {_HEADLINES[verdict.kind](verdict)}"


def _balanced(verdict: Verdict) -> str:
    if len(verdict.judgements) == 1:
        return "balanced. There is only one modality, so there is nothing to balance."
    return "balanced. Every modality is made use of, and none is trusted more than held-out data bear out."


def _overfits(verdict: Verdict) -> str:
    several, names = len(verdict.modalities) > 1, listed(verdict.modalities)
    it, they = ("them", "overfit") if several else ("it", "overfits")
    return f"{names} {they}: hold {it} back."


def _starves(verdict: Verdict) -> str:
    names = listed(verdict.modalities)
    return f"{names} starves {listed(one.modality for one in verdict.named('starved'))}: hold {names} back."


def _can_be_left_out(verdict: Verdict) -> str:
    be = "is" if len(verdict.modalities) == 1 else "are"
    return f"{listed(verdict.modalities)} {be} idle. {_droppable(verdict)}"


def _cannot_tell(verdict: Verdict) -> str:
    if _all_of_it_overfits(verdict):
        return f"cannot tell who is to blame: the model as a whole overfits. In doubt: {listed(verdict.modalities)}."
    return f"{_UNKNOWN}. In doubt: {listed(verdict.modalities)}."


_HEADLINES: dict[str, Callable[[Verdict], str]] = {
    "balanced": _balanced,
    "overfits": _overfits,
    "starves": _starves,
    "idle": _can_be_left_out,
    "cannot tell": _cannot_tell,
}


def _droppable(verdict: Verdict) -> str:
    """What can be left out, as in "a and b can be left out." or "Either a or b can be left out, not both."."""
    sets = [listed(one.modality for one in verdict.judgements if one.modality in some) for some in verdict.droppable]
    if len(sets) == 1:
        return f"Leave out {sets[0]}: {_LITTLE} is lost."
    both = len(sets) == 2 and all(len(some) == 1 for some in verdict.droppable)
    return (
        f"Either {listed(sets, 'or')} can be left out, not {'both' if both else 'more at once'}: what the one tells, "
        "the others tell too."
    )


def _starved(verdict: Verdict) -> list[str]:
    found = []
    for one in verdict.named("starved"):
        if one.alone is not None and one.alone.added.low > LEARNABLE:
            reason = (
                f"features that were learned on it alone lower the error that is left by {_share(one.alone.added)}, "
                "beside all that are here"
            )
        else:
            reason = f"its features predict {_share(one.unused)} of the error that is left"
        found.append(f"{one.modality} is not made use of: {reason}. If it is not starved, it needs longer training.")
    return found


def _overfitting(verdict: Verdict) -> list[str]:
    found = []
    for one in verdict.named("overfits"):
        reference = one.excess.reference
        found.append(
            f"{one.modality} overfits: held-out data bear out a factor of {number(one.slope)} of its part, training "
            f"data {number(reference)}; the difference is {number(one.excess.value)} "
            f"{interval((one.excess.low, one.excess.high))}, the part {percent(one.share)} of the prediction's size."
        )
    return found


def _idle(verdict: Verdict) -> list[str]:
    idle = verdict.named("idle")
    found = [
        f"{one.modality} is idle: without it {_share(one.lost)} of what the model explains is lost, an expected change "
        f"of the error by {_share(one.cost)}. That is what a new head makes of the other features as they are; "
        f"a training without {one.modality} may do better.{_apart(one)}"
        for one in idle
    ]
    if idle and verdict.kind != "idle":
        found.append(_droppable(verdict))
    unknown = [one.modality for one in idle if one.alone is None]
    if unknown:
        found.append(
            f"Whether {listed(unknown, 'or')} could tell more in another training, one run cannot say: {_TRY_ALONE}."
        )
    return found


def _apart(one: Judgement) -> str:
    if one.alone is None:
        return ""
    return (
        f" Learned alone, it explains {_share(one.alone.explained)} of the variance, and lowers the error that "
        f"is left by {_share(one.alone.added)}."
    )


def _unclear(one: Judgement) -> str:
    parts = []
    if one.overfits == "unclear":
        parts.append(
            f"overfits (too large by {number(one.excess.value)} {interval((one.excess.low, one.excess.high))})"
        )
    if one.idle == "unclear":
        parts.append("is idle" + ("" if one.lost is None else f" (lost without it: {_share(one.lost)})"))
    if one.starved == "unclear":
        parts.append(
            "is starved" + ("" if one.unused is None else f" (error its features predict: {_share(one.unused)})")
        )
    remedy = "Measure on more held-out data"
    if one.starved == "unclear":
        remedy += f", or {_TRY_ALONE}"
    return f"Whether {one.modality} {listed(parts, 'or')}: {_UNKNOWN}. {remedy}."


def _whole(verdict: Verdict) -> list[str]:
    """How good the model is as it is."""
    training, held_out = verdict.explained_in_training, verdict.explained
    said = []
    shares = [
        f"{_share(some)} on {name} data"
        for name, some in (("training", training), ("held-out", held_out))
        if some is not None
    ]
    if shares:
        said.append(f"The model's loss lies below that of a constant prediction by {listed(shares)}.")
    if verdict.whole_interval is None:
        return [*said, "There are too few held-out samples for intervals: nothing about them can be told. Use more."]
    much = ""
    if _all_of_it_overfits(verdict):
        much = " Less than half of it holds there: weight decay, fewer epochs or more data come before any balance."
    borne_out = f"{number(verdict.whole)} {interval(verdict.whole_interval)}"
    return [*said, f"Held-out data bear out a factor of {borne_out} of the whole prediction.{much}"]


def _all_of_it_overfits(verdict: Verdict) -> bool:
    ends = verdict.whole_interval
    return verdict.learned and ends is not None and ends[1] < LEAST_BORNE_OUT


def _share(estimate: Estimate | None) -> str:
    return "an unknown share" if estimate is None else percents(estimate.value, (estimate.low, estimate.high))
