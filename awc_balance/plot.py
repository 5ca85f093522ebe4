"""Figures of a run with matplotlib, on axes of yours or on new ones.

Import it where you need it: it takes matplotlib, which `pip install awc_balance[plot]` brings. Colours are those of
Okabe and Ito, which all eyes tell apart; lines also differ in dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from torch import Tensor

from awc_balance.history import SLOPES_SHOWN, History, Row, layer_shares, modalities_of, read_history, shares, window_of

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "awc_balance.plot draws with matplotlib. It is not installed. Run pip install matplotlib."
    ) from error

__all__ = ["contributions", "fisher_by_layer", "fisher_by_modality", "penalty", "slopes"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
_DASHES = ("-", "--", "-.", ":")
_DOTS = ("o", "s", "D", "X")
_MARKERS = {"superior": "^", "inferior": "v"}


def contributions(history: History, *, window: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw contributions by epoch, with 95 % intervals where rows have them, groups as markers, the window shaded.

    A triangle points up where a modality is superior, down where it is inferior.

    Args:
        history: `AWCRegularizer.history`, or rows like it: see `awc_balance.history.read_history`.
        window: The last epoch of the window; None takes the last in which an alpha was above 0, and none with
            rule="calibration".
        ax: Where to draw; None makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If no row has contributions, and as `read_history`.

    Example:
        >>> history = [{"epoch": e, "contributions": {"rgb": 0.1 * e, "wifi": 0.05}} for e in (1, 2)]
        >>> contributions(history).get_xlabel()
        'epoch'
    """
    rows, known = _rows(history, "contributions")
    ax = _axes(ax)
    for modality, (colour, dashes) in _styles(modalities_of(known)).items():
        mine = [row for row in known if modality in row.contributions]
        epochs, values = [row.epoch for row in mine], [row.contributions[modality] for row in mine]
        ax.plot(epochs, values, color=colour, ls=dashes, lw=2, label=_label(modality))
        measured = [row for row in mine if row.intervals]
        low, high = ([row.intervals[modality][side] for row in measured] for side in (0, 1))
        ax.fill_between([row.epoch for row in measured], low, high, color=colour, alpha=0.2, lw=0)
        for group, marker in _MARKERS.items():
            there = [row for row in mine if row.groups.get(modality) == group]
            points = [row.contributions[modality] for row in there]
            ax.plot([row.epoch for row in there], points, marker, color=colour, ms=6, label="_nolegend_")
    ax.axhline(0, color="black", lw=0.8)
    return _finish(ax, "contribution", rows, window)


def slopes(history: History, *, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Draw what rule="calibration" saw and did by epoch: slopes, and below them the strengths that followed.

    Slopes on held-out data are unbroken lines with their 95 % intervals, those on training data are dashed. 1 is a
    part of the prediction that is trusted as it deserves. A strength of 1 is a pull as strong as the gradients of
    batches. Slopes of parts that are hardly anything go anywhere: what is beyond -1 or 3 is not shown.

    Args:
        history: As in `contributions`.
        axes: Where to draw slopes and strengths; None makes a new figure.

    Returns:
        Both axes.

    Raises:
        ValueError: If no row has slopes, and as `read_history`.

    Example:
        >>> slopes_of = {"training": {"rgb": 1.0, "wifi": 1.0}, "held_out": {"rgb": 1.0, "wifi": 0.7}}
        >>> above, below = slopes([{"epoch": 1, "slopes": slopes_of, "alphas": {"rgb": 0.0, "wifi": 0.4}}])
        >>> above.get_ylabel(), below.get_ylabel()
        ('slope', 'strength')
    """
    _, known = _rows(history, "slopes")
    above, below = axes or plt.subplots(2, sharex=True, height_ratios=(2, 1), layout="constrained")[1]
    for place, (modality, (colour, _)) in enumerate(_styles(modalities_of(known)).items()):
        dot = _DOTS[place // len(_COLOURS) % len(_DOTS)]
        _slope_lines(above, known, modality, {"color": colour, "marker": dot})
        points = [(row.epoch, row.alphas.get(modality, 0.0)) for row in known]
        below.plot(*zip(*points, strict=True), color=colour, marker=dot, ms=4, lw=2, label=_label(modality))
    above.plot([], [], "--", color="black", lw=1.2, label="on training data")
    above.axhline(1, color="black", lw=0.8)
    lowest, highest = above.get_ylim()
    above.set_ylim(max(lowest, SLOPES_SHOWN[0]), min(highest, SLOPES_SHOWN[1]))
    below.set_ylim(-0.05, max(1.05, below.get_ylim()[1]))
    above.legend(frameon=False)
    return _epochs(above, "slope"), _epochs(below, "strength")


def penalty(history: History, *, window: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the mean penalty of each epoch against the mean task loss.

    Args:
        history: Rows with "epoch" and "loss", "penalty" or both, which your loop puts there: the regularizer does
            not see the loss.
        window: As in `contributions`.
        ax: As in `contributions`.

    Returns:
        The axes.

    Raises:
        ValueError: If no row has a loss or a penalty, and as `read_history`.

    Example:
        >>> len(penalty([{"epoch": 1, "loss": 0.4, "penalty": 0.01}, {"epoch": 2, "loss": 0.3}]).lines)
        2
    """
    rows, _ = _rows(history, "loss", "penalty")
    ax = _axes(ax)
    for name, (colour, dashes) in _styles(["loss", "penalty"]).items():
        points = [(row.epoch, value) for row in rows if (value := getattr(row, name)) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), color=colour, ls=dashes, marker="o", ms=4, lw=2, label=name)
    return _finish(ax, "mean over the epoch", rows, window)


