"""Made-up numbers with everything in them that a report can show."""

import math

import torch

from awc_balance.diagnose import Measured
from awc_balance.report import report

HARMFUL_NAME = '<b onload="x">&amp;\'"_with_a_name_that_is_far_too_long_for_any_screen_and_has_no_spaces'
MODALITIES = ["rgb", "lidar", "mmwave", HARMFUL_NAME]


def results():
    """On training and on held-out data."""
    everyone = frozenset(MODALITIES)

    def result(values, half, whole, costs):
        profits = {everyone: whole} | {everyone - {m}: whole - cost for m, cost in zip(MODALITIES, costs, strict=True)}
        by_modality = dict(zip(MODALITIES, values, strict=True))
        return Measured(by_modality, {m: (v - half, v + half) for m, v in by_modality.items()}, profits)

    training = result([0.52, 0.31, 0.12, 0.004], 0.015, 0.954, [0.3, 0.03, 0.2, 0.0])
    return training, result([0.5, 0.18, 0.05, -0.002], 0.02, 0.77, [0.3, 0.01, 0.07, 0.0])


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


def diagonal():
    """Fisher diagonals of five layers by modality."""
    return {
        m: {f"layer{k}.conv.weight": torch.full((3,), float(1 + k + i)) for k in range(5)}
        for i, m in enumerate(MODALITIES)
    }


def everything(file, **arguments):
    """A report with every figure."""
    training, held_out = results()
    return report(history(), file, contributions=training, held_out=held_out, fisher=diagonal(), **arguments)
