"""One verdict on the balance of a trained model's modalities: `verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from awc_balance.calibration.excess import Excess, excess
from awc_balance.calibration.judgement import Answer, Estimate, Judgement, Kind, Verdict
from awc_balance.calibration.slopes import Interval, Slopes
from awc_balance.checks import check_by_modality

NEGLIGIBLE = 0.05
"""A modality is idle if less than this share of what the model explains is lost without it. A choice, as is usual for
what is not worth acting upon: with noise as large as what is explained, it is 5 % of the squared error, 2.5 % of its
root."""

TOLERATED = 0.1
"""A part may be too large by so much: a tenth of what it says being noise is usual in models that are trained well."""

UNUSED = 0.1
"""A modality is not made use of if its features predict more than this share of the error that is left."""

_BORNE_OUT = 0.8
"""Where this share of the whole prediction is borne out, no modality overfits whose own slope is not known well."""

_RIVAL = 0.5
"""What starves another is at least half as large a part of the prediction."""

_HALF = 0.5
"""Where not even this share of it is, the whole model overfits, and who is to blame cannot be told."""


def verdict(training: Slopes, held_out: Slopes, alone: Mapping[str, Slopes] | None = None) -> Verdict:
    """Judge the balance of a trained model's modalities; every answer is read off a 95 % interval.

    *x overfits* if its slope on held-out data is credibly below that on training data, and by more than 0.1. Parts of
    less than 5 % of the prediction's size do not matter. Where less than half of the whole prediction is borne out and
    no modality stands out, who overfits cannot be told. *x is idle* if without it credibly less than 5 % is lost of
    what the model explains, a new head making the best of all other features. *b is starved* if the features of b
    predict credibly more than a tenth of the error that is left; or if a model trained on b alone explains credibly
    more than b's features do here, and more than all others: then the largest other part is the one that *starves*; a
    small part that should credibly be larger leaves it open. *Balanced* if all three are answered with no for every
    modality. The first that holds of starves,
    overfits and idle is the verdict.

    A single run cannot show that a modality was starved whose encoder has learned nothing that a kernel regression
    could use: it looks idle. Pass `alone` then.

    Args:
        training: `Calibration.evaluate` on data that the model was trained on; `costs=False` will do.
        held_out: On data that it was not trained on, with costs.
        alone: For some modalities the same of models that were trained on one of them alone, on the same held-out
            data: `{"b": Calibration(model_b, {"b": model_b.encoder}).evaluate(held_out)}`.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If modalities differ.

    Example:
        >>> def slopes(value, cost=(), **more):
        ...     known = {"rgb": 1.0, "wifi": value}
        ...     ends = {modality: (slope - 0.1, slope + 0.1) for modality, slope in known.items()}
        ...     return Slopes(known, ends, 1.0, (0.9, 1.1), {}, None, {"rgb": 0.7, "wifi": 0.3})
        >>> found = verdict(slopes(1.0), slopes(0.6))
        >>> found.kind, found.modalities
        ('overfits', ('wifi',))
    """
    for name, slopes in (("training", training), ("held_out", held_out)):
        if not isinstance(slopes, Slopes):
            raise TypeError(
                f"`{name}` should be Slopes. Got {type(slopes).__name__}. "
                "Pass what Calibration(model, encoders).evaluate(loader) gives."
            )
    check_by_modality("held_out", held_out, training)
    alone = _check_alone(alone, training)
    above = excess(training, held_out)
    whole = _whole_overfits(training, held_out, above)
    droppable = _droppable(held_out)
    order = sorted(held_out, key=lambda modality: -held_out.shares[modality])
    judgements = tuple(_judgement(m, held_out, above[m], alone.get(m), whole=whole) for m in order)
    ahead = _ahead(judgements)
    if not ahead:
        judgements = tuple(replace(one, starved="unclear") if one.starved == "yes" else one for one in judgements)
    kind, modalities = _kind(judgements, ahead)
    return Verdict(kind, modalities, judgements, held_out.whole, _explained(_all_lost(held_out)), droppable)


def _check_alone(alone: Mapping[str, Slopes] | None, modalities: Slopes) -> Mapping[str, Slopes]:
    if alone is None:
        return {}
    check_by_modality("alone", alone, [modality for modality in modalities if modality in alone])
    for modality, slopes in alone.items():
        if not isinstance(slopes, Slopes) or list(slopes) != [modality] or _all_lost(slopes) is None:
            raise ValueError(
                f"`alone` should hold Slopes of models of one modality, with costs. Got another thing for `{modality}`."
                f" Pass Calibration(model, {{{modality!r}: model.encoder}}).evaluate(held_out)."
            )
    return alone


def _ahead(judgements: tuple[Judgement, ...]) -> tuple[str, ...]:
    """The largest modality that is learned, if others are not and it is not far smaller than they."""
    starved = [one for one in judgements if one.starved == "yes"]
    learned = [one for one in judgements if one.starved != "yes"]
    if not starved or not learned or learned[0].share < starved[0].share * _RIVAL:
        return ()
    return (learned[0].modality,)


def _kind(judgements: tuple[Judgement, ...], ahead: tuple[str, ...]) -> tuple[Kind, tuple[str, ...]]:
    """The first that holds, and of whom."""
    if ahead:
        return "starves", ahead
    overfits = tuple(one.modality for one in judgements if one.overfits == "yes")
    idle = tuple(one.modality for one in judgements if one.idle == "yes" and one.starved == "no")
    if overfits or idle:
        return ("overfits", overfits) if overfits else ("idle", idle)
    unclear = tuple(one.modality for one in judgements if {one.overfits, one.idle, one.starved} != {"no"})
    return ("cannot tell", unclear) if unclear else ("balanced", ())


def _judgement(
    modality: str, held_out: Slopes, above: Excess, alone: Slopes | None, *, whole: Answer | None
) -> Judgement:
    total = _all_lost(held_out)
    cost, unused = _cost(held_out, frozenset([modality])), _unused(held_out, modality)
    lost = None if cost is None or total is None or total.low <= 0 else Estimate(*(x / total.value for x in cost))
    others = None if cost is None else _rest_explained(cost, total)
    own = _cost(held_out, frozenset(held_out) - {modality}) if len(held_out) > 1 else Estimate(0.0, 0.0, 0.0)
    joint = None if own is None else _rest_explained(own, total)
    apart = None if alone is None else _explained_interval(_all_lost(alone))
    return Judgement(
        modality=modality,
        share=held_out.shares[modality],
        slope=held_out[modality],
        excess=above,
        overfits="no" if held_out.shares[modality] < NEGLIGIBLE else _overfits(above, whole),
        cost=cost,
        lost=lost,
        idle="no" if len(held_out) == 1 else _below(lost, NEGLIGIBLE),
        unused=unused,
        alone=None if apart is None else apart.value,
        joint=joint,
        starved=_starved(unused, apart, joint, others, too_small=_too_small(held_out, modality)),
    )


def _overfits(above: Excess, whole: Answer | None) -> Answer:
    if above.credible and above.value > TOLERATED:
        return "yes"
    if whole is not None:
        return whole
    return "no" if above.high <= 2 * TOLERATED else "unclear"


def _whole_overfits(training: Slopes, held_out: Slopes, above: Mapping[str, Excess]) -> Answer | None:
    """What the whole prediction says of every modality whose own slope does not."""
    if held_out.whole_interval is None:
        return None
    low, high = held_out.whole_interval
    if any(one.credible and one.value > TOLERATED for one in above.values()):
        return None
    if high < _HALF * min(1.0, training.whole):
        return "unclear"
    return "no" if low >= _BORNE_OUT else None


def _too_small(held_out: Slopes, modality: str) -> bool:
    """Whether a part far smaller than the largest should credibly be larger, as where learning has only begun."""
    small = held_out.shares[modality] < _RIVAL * max(held_out.shares.values())
    return small and held_out.intervals is not None and held_out.intervals[modality][0] > 1 + TOLERATED


def _starved(
    unused: Estimate | None, alone: Estimate | None, joint: float | None, others: float | None, *, too_small: bool
) -> Answer:
    if alone is not None and joint is not None and others is not None:
        if alone.low > max(joint, others):
            return "yes"
        if alone.low <= joint:
            return "no"
    if unused is None:
        return "unclear"
    if unused.low > UNUSED:
        return "yes"
    return "no" if unused.high <= UNUSED and not too_small else "unclear"


def _below(estimate: Estimate | None, limit: float) -> Answer:
    if estimate is None:
        return "unclear"
    return "yes" if estimate.high < limit else "no" if estimate.low >= limit else "unclear"


def _droppable(slopes: Slopes) -> tuple[frozenset[str], ...]:
    """The largest of the sets without which little is lost."""
    total = _all_lost(slopes)
    if total is None or total.low <= 0 or len(slopes) == 1:
        return ()
    sets = [*(frozenset([modality]) for modality in slopes.costs), *slopes.joint_costs]
    fine = [some for some in sets if len(some) < len(slopes) and _cost_high(slopes, some) < NEGLIGIBLE * total.value]
    return tuple(some for some in fine if not any(some < other for other in fine))


def _cost_high(slopes: Slopes, some: frozenset[str]) -> float:
    cost = _cost(slopes, some)
    return float("inf") if cost is None else cost.high


def _cost(slopes: Slopes, some: frozenset[str]) -> Estimate | None:
    """By how much the squared error grows without some modalities."""
    one = next(iter(some))
    if len(some) == 1 and one in slopes.costs and slopes.cost_intervals is not None:
        return _estimate(slopes.costs[one], slopes.cost_intervals[one])
    if some in slopes.joint_costs and slopes.joint_cost_intervals is not None:
        return _estimate(slopes.joint_costs[some], slopes.joint_cost_intervals[some])
    return None


def _all_lost(slopes: Slopes) -> Estimate | None:
    return _cost(slopes, frozenset(slopes))


def _unused(slopes: Slopes, modality: str) -> Estimate | None:
    if slopes.unused_intervals is None:
        return None
    return _estimate(slopes.unused[modality], slopes.unused_intervals[modality])


def _estimate(value: float, ends: Interval) -> Estimate:
    return Estimate(value, *ends)


def _explained(lost: Estimate | None) -> float | None:
    """The share of the variance that is explained, from the growth of the error without all that explains it."""
    return None if lost is None else 1 - 1 / (1 + lost.value)


def _explained_interval(lost: Estimate | None) -> Estimate | None:
    return None if lost is None else Estimate(*(1 - 1 / (1 + max(x, -_HALF)) for x in lost))


def _rest_explained(cost: Estimate, total: Estimate | None) -> float | None:
    """What is explained when something is left out."""
    return None if total is None else 1 - (1 + cost.value) / (1 + total.value)
