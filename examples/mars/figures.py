"""Figures of the runs: errors, contributions by epoch, spread of predictions, poses."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from examples.mars.data import MODALITIES

COLOURS = dict(zip(MODALITIES, ("#0072b2", "#d55e00", "#009e73"), strict=True))  # Okabe and Ito, for all eyes
BONES = [
    (0, 1), (1, 20), (20, 2), (2, 3),
    (20, 4), (4, 5), (5, 6), (6, 7), (20, 8), (8, 9), (9, 10), (10, 11),
    (0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
]  # fmt: skip
"""Pairs of Kinect joints."""

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150})


def errors(results: list[dict[str, Any]], file: Path) -> Path:
    """Test MPJPE of every kind of run: a dot per seed, a bar at the mean."""
    kinds = list(dict.fromkeys(result["run"]["name"] for result in results))
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(kinds) + 1.2))
    for row, name in enumerate(reversed(kinds)):
        values = [result["test"]["mpjpe_mm"] for result in results if result["run"]["name"] == name]
        axes.plot(values, [row] * len(values), "o", color="#0072b2" if name.startswith("all") else "#999999", alpha=0.7)
        axes.plot([fmean(values)] * 2, [row - 0.3, row + 0.3], color="black", lw=2)
    axes.set_yticks(range(len(kinds)), list(reversed(kinds)))
    axes.set_xlabel("test MPJPE, mm (dot: a seed, bar: mean)")
    axes.set_title("MARS: error on the test files", loc="left")
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, file)


def contributions(results: list[dict[str, Any]], file: Path) -> Path:
    """Contribution of each modality by epoch, under Pearson and under negative MSE; bands span the seeds."""
    figure, both = plt.subplots(1, 2, figsize=(10, 3.8))
    for axes, profit, unit in zip(both, ("pearson", "negative_mse"), ("correlation", "m²"), strict=True):
        for modality, colour in COLOURS.items():
            values = np.array([[epoch[profit][modality] for epoch in result["epochs"]] for result in results])
            epochs = np.arange(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), color=colour, label=modality, lw=2)
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
        axes.axhline(0, color="black", lw=0.8)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"contribution, {unit}")
        axes.set_title({"pearson": "Pearson", "negative_mse": "negative MSE"}[profit], loc="left")
    both[0].legend(frameon=False)
    figure.suptitle("MARS, plain training of all three: contributions on held-out frames", x=0.01, ha="left")
    return _save(figure, file)


def spreads(results: list[dict[str, Any]], file: Path) -> Path:
    """Standard deviation of predictions from one modality alone, beside that of the true poses."""
    figure, axes = plt.subplots(figsize=(5.5, 3.4))
    for place, (modality, colour) in enumerate(COLOURS.items()):
        values = [result["spread_mm"][modality] for result in results]
        axes.bar(place, fmean(values), color=colour, width=0.6, alpha=0.85)
        axes.plot([place] * len(values), values, "o", color="black", ms=4)
    target = fmean(result["spread_mm"]["target"] for result in results)
    axes.axhline(target, color="black", ls="--", lw=1)
    axes.text(2.45, target, "true poses", ha="right", va="bottom")
    axes.set_ylim(0, 1.15 * target)
    axes.set_xticks(range(len(COLOURS)), list(COLOURS))
    axes.set_ylabel("standard deviation, mm")
    axes.set_title("MARS: how much each modality moves the prediction", loc="left")
    return _save(figure, file)


def poses(result: dict[str, Any], file: Path) -> Path:
    """True and predicted skeletons of some test frames, seen from the front."""
    true, predicted = np.array(result["poses"]["true"]) / 1000, np.array(result["poses"]["predicted"]) / 1000
    figure, frames = plt.subplots(1, len(true), figsize=(2.6 * len(true), 4.2), sharex=True, sharey=True)
    for axes, *pair in zip(frames, true, predicted, strict=True):
        for pose, colour, name in zip(pair, ("#444444", "#d55e00"), ("Kinect", "radar"), strict=True):
            for start, end in BONES:
                label = name if (start, end) == BONES[0] else None
                axes.plot(pose[[start, end], 0], pose[[start, end], 2], color=colour, lw=2.5, alpha=0.8, label=label)
        axes.set_aspect("equal")
        axes.set_xlabel("x, m")
    frames[0].set_ylabel("z, m")
    frames[0].legend(frameon=False, loc="upper left", fontsize=8)
    figure.suptitle("MARS: four test frames, plain training of all three", x=0.01, ha="left")
    return _save(figure, file)


def _save(figure: Any, file: Path) -> Path:  # noqa: ANN401 - matplotlib carries no types
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)
    return file
