"""A verdict in plain sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.limits import LEAST_BORNE_OUT, NEGLIGIBLE
from awc_balance.calibration.parts import MOST_SHARED
from awc_balance.calibration.refit import LEAST_SAMPLES, MOST_NUMBERS
from awc_balance.wording import interval, listed, number, percent, percents

if TYPE_CHECKING:
    from awc_balance.calibration.judgement import Judgement, Verdict

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
        *_unclear(verdict),
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
    return f'{names} {they}: hold {it} back, as rule="calibration" does.'


def _starves(verdict: Verdict) -> str:
    names = listed(verdict.modalities)
    behind = listed(one.modality for one in verdict.named("starved"))
    return f"{names} starves {behind}: train longer, and hold {names} back if {behind} should stay behind."


def _can_be_left_out(verdict: Verdict) -> str:
    be = "is" if len(verdict.modalities) == 1 else "are"
    return f"{listed(verdict.modalities)} {be} idle. {_droppable(verdict)}"


def _cannot_tell(verdict: Verdict) -> str:
    doubted = f"In doubt: {listed(verdict.modalities)}."
    if _all_of_it_overfits(verdict):
        return f"cannot tell who is to blame: the model as a whole overfits. {doubted}"
    behind = [one.modality for one in verdict.named("starved")]
    if behind:
        return (
            f"cannot tell: {listed(behind)} {'is' if len(behind) == 1 else 'are'} not fully made use of, and nothing "
            f"larger holds {'it' if len(behind) == 1 else 'them'} down. Train longer, then ask again. {doubted}"
        )
    return f"{'cannot tell' if _unmeasured(verdict) else _UNKNOWN}. {doubted}"


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
    first = " Do first what the verdict says, then ask again." if verdict.kind in ("overfits", "idle") else ""
    return [f"{one.modality} is not fully made use of: {_left_in(one)}.{first}" for one in verdict.named("starved")]


def _left_in(one: Judgement) -> str:
    """What a modality could tell and does not."""
    found = [f"its features predict {_share(one.unused)} of the error that is left"]
    if one.alone is not None:
        found.append(f"features that were learned on it alone lower that error by {_share(one.alone)}")
    return "; ".join(found)


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
    if (
        verdict.droppable
        and verdict.kind not in ("idle", "starves")
        and {one.modality for one in idle} - {*verdict.modalities}
    ):
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
    if one.alone.value <= 0:
        return (
            f" Features learned on it alone would add nothing ({_share(one.alone)}): there is nothing to be learned, "
            "or so many epochs do not learn it."
        )
    return f" Features learned on it alone would lower the error by {_share(one.alone)}."


def _unclear(verdict: Verdict) -> list[str]:
    """Every question that is open, by modality; together what was not measured of any."""
    measured = not _unmeasured(verdict)
    found = [_open(one, measured=measured) for one in verdict.judgements]
    if not measured:
        names = listed((one.modality for one in verdict.judgements), "or")
        found.append(
            f"Whether {names} is idle or starved was not measured. That takes at most {MOST_SHARED} modalities, "
            f"{LEAST_SAMPLES} held-out samples or more, and predictions of up to {MOST_NUMBERS} numbers that are not "
            "maps of classes; and held-out data measured with `costs=True`."
        )
    return [sentence for sentence in found if sentence]


def _open(one: Judgement, *, measured: bool) -> str:
    parts = []
    if one.overfits == "unclear":
        parts.append(
            f"overfits (too large by {number(one.excess.value)} {interval((one.excess.low, one.excess.high))})"
        )
    if measured and one.idle == "unclear":
        parts.append("is idle" + ("" if one.lost is None else f" (lost without it: {_share(one.lost)})"))
    if measured and one.starved == "unclear":
        parts.append("is starved" + ("" if one.unused is None else f" ({_left_in(one)})"))
    remedy = "Measure on more held-out data"
    if measured and one.starved == "unclear":
        remedy += f", or {_TRY_ALONE}" if one.alone is None else ", or train longer"
    return f"Whether {one.modality} {listed(parts, 'or')}: {_UNKNOWN}. {remedy}." if parts else ""


def _unmeasured(verdict: Verdict) -> bool:
    """Whether nobody knows what is lost without a modality, though there are samples enough for slopes."""
    costs = [one.cost for one in verdict.judgements]
    return verdict.whole_interval is not None and len(costs) > 1 and all(cost is None for cost in costs)


def _whole(verdict: Verdict) -> list[str]:
    """How good the model is as it is."""
    training, held_out = verdict.explained_in_training, verdict.explained
    said = []
    known = [(name, some) for name, some in (("training", training), ("held-out", held_out)) if some is not None]
    if known:
        said.append(f"The model's loss lies {listed(_against_constant(name, some) for name, some in known)}.")
    if verdict.whole_interval is None:
        return [*said, "There are too few held-out samples for intervals: nothing about them can be told. Use more."]
    much = ""
    if _all_of_it_overfits(verdict):
        much = " Less than half of it holds there: weight decay, fewer epochs or more data come before any balance."
    borne_out = f"{number(verdict.whole)} {interval(verdict.whole_interval)}"
    return [*said, f"Held-out data bear out a factor of {borne_out} of the whole prediction.{much}"]


def _against_constant(name: str, share: Estimate) -> str:
    """How far the loss lies from that of a constant, as in "12 % [10, 14] below ... on training data"."""
    above = share.value < 0
    size = Estimate(-share.value, -share.high, -share.low) if above else share
    return f"{_share(size)} {'above' if above else 'below'} that of a constant prediction on {name} data"


def _all_of_it_overfits(verdict: Verdict) -> bool:
    ends = verdict.whole_interval
    return verdict.learned and ends is not None and ends[1] < LEAST_BORNE_OUT


def _share(estimate: Estimate | None) -> str:
    return "an unknown share" if estimate is None else percents(estimate.value, (estimate.low, estimate.high))
