"""One verdict on the balance of a trained model's modalities: `verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.excess import Excess, excess
from awc_balance.calibration.judgement import Answer, Judgement, Kind, Verdict
from awc_balance.calibration.limits import (
    LEARNABLE,
    LEAST_BORNE_OUT,
    NEGLIGIBLE,
    RIVAL,
    SAFE,
    TOLERATED,
    UNUSED,
    WELL_BORNE_OUT,
)
from awc_balance.calibration.slopes import Slopes
from awc_balance.checks import check_by_modality


def verdict(training: Slopes, held_out: Slopes, alone: Mapping[str, Estimate] | None = None) -> Verdict:
    """Judge the balance of a trained model's modalities; every answer is read off a 95 % interval.

    *x overfits* if its slope on held-out data is credibly below that on training data, and by more than 0.1. Parts of
    less than 5 % of the prediction's size do not matter, nor does any where less than 5 % of the loss is left. Where
    less than half of the whole prediction is borne out and no modality stands out, who overfits cannot be told. *x is
    idle* if without it credibly less than 5 % is lost of what the model explains, and the error grows by less than
    15 %, a new head making the best of all other features. *b is starved* if the features of b predict credibly more
    than a tenth of the error that is left; or if features that were learned on b alone lower that error by credibly
    more than 5 %, beside all features here: then the largest other part is the one that *starves*, if it is not far
    smaller; else b was not trained to the end. A small part that should credibly be larger leaves it open, as do
    features that predict what is left where b, learned alone, adds next to nothing.
    *Balanced* if all three are answered with no for every modality. The first that holds of starves, overfits and idle
    is the verdict. But where one is starved, idle comes first, and then overfitting of the one that starves it: noise
    may be why others are not made use of. And what is idle and tells nothing, as far as can be seen, is better left out
    than held back. A single modality has nothing to be balanced with.

    Of a model that has not learned nothing can be told: one that does not credibly explain 5 % of the data that it was
    trained on.

    A single run cannot show that a modality was starved whose encoder has learned nothing that a kernel regression
    could use: it looks idle. Pass `alone` then.

    Args:
        training: `Calibration.evaluate` on data that the model was trained on; `costs=False` will do.
        held_out: On data that it was not trained on, with costs.
        alone: For some modalities what they tell when they are learned alone: what `train_alone` gives, or
            `measure_alone`.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If modalities differ, or both are one measurement.

    Example:
        >>> def slopes(value):
        ...     known = {"rgb": 1.0, "wifi": value}
        ...     ends = {modality: (slope - 0.1, slope + 0.1) for modality, slope in known.items()}
        ...     return Slopes(known, ends, 1.0, (0.9, 1.1), {"rgb": 0.7, "wifi": 0.3})
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
    if held_out is training:
        raise ValueError(
            "`held_out` should be measured on data that the model is not trained on. Got the measurement on training "
            "data. Pass another one."
        )
    check_by_modality("held_out", held_out, training)
    alone = _check_alone(alone, training)
    above = excess(training, held_out)
    learned = _has_learned(training)
    whole = _whole_overfits(training, held_out, above)
    order = sorted(held_out, key=lambda modality: -held_out.shares[modality])
    judgements = tuple(_judgement(m, held_out, above[m], alone.get(m), whole=whole) for m in order)
    if not learned:
        judgements = tuple(replace(one, overfits="unclear", idle="unclear", starved="unclear") for one in judgements)
    ahead = _ahead(judgements)
    kind, modalities = _kind(judgements, ahead)
    return Verdict(
        kind,
        modalities,
        judgements,
        held_out.whole,
        held_out.whole_interval,
        learned=learned,
        explained_in_training=_explained_as_is(training),
        explained=_explained_as_is(held_out),
        droppable=_droppable(held_out, judgements) if learned else (),
    )


def _check_alone(alone: Mapping[str, Estimate] | None, modalities: Slopes) -> Mapping[str, Estimate]:
    if alone is None:
        return {}
    if not isinstance(alone, Mapping):
        check_by_modality("alone", alone, modalities)  # says how it should be
    unknown = [modality for modality in alone if modality not in modalities]
    if unknown:
        raise ValueError(
            f"`alone` should name modalities of the model: {', '.join(modalities)}. Got "
            f"{', '.join(map(str, unknown))}. Name some of them."
        )
    for modality, one in alone.items():
        if not isinstance(one, Estimate):
            raise TypeError(
                f"`alone` should hold what train_alone or measure_alone gives. Got {type(one).__name__} for "
                f"`{modality}`. Pass alone=train_alone(model, encoders, training, held_out)."
            )
    return alone


def _has_learned(training: Slopes) -> bool:
    """Whether the model predicts its own training data, as far as that is known."""
    return training.explained_interval is None or training.explained_interval[0] >= NEGLIGIBLE


def _ahead(judgements: tuple[Judgement, ...]) -> tuple[str, ...]:
    """The largest modality that is learned, if others are not and it is not far smaller than they."""
    starved = [one for one in judgements if one.starved == "yes"]
    learned = [one for one in judgements if one.starved != "yes"]
    if not starved or not learned or learned[0].share < starved[0].share * RIVAL:
        return ()
    return (learned[0].modality,)


