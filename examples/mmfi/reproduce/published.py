"""The published numbers: AWC paper, arXiv 2501.05264, on MM-Fi with split S1; mm and ms.

They are of the real data. Nothing made from simulated data is comparable with them.
"""

from __future__ import annotations

from typing import NamedTuple


class Errors(NamedTuple):
    """MPJPE and PA-MPJPE in mm; None where the paper gives none."""

    mpjpe: float
    pa_mpjpe: float | None = None


class Cost(NamedTuple):
    """Milliseconds of a step at batch 192 on two RTX 3090, by part."""

    forward: float
    backward: float
    coalitions: float
    correlation: float
    score: float


_P1_P2_P3 = ("P1", "P2", "P3")


def _by_protocol(*pairs: tuple[float, float]) -> dict[str, Errors]:
    return {protocol: Errors(*pair) for protocol, pair in zip(_P1_P2_P3, pairs, strict=True)}


SYSTEMS = {
    "MM-Fi baseline": _by_protocol((72.90, 47.70), (69.50, 43.10), (89.80, 63.20)),
    "X-Fi": {"P3": Errors(88.60, 57.10)},
    "HPE-Li (published: x, y only)": _by_protocol((152.71, 94.39), (162.42, 89.18), (149.42, 92.52)),
}
"""Other systems by name and protocol; HPE-Li is scored on two coordinates and so not comparable."""

METHODS = {
    "concat": {
        "plain": _by_protocol((53.87, 35.09), (52.08, 30.97), (48.17, 32.18)),
        "G-Blending": _by_protocol((58.40, 37.20), (53.48, 34.30), (53.13, 33.28)),
        "OGM-GE": _by_protocol((55.51, 35.92), (52.37, 32.58), (51.68, 32.84)),
        "AGM": _by_protocol((55.80, 38.10), (54.21, 37.95), (53.88, 36.30)),
        "Modality-level": _by_protocol((53.24, 34.81), (55.31, 30.88), (53.98, 31.85)),
        "AWC": _by_protocol((51.16, 34.46), (50.71, 30.85), (47.55, 31.79)),
    },
    "attention": {
        "plain": _by_protocol((53.35, 35.20), (51.01, 31.15), (49.97, 32.33)),
        "G-Blending": _by_protocol((57.14, 38.98), (53.85, 34.52), (53.93, 34.36)),
        "AGM": _by_protocol((58.40, 39.91), (61.28, 41.24), (53.60, 36.86)),
        "Modality-level": _by_protocol((53.33, 35.23), (50.48, 31.47), (50.71, 33.46)),
        "AWC": _by_protocol((51.29, 34.65), (50.42, 30.85), (49.08, 32.10)),
    },
}
"""Table 1: errors by fusion, method and protocol."""

SUBSETS = {
    ("rgb",): Errors(63.61, 35.75),
    ("lidar",): Errors(66.95, 45.70),
    ("mmwave",): Errors(102.89, 52.21),
    ("wifi",): Errors(166.92, 97.39),
    ("rgb", "lidar"): Errors(52.93, 34.96),
    ("rgb", "mmwave"): Errors(63.04, 35.74),
    ("rgb", "wifi"): Errors(65.68, 35.89),
    ("lidar", "mmwave"): Errors(66.85, 45.11),
    ("lidar", "wifi"): Errors(68.08, 46.07),
    ("mmwave", "wifi"): Errors(97.81, 52.16),
    ("rgb", "lidar", "mmwave", "wifi"): Errors(53.87, 35.09),
}
"""Table 3: plain training of some modalities, concatenation, P1."""

ALPHAS = {
    (0, 10_000): Errors(52.92),
    (10_000, 0): Errors(52.09),
    (10_000, 10_000): Errors(51.88),
    (10_000, 20_000): Errors(51.60),
    (20_000, 0): Errors(51.99),
    (20_000, 10_000): Errors(51.16),
    (20_000, 20_000): Errors(51.69),
    (30_000, 20_000): Errors(51.34),
}
"""Table 4: alpha_superior and alpha_inferior, concatenation, P1."""

COSTS = {
    2: Cost(104, 110, 0.36, 0.45, 0.06),
    3: Cost(130, 130, 0.67, 0.95, 0.19),
    4: Cost(291, 445, 1.33, 1.61, 0.43),
}
"""Table 2, concatenation: cost of a step by number of modalities."""

OVERHEADS = {
    "concat": {2: 0.41, 3: 0.70, 4: 0.46},
    "mlp": {2: 0.55, 3: 0.93, 4: 0.68},
    "attention": {2: 3.51, 3: 5.38, 4: 5.08},
}
"""Table 2: time of the contributions in per cent of forward and backward, by fusion and number of modalities."""

SPLIT = "S1"
"""Of all published numbers."""

EPOCHS, BEST_WINDOW = 50, 20
"""Epochs of a run, and the best learning window of Figure 6."""
