"""Calibration slopes with their intervals: `Slopes`, and how they come from a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from awc_balance.by_modality import ByModality
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.fit import Fit
from awc_balance.calibration.refit import Worth
from awc_balance.contributions.intervals import jackknife_margin

Interval: TypeAlias = tuple[float, float]

LEAST_FOLDS = 10
"""With fewer there are no intervals: those of a handful of samples may come out as narrow as chance likes."""

_LEAST_WHOLE = 0.05
"""Slopes are relative to that of the whole prediction; near 0 or below it that would say nothing."""

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False, repr=False)
class Slopes(ByModality):
    """Calibration slopes by modality: a `Mapping[str, float]` with the details behind each number.

    A slope of 1 says that the modality's part is trusted as it deserves; below 1 it is trusted too much on these
    samples, above 1 too little.
    """

    values_by_modality: dict[str, float]
    """The factor of each modality's part at which the loss is smallest, over that of the whole prediction."""
    intervals: dict[str, Interval] | None
    """95 % confidence intervals over the data; None for fewer than ten samples."""
    whole: float
    """The factor of the whole prediction at which the loss is smallest."""
    whole_interval: Interval | None
    shares: dict[str, float]
    """How large each part is: its share in the second derivatives of the loss by the factors; they sum to 1."""
    costs: dict[str, Estimate] = field(default_factory=dict)
    """By how much the squared error grows without the modality, when a new head makes the best of what all others put
    out: 0.02 is 2 %; see `calibration.refit`. Empty if costs were not wanted, or cannot be told."""
    joint_costs: dict[frozenset[str], Estimate] = field(default_factory=dict)
    """The same for leaving several modalities out at once: all of them, and those that may be worth little."""
    unused: dict[str, Estimate] = field(default_factory=dict)
    """Which share of the squared error that is left could be predicted from the features of the modality."""
    explained: float | None = None
    """By which share the loss of the model as it is lies below that of the best constant: of squared error the share
    of the variance that is explained, of cross-entropy that of the entropy."""
    explained_interval: Interval | None = None
    added: dict[str, Estimate] = field(default_factory=dict)
    """By which share the squared error falls with a modality, beside all others: 1 - 1/(1 + cost), with intervals of
    its own, since those of a growth from next to nothing are of no use."""


def slopes_of(fit: Fit, owners: Tensor, modalities: Sequence[str], worth: Worth | None = None) -> Slopes:
    """The slopes of the samples of a fit, with intervals by leaving out each fold in turn.

    Args:
        fit: The samples.
        owners: The share of every part that belongs to each modality, `[K, M]`.
        modalities: Their names.
        worth: What modalities are worth, if that was measured.
    """
    folds, count = fit.folds(), len(modalities)
    every = torch.ones(1, folds, dtype=torch.float64)
    weights = torch.cat([every, every - torch.eye(folds, dtype=torch.float64)])
    found = torch.cat([_slopes(fit, owners, weights), fit.explained(weights).unsqueeze(1)], 1)
    ends = None
    if folds >= LEAST_FOLDS:
        margin = jackknife_margin(found[1:])
        ends = [tuple(pair) for pair in torch.stack([found[0] - margin, found[0] + margin], 1).tolist()]
    values, sizes = found[0].tolist(), fit.sizes(owners)
    costs, unused, added = ({}, {}, {}) if worth is None else worth
    single = {next(iter(some)): cost for some, cost in costs.items() if len(some) == 1}
    joint = {some: cost for some, cost in costs.items() if len(some) > 1 or len(some) == count}
    return Slopes(
        values_by_modality=dict(zip(modalities, values[:count], strict=True)),
        intervals=None if ends is None else dict(zip(modalities, ends[:count], strict=True)),
        whole=values[count],
        whole_interval=None if ends is None else ends[count],
        shares=dict(zip(modalities, (sizes / sizes.sum().clamp(min=_TINY)).tolist(), strict=True)),
        costs=single,
        joint_costs=joint,
        unused=unused,
        explained=values[count + 1],
        explained_interval=None if ends is None else ends[count + 1],
        added=added,
    )


def _slopes(fit: Fit, owners: Tensor, weights: Tensor) -> Tensor:
    """Relative slopes and the slope of the whole, side by side, `[W, M + 1]`."""
    whole = fit.minimum(owners.sum(1, keepdim=True), weights).factors
    return torch.cat([fit.minimum(owners, weights).factors / whole.clamp(min=_LEAST_WHOLE), whole], 1)
