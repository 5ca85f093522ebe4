"""The paper's figures from runs on MM-Fi or on simulated data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from examples import figures
from examples.figures import BLUE, GREY, Poses
from examples.mmfi.reproduce.tables import is_balanced, is_simulated
from examples.report import Results

BONES = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
    (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
)  # fmt: skip
"""Pairs of Human3.6M joints."""


def spreads(results: Results, file: Path) -> Path:
    """Figure 3: how far predictions from each modality alone move."""
    return figures.spreads(results, _title("Spread of predictions from one modality of the joint model", results), file)


def contributions(results: Results, file: Path) -> Path:
    """Figure 4: contributions by epoch of plain joint training."""
    return figures.contributions(results, _title("Contributions on held-out clips, plain training", results), file)


def skeletons(results: Results, file: Path) -> Path:
    """Figure 5: true poses and those that plain training and AWC predict, of the first seed."""
    first = min(result["run"]["seed"] for result in results)
    results = [result for result in results if result["run"]["seed"] == first]
    results.sort(key=is_balanced)  # the same colours in whatever order the runs were done
    drawn = [Poses("true", _upright(results[0]["poses"]["true"]))]
    drawn += [Poses(_method(result), _upright(result["poses"]["predicted"])) for result in results]
    return figures.skeletons(drawn, BONES, _title("Four test frames", results), file)


def windows(results: Results, file: Path) -> Path:
    """Figure 6: test error by learning window; a window of 0 is plain training."""
    by_window: dict[int, list[float]] = {}
    for result in results:
        by_window.setdefault(result["run"]["method_options"].get("window", 0), []).append(result["test"]["mpjpe_mm"])
    lengths = sorted(by_window)
    figure, axes = plt.subplots(figsize=(6.5, 3.8))
    for length in lengths:
        axes.plot([length] * len(by_window[length]), by_window[length], "o", color=GREY, alpha=0.7, ms=5)
    axes.plot(lengths, [float(np.mean(by_window[length])) for length in lengths], "s-", color=BLUE, lw=2)
    axes.set_xticks(lengths, ["0\n(plain)" if length == 0 else str(length) for length in lengths])
    axes.set_xlabel(f"learning window K, of {results[0]['run']['epochs']} epochs")
    axes.set_ylabel("test MPJPE, mm (dot: a seed, line: mean)")
    axes.grid(axis="y", alpha=0.3)
    return figures.save(figure, _title("Sensitivity to the learning window", results), file)


def errors(results: Results, file: Path) -> Path:
    """Test error of every kind of run, one fusion and one kind of AWC at most."""
    labels = {
        result["run"]["name"]: "+".join(result["run"]["modalities"])
        + (f", {_method(result)}" if is_balanced(result) else "")
        for result in results
    }
    return figures.errors(results, _title("Error on the test clips", results), file, labels)


def _title(text: str, results: Results) -> str:
    source = "SIMULATED data, not MM-Fi" if is_simulated(results) else "MM-Fi"
    return f"{source}: {text[0].lower()}{text[1:]}"


def _upright(poses: list[Any]) -> np.ndarray[Any, Any]:
    """From mm in the camera's axes (right, down, away) to metres to the right, away, up."""
    metres = np.array(poses) / 1000
    return np.stack([metres[..., 0], metres[..., 2], -metres[..., 1]], axis=-1)


def _method(result: dict[str, Any]) -> str:
    method: str = result["run"]["method"]
    return method