def _kind(judgements: tuple[Judgement, ...], ahead: tuple[str, ...]) -> tuple[Kind, tuple[str, ...]]:
    """The first that holds, and of whom."""
    idle = tuple(
        one.modality
        for one in judgements
        if one.idle == "yes" and one.starved == "no" and (one.modality not in ahead or one.overfits == "yes")
    )
    overfits = tuple(
        one.modality
        for one in judgements
        if one.overfits == "yes"
        and not (ahead and one.starved == "yes")
        and (one.modality not in idle or _tells_something(one))
    )
    order: list[tuple[Kind, tuple[str, ...]]] = [("overfits", overfits), ("idle", idle)]
    if ahead:
        order = [("idle", idle), ("overfits", overfits if {*ahead} & {*overfits} else ()), ("starves", ahead)]
    for kind, modalities in order:
        if modalities:
            return kind, modalities
    unclear = tuple(one.modality for one in judgements if {one.overfits, one.idle, one.starved} != {"no"})
    return ("cannot tell", unclear) if unclear else ("balanced", ())


def _tells_something(one: Judgement) -> bool:
    """Whether something, however little, is credibly lost without it."""
    return one.cost is not None and one.cost.low > 0


def _judgement(
    modality: str, held_out: Slopes, above: Excess, alone: Estimate | None, *, whole: Answer | None
) -> Judgement:
    nothing = len(held_out) == 1 or held_out.shares[modality] < NEGLIGIBLE or _all_but_perfect(held_out)
    single, total = len(held_out) == 1, _all_lost(held_out)
    cost, unused = held_out.costs.get(modality), held_out.unused.get(modality)
    lost = None if cost is None or total is None or total.low <= 0 else Estimate(*(x / total.value for x in cost))
    return Judgement(
        modality=modality,
        share=held_out.shares[modality],
        slope=held_out[modality],
        excess=above,
        overfits="no" if nothing else _overfits(above, whole),
        cost=cost,
        lost=lost,
        idle="no" if single else _both(_below(lost, NEGLIGIBLE), _below(cost, SAFE)),
        unused=unused,
        alone=alone,
        starved="no" if single else _starved(unused, alone, too_small=_too_small(held_out, modality)),
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
    if high < LEAST_BORNE_OUT * min(1.0, training.whole):
        return "unclear"
    return "no" if low >= WELL_BORNE_OUT else None


def _all_but_perfect(held_out: Slopes) -> bool:
    """Whether next to no error is left, so that none of it is worth holding a modality back for."""
    return held_out.explained_interval is not None and held_out.explained_interval[0] >= 1 - NEGLIGIBLE


def _too_small(held_out: Slopes, modality: str) -> bool:
    """Whether a part far smaller than the largest should credibly be larger, as where learning has only begun."""
    small = held_out.shares[modality] < RIVAL * max(held_out.shares.values())
    return small and held_out.intervals is not None and held_out.intervals[modality][0] > 1 + TOLERATED


def _starved(unused: Estimate | None, alone: Estimate | None, *, too_small: bool) -> Answer:
    if alone is not None and alone.low > LEARNABLE:
        return "yes"
    useless = alone is not None and alone.value <= LEARNABLE
    if unused is not None and unused.low > UNUSED:
        return "unclear" if useless else "yes"
    in_doubt = too_small if alone is None else not useless
    return "no" if unused is not None and unused.high <= UNUSED and not in_doubt else "unclear"


def _below(estimate: Estimate | None, limit: float) -> Answer:
    if estimate is None:
        return "unclear"
    return "yes" if estimate.high < limit else "no" if estimate.low >= limit else "unclear"


def _both(one: Answer, other: Answer) -> Answer:
    return one if one == other else "no" if "no" in (one, other) else "unclear"


def _droppable(slopes: Slopes, judgements: tuple[Judgement, ...]) -> tuple[frozenset[str], ...]:
    """The largest of the sets without which little is lost, of modalities that could tell no more."""
    total = _all_lost(slopes)
    if total is None or total.low <= 0 or len(slopes) == 1:
        return ()
    costs = {frozenset([modality]): cost for modality, cost in slopes.costs.items()} | slopes.joint_costs
    limit = min(NEGLIGIBLE * total.value, SAFE)
    starved = {one.modality for one in judgements if one.starved == "yes"}
    fine = [
        some for some, cost in costs.items() if len(some) < len(slopes) and cost.high < limit and not some & starved
    ]
    return tuple(some for some in fine if not any(some < other for other in fine))


def _all_lost(slopes: Slopes) -> Estimate | None:
    """By how much the squared error grows without all modalities."""
    return slopes.joint_costs.get(frozenset(slopes))


def _explained_as_is(slopes: Slopes) -> Estimate | None:
    if slopes.explained is None or slopes.explained_interval is None:
        return None
    return Estimate(slopes.explained, *slopes.explained_interval)