def fisher_by_modality(history: History, *, window: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw each modality's share in the trace of all Fisher diagonals, by epoch.

    Args:
        history: As in `contributions`.
        window: As in `contributions`.
        ax: As in `contributions`.

    Returns:
        The axes.

    Raises:
        ValueError: If no row has Fisher diagonals, and as `read_history`.

    Example:
        >>> ax = fisher_by_modality([{"epoch": 1, "fisher": {"rgb": 3.0, "wifi": 1.0}}])
        >>> [float(line.get_ydata()[0]) for line in ax.lines]
        [0.75, 0.25]
    """
    rows, known = _rows(history, "fisher")
    ax = _axes(ax)
    by_epoch = [(row.epoch, shares(row.fisher)) for row in known]
    for modality, (colour, dashes) in _styles(modalities_of(known)).items():
        points = [(epoch, row[modality]) for epoch, row in by_epoch if modality in row]
        if points:
            ax.plot(*zip(*points, strict=True), color=colour, ls=dashes, marker="o", ms=4, lw=2, label=_label(modality))
    ax.set_ylim(0, 1)
    return _finish(ax, "share of the Fisher diagonals", rows, window)


def fisher_by_layer(diagonal: Mapping[str, Mapping[str, Tensor]], *, most: int = 20, ax: Axes | None = None) -> Axes:
    """Draw the layers with the highest shares in the trace of all Fisher diagonals, the highest on top.

    Args:
        diagonal: By modality and parameter name, as `FisherDiagonal.compute()` gives it.
        most: How many layers to draw.
        ax: As in `contributions`.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no layer, or a Fisher diagonal is not finite.

    Example:
        >>> import torch
        >>> ax = fisher_by_layer({"rgb": {"0.weight": torch.ones(3)}, "wifi": {"0.weight": torch.ones(1)}})
        >>> [float(bar.get_width()) for bar in ax.patches]
        [0.75, 0.25]
    """
    found = layer_shares(diagonal)
    if not found:
        raise ValueError("`diagonal` should hold a layer. Got none. Pass what FisherDiagonal.compute() gave.")
    styles = _styles(list(diagonal))
    highest = sorted(found.items(), key=lambda item: -item[1])[:most]
    ax = _axes(ax)
    named: set[str] = set()
    for place, ((modality, _), share) in enumerate(highest):
        ax.barh(place, share, color=styles[modality][0], label="_nolegend_" if modality in named else _label(modality))
        named.add(modality)
    ax.set_yticks(range(len(highest)), [_label(layer) for (_, layer), _ in highest])
    ax.invert_yaxis()
    ax.set_xlabel("share of the Fisher diagonals")
    ax.legend(frameon=False)
    return ax


def _slope_lines(ax: Axes, rows: Sequence[Row], modality: str, style: dict[str, Any]) -> None:
    """One modality's slopes: on held-out data unbroken, with their intervals, on training data dashed."""
    held_out = [(row.epoch, row.slopes[modality]) for row in rows if modality in row.slopes]
    if held_out:
        ax.plot(*zip(*held_out, strict=True), ms=4, lw=2, label=_label(modality), **style)
    measured = [row for row in rows if modality in row.slope_intervals]
    low, high = ([row.slope_intervals[modality][side] for row in measured] for side in (0, 1))
    ax.fill_between([row.epoch for row in measured], low, high, color=style["color"], alpha=0.2, lw=0)
    training = [(row.epoch, row.training_slopes[modality]) for row in rows if modality in row.training_slopes]
    if training:
        ax.plot(*zip(*training, strict=True), ls="--", ms=2, lw=1.2, label="_nolegend_", **style)


def _rows(history: History, *names: str) -> tuple[list[Row], list[Row]]:
    """All rows, and those that have one of the entries."""
    rows = read_history(history)
    known = [row for row in rows if any(getattr(row, name) not in (None, {}) for name in names)]
    if not known:
        raise ValueError(
            f"The history should have a row with {' or '.join(map(repr, names))}. Got {len(rows)} rows without. "
            "Put them into the rows, or draw something else."
        )
    return rows, known


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _label(name: str) -> str:
    """A name as it is: matplotlib hides labels that start with an underscore, and sets formulas between dollars."""
    shown = name.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _styles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and dashes by name; the two together repeat after 28 names."""
    return dict(zip(names, zip(islice(cycle(_COLOURS), len(names)), cycle(_DASHES), strict=False), strict=True))


def _finish(ax: Axes, label: str, rows: Sequence[Row], window: int | None) -> Axes:
    last = window_of(rows) if window is None else window
    if last is not None and last >= rows[0].epoch:
        ax.axvspan(rows[0].epoch - 0.5, min(last, rows[-1].epoch) + 0.5, color="grey", alpha=0.12, lw=0, label="window")
    ax.legend(frameon=False)
    return _epochs(ax, label)


def _epochs(ax: Axes, label: str) -> Axes:
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
