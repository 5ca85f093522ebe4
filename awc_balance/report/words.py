"""What a rule by calibration slopes did, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from awc_balance.history import Row, modalities_of
from awc_balance.wording import listed, number


def held_back(rows: Sequence[Row]) -> str | None:
    """Who was held back from which epoch on, and how hard, or that nobody was; None if no rule looked at slopes.

    Example:
        >>> from awc_balance.history import read_history
        >>> def row(epoch, strength):
        ...     return {"epoch": epoch, "slopes": {"held_out": {"rgb": 1.0, "wifi": 0.7}}, "alphas": {"wifi": strength}}
        >>> held_back(read_history([row(1, 0.0), row(2, 0.25), row(3, 0.5)]))[:87]
        'The rule held back wifi from epoch 2 on (strength up to 0.5). It left rgb alone. A stre'
    """
    known = [row for row in rows if row.slopes]
    if not known:
        return None
    names = modalities_of(known)
    strengths = {m: {row.epoch: row.alphas.get(m, 0.0) for row in known} for m in names}
    held = {modality: by_epoch for modality, by_epoch in strengths.items() if any(by_epoch.values())}
    if not held:
        return f"The rule held nobody back: {_reason(known)}."
    alone = [modality for modality in names if modality not in held]
    said = f"The rule held back {listed(f'{m} {_when(by_epoch)}' for m, by_epoch in held.items())}."
    said += f" It left {listed(alone)} alone." if alone else ""
    return f"{said} A strength of 1 is a pull as strong as the gradients of batches."


def _when(by_epoch: dict[int, float]) -> str:
    """As in "from epoch 2 on (strength up to 0.5, at last 0.3)"."""
    epochs = [epoch for epoch, strength in by_epoch.items() if strength > 0]
    first, last, most = epochs[0], epochs[-1], max(by_epoch.values())
    hard = f"strength up to {number(most)}"
    if last == max(by_epoch):
        when = f"from epoch {first} on"
        hard += f", at last {number(by_epoch[last])}" if by_epoch[last] < most else ""
    else:
        when = f"in epoch {first}" if first == last else f"from epoch {first} to {last}"
    between = sum(first <= epoch <= last for epoch in by_epoch)
    return f"{when} ({'with breaks, ' if len(epochs) < between else ''}{hard})"


def _reason(rows: Sequence[Row]) -> str:
    if not any(row.slope_intervals for row in rows):
        return "there were too few held-out samples for intervals, and without them nobody is judged"
    return "no epoch's held-out data showed credibly that a modality fits noise more than the others"
