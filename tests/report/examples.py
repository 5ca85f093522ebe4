"""Made-up numbers with everything in them that a report can show."""

import math

import torch

from awc_balance.calibration import Estimate, Slopes, verdict
from awc_balance.diagnose import Measured
from awc_balance.report import report

HARMFUL_NAME = '<b onload="x">&amp;\'"_with_a_name_that_is_far_too_long_for_any_screen_and_has_no_spaces'
MODALITIES = ["rgb", "lidar", "mmwave", HARMFUL_NAME]


def results():
    """On training and on held-out data."""

    def result(values, half):
        by_modality = dict(zip(MODALITIES, values, strict=True))
        return Measured(by_modality, {m: (v - half, v + half) for m, v in by_modality.items()})

    return result([0.52, 0.31, 0.12, 0.004], 0.015), result([0.5, 0.18, 0.05, -0.002], 0.02)


def judged():
    """A verdict with something to say of every modality."""

    def slopes(values):
        by_modality = dict(zip(MODALITIES, values, strict=True))
        costs, unused, shares = (
            dict(zip(MODALITIES, numbers, strict=True))
            for numbers in ([0.8, 0.3, 0.1, 0.0], [0.0, 0.02, 0.09, -0.01], [0.6, 0.25, 0.08, 0.07])
        )
        ends = {modality: (value - 0.03, value + 0.03) for modality, value in by_modality.items()}
        estimates = (
            {key: Estimate(value, value - 0.03, value + 0.03) for key, value in some.items()}
            for some in (costs, {frozenset(MODALITIES): 2.0}, unused)
        )
        return Slopes(by_modality, ends, 0.97, (0.95, 0.99), shares, *estimates)

    return verdict(slopes([1.0, 1.01, 1.0, 1.0]), slopes([1.02, 0.7, 1.0, 0.95]))


def history(epochs=20, window=8):
    """Contributions that grow, a penalty in the window."""
    rows = []
    for epoch in range(1, epochs + 1):
        grown = 1 - math.exp(-epoch / 4)
        contributions = dict(zip(MODALITIES, (0.52 * grown, 0.01 * epoch, 0.12 * grown, 0.004), strict=True))
        row = {
            "epoch": epoch,
            "contributions": contributions,
            "intervals": {m: (value - 0.03, value + 0.03) for m, value in contributions.items()},
            "groups": {m: "superior" if value > 0.2 else "inferior" for m, value in contributions.items()},
            "loss": 0.4 * math.exp(-epoch / 6) + 0.05,
        }
        if epoch <= window:
            row |= {"alphas": dict.fromkeys(MODALITIES, 2.0), "penalty": 0.03 * math.exp(-epoch / 3)}
            row["fisher"] = {m: value + 0.01 * epoch for m, value in contributions.items()}
        rows.append(row)
    return rows


def calibrated(epochs=12, held_from=5):
    """What a rule by slopes writes: the second modality is held back from an epoch on, the others never."""
    rows = []
    for epoch in range(1, epochs + 1):
        held_out = dict(zip(MODALITIES, (1.0 + 3 / epoch, 1.0 - 0.05 * epoch, 1.0, -40.0 + epoch), strict=True))
        slopes = {"training": dict.fromkeys(MODALITIES, 1.02), "held_out": held_out}
        rows.append(
            {
                "epoch": epoch,
                "contributions": {},
                "alphas": {m: 0.1 * max(0, epoch - held_from + 1) * (m == "lidar") for m in MODALITIES},
                "slopes": slopes,
                "slope_intervals": {
                    data: {m: [value - 0.1, value + 0.1] for m, value in some.items()} for data, some in slopes.items()
                },
                "shares": dict(zip(MODALITIES, (0.6, 0.25, 0.1, 0.05), strict=True)),
            }
        )
    return rows


def diagonal():
    """Fisher diagonals of five layers by modality."""
    return {
        m: {f"layer{k}.conv.weight": torch.full((3,), float(1 + k + i)) for k in range(5)}
        for i, m in enumerate(MODALITIES)
    }


def everything(file, **arguments):
    """A report with every figure."""
    training, held_out = results()
    rows = history()
    for row, seen in zip(rows, calibrated(), strict=False):
        row |= {name: seen[name] for name in ("slopes", "slope_intervals", "shares")}
    return report(
        rows,
        file,
        contributions=training,
        held_out=held_out,
        verdict=judged(),
        fisher=diagonal(),
        **{"window": 8, **arguments},
    )
