"""Calibration slopes with their intervals: `Slopes`, and how they come from a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from awc_balance.calibration.fits import Fit
from awc_balance.contributions.intervals import jackknife_margin

T = TypeVar("T")
Interval: TypeAlias = tuple[float, float]

_LEAST_WHOLE = 0.05
"""Slopes are relative to that of the whole prediction; near 0 or below it that would say nothing."""

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False, repr=False)
class Slopes(Mapping[str, float]):
    """Calibration slopes by modality: a `Mapping[str, float]` with the details behind each number.

    A slope of 1 says that the modality's part is trusted as it deserves; below 1 it is trusted too much on these
    samples, above 1 too little.
    """

    values_by_modality: dict[str, float]
    """The factor of each modality's part at which the loss is smallest, over that of the whole prediction."""
    intervals: dict[str, Interval] | None
    """95 % confidence intervals over the data; None for fewer than two samples."""
    whole: float
    """The factor of the whole prediction at which the loss is smallest."""
    whole_interval: Interval | None
    costs: dict[str, float]
    """By how much the loss grows without the modality's part, all other parts being scaled anew: 0.02 is 2 %. Empty if
    they were not wanted."""
    cost_intervals: dict[str, Interval] | None
    shares: dict[str, float]
    """How large each part is: its share in the second derivatives of the loss by the factors; they sum to 1."""

    def __getitem__(self, modality: str) -> float:
        """The slope of a modality."""
        return self.values_by_modality[modality]

    def __iter__(self) -> Iterator[str]:
        """Over the modalities."""
        return iter(self.values_by_modality)

    def __len__(self) -> int:
        """The number of modalities."""
        return len(self.values_by_modality)

    def __repr__(self) -> str:
        """One line, with intervals where there are any."""
        parts = []
        for modality, value in self.items():
            interval = "" if self.intervals is None else " [{:.4g}, {:.4g}]".format(*self.intervals[modality])
            parts.append(f"{modality}: {value:.4g}{interval}")
        return f"Slopes({', '.join(parts)})"


def slopes_of(fit: Fit, modalities: Sequence[str], *, costs: bool = True) -> Slopes:
    """The slopes of the samples of a fit, with intervals by leaving out each fold in turn.

    Args:
        fit: The samples.
        modalities: Their names.
        costs: Whether costs are wanted, which take a fit for each modality.
    """
    folds, count = fit.folds(), len(modalities)
    every = torch.ones(1, folds, dtype=torch.float64)
    weights = torch.cat([every, every - torch.eye(folds, dtype=torch.float64)])
    found = _estimates(fit, count, weights, costs=costs)
    ends = None
    if folds > 1:
        margin = jackknife_margin(found[1:])
        ends = [tuple(pair) for pair in torch.stack([found[0] - margin, found[0] + margin], 1).tolist()]
    sizes = fit.sizes()
    by_modality = slice(count), slice(count + 1, None)
    values, grown = (_named(modalities, found[0].tolist()[some]) for some in by_modality)
    intervals, grown_intervals = (None if ends is None else _named(modalities, ends[some]) for some in by_modality)
    return Slopes(
        values_by_modality=values,
        intervals=intervals,
        whole=found[0, count].item(),
        whole_interval=None if ends is None else ends[count],
        costs=grown,
        cost_intervals=grown_intervals,
        shares=_named(modalities, (sizes / sizes.sum().clamp(min=_TINY)).tolist()),
    )


def _named(modalities: Sequence[str], values: Sequence[T]) -> dict[str, T]:
    """By modality; empty where there are no values."""
    return dict(zip(modalities, values, strict=bool(values)))


def _estimates(fit: Fit, modalities: int, weights: Tensor, *, costs: bool) -> Tensor:
    """Relative slopes, the slope of the whole, and the costs if wanted, side by side, `[W, M + 1 + M]`."""
    each = torch.eye(modalities, dtype=torch.float64)
    whole = fit.minimum(torch.ones(modalities, 1, dtype=torch.float64), weights).factors
    best = fit.minimum(each, weights)
    slopes = torch.cat([best.factors / whole.clamp(min=_LEAST_WHOLE), whole], 1)
    if not costs:
        return slopes
    without = torch.stack([fit.minimum(each - torch.diag(one), weights).loss for one in each], 1)
    return torch.cat([slopes, without / best.loss.clamp(min=_TINY).unsqueeze(1) - 1], 1)
