"""The history of a run as plain rows, one an epoch: reading and checking them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from awc_balance.checks import check_by_modality, check_count, check_numbers
from awc_balance.diagnose.measured import check_intervals

History: TypeAlias = Iterable[Mapping[str, Any]]

SLOPES_SHOWN = (-1.0, 3.0)
"""Figures show slopes within these bounds: those of parts that are hardly anything yet, or any more, go anywhere."""


class Row(NamedTuple):
    """What is known about one epoch; empty or None where nothing is."""

    epoch: int
    contributions: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 % intervals of the contributions."""
    groups: dict[str, str]
    alphas: dict[str, float]
    fisher: dict[str, float]
    """Traces of the Fisher diagonals."""
    loss: float | None
    """The mean task loss of the epoch; may be infinite or nan, if that is what happened."""
    penalty: float | None
    """The mean penalty of the epoch, likewise."""
    slopes: dict[str, float]
    """Calibration slopes on held-out data, which rule="calibration" measures."""
    slope_intervals: dict[str, tuple[float, float]]
    """Their 95 % intervals."""
    training_slopes: dict[str, float]
    """The same on training data."""
    training_slope_intervals: dict[str, tuple[float, float]]
    """Their 95 % intervals."""
    shares: dict[str, float]
    """How large each modality's part of the prediction is; they sum to 1."""


def read_history(history: History) -> list[Row]:
    """The rows of a history in the order of their epochs.

    Args:
        history: `AWCRegularizer.history`, or rows like it: mappings with "epoch" and any of "contributions",
            "intervals", "groups", "alphas", "fisher", "loss", "penalty", "slopes", "slope_intervals" (each with
            "training" and "held_out") and "shares". Other entries are left aside.

    Raises:
        TypeError: If a row is not a mapping, or an entry is of the wrong kind.
        ValueError: If an epoch is missing or comes twice, or a contribution, interval, alpha, slope, share or
            Fisher diagonal is not finite.

    Example:
        >>> read_history([{"epoch": 1, "contributions": {"rgb": 0.5}, "loss": 0.3}])[0].loss
        0.3
    """
    rows = [_row(number, row) for number, row in enumerate(history)]
    epochs = [row.epoch for row in rows]
    if len(set(epochs)) != len(epochs):
        raise ValueError(
            f"The rows of a history should be of different epochs. Got {epochs}. Pass the rows of one run."
        )
    return sorted(rows, key=lambda row: row.epoch)


def modalities_of(rows: Iterable[Row]) -> list[str]:
    """All modalities that rows speak of, in the order of their first mention."""
    parts = ((row.contributions, row.fisher, row.alphas, row.slopes) for row in rows)
    return list(dict.fromkeys(modality for row in parts for part in row for modality in part))


def window_of(rows: Iterable[Row]) -> int | None:
    """The last epoch in which an encoder was held back by the paper's rule; None if there was none.

    A rule by slopes holds encoders back when it sees fit, which is no window.
    """
    held = (row.epoch for row in rows if not row.slopes and any(alpha > 0 for alpha in row.alphas.values()))
    return max(held, default=None)


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Each value as a share of their sum; zeros where all are 0."""
    total = sum(values.values())
    return {name: value / total if total else 0.0 for name, value in values.items()}


def layer_shares(diagonal: Mapping[str, Mapping[str, Tensor]]) -> dict[tuple[str, str], float]:
    """The share of each layer, by modality and layer, in the trace of all Fisher diagonals; they sum to 1.

    Args:
        diagonal: By modality and parameter name, as `FisherDiagonal.compute()` gives it.

    Raises:
        ValueError: If a sum is not finite.

    Example:
        >>> import torch
        >>> layer_shares({"rgb": {"0.weight": torch.ones(3), "0.bias": torch.ones(1), "1.weight": torch.ones(4)}})
        {('rgb', '0'): 0.5, ('rgb', '1'): 0.5}
    """
    traces: dict[tuple[str, str], float] = {}
    for modality, named in diagonal.items():
        for name, values in named.items():
            layer = (modality, name.rpartition(".")[0] or name)
            traces[layer] = traces.get(layer, 0.0) + float(values.double().sum())
    for (modality, part), value in traces.items():
        if not isfinite(value):
            raise ValueError(
                f"A Fisher diagonal should be finite. Got {value} in layer `{part}` of `{modality}`. "
                "Pass what FisherDiagonal.compute() gave."
            )
    total = sum(traces.values())
    return {layer: value / total if total else 0.0 for layer, value in traces.items()}


def _row(number: int, row: Mapping[str, Any]) -> Row:
    if not isinstance(row, Mapping):
        raise TypeError(f"A row of a history should be a mapping. Got {type(row).__name__}. Pass awc.history.")
    if "epoch" not in row:
        raise ValueError(f"A row of a history should have its epoch. Row {number} has none. Add row['epoch'] = 1.")
    check_count("epoch", row["epoch"], 0)
    contributions = _numbers(row, "contributions")
    slopes, ends = _by_data(row, "slopes"), _by_data(row, "slope_intervals")
    held_out, training = _numbers(slopes, "held_out"), _numbers(slopes, "training")
    return Row(
        epoch=int(row["epoch"]),
        contributions=contributions,
        intervals=check_intervals(row.get("intervals") or None, contributions) or {},
        groups=_groups(row.get("groups") or {}),
        alphas=_numbers(row, "alphas"),
        fisher=_numbers(row, "fisher"),
        loss=_scalar(row, "loss"),
        penalty=_scalar(row, "penalty"),
        slopes=held_out,
        slope_intervals=check_intervals(ends.get("held_out") or None, held_out) or {},
        training_slopes=training,
        training_slope_intervals=check_intervals(ends.get("training") or None, training) or {},
        shares=_numbers(row, "shares"),
    )


def _groups(groups: Mapping[str, str]) -> dict[str, str]:
    check_by_modality("groups", groups, groups)
    return {modality: str(group) for modality, group in groups.items()}


def _by_data(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What is known on training and on held-out data."""
    value = row.get(name) or {}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"`{name}` should be a mapping. Got {type(value).__name__}. Pass one with 'training' and 'held_out'."
        )
    return value


def _numbers(row: Mapping[str, Any], name: str) -> dict[str, float]:
    values = row.get(name) or {}
    return check_numbers(name, values, values if isinstance(values, Mapping) else [])


def _scalar(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` should be a number. Got {type(value).__name__}. Pass the mean over the epoch.")
    return float(value)
