"""Figures of runs: errors, contributions by epoch, spread of predictions, skeletons.

Colours are those of Okabe and Ito, which all eyes tell apart; lines also differ in dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from awc_balance.report.files import write_whole
from examples.report import Results, named

BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"
_COLOURS, _DASHES = (BLUE, VERMILION, GREEN, PURPLE), ("-", "--", "-.", ":")
_PROFITS = {"pearson": ("Pearson", "correlation"), "negative_mse": ("negative MSE", "m²")}

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150})


class Poses(NamedTuple):
    """Poses to draw, `[frames, joints, 3]` in metres: to the right, away from the viewer, up."""

    name: str
    joints: npt.NDArray[Any]


def errors(results: Results, title: str, file: Path, labels: Mapping[str, str] | None = None) -> Path:
    """Test MPJPE of every kind of run: a dot per seed, a bar at the mean; models of all modalities in blue.

    Args:
        results: Of the runs.
        title: Of the figure.
        file: To write.
        labels: What to call the kinds, by their names; None for the names.
    """
    names = list(dict.fromkeys(result["run"]["name"] for result in results))
    most = max(len(result["run"]["modalities"]) for result in results)
    figure, axes = plt.subplots(figsize=(7.5, 0.45 * len(names) + 1.3))
    for row, name in enumerate(reversed(names)):
        mine = named(results, name)
        values = [result["test"]["mpjpe_mm"] for result in mine]
        whole = len(mine[0]["run"]["modalities"]) == most
        axes.plot(values, [row] * len(values), "o", color=BLUE if whole else GREY, alpha=0.7)
        axes.plot([fmean(values)] * 2, [row - 0.3, row + 0.3], color="black", lw=2)
    axes.set_yticks(range(len(names)), [(labels or {}).get(name, name) for name in reversed(names)])
    axes.set_xlabel("test MPJPE, mm (dot: a seed, bar: mean)")
    axes.grid(axis="x", alpha=0.3)
    return save(figure, title, file)


def contributions(results: Results, title: str, file: Path) -> Path:
    """Contribution of each modality by epoch, under Pearson and under negative MSE; bands span the seeds."""
    figure, both = plt.subplots(1, 2, figsize=(10, 3.9))
    for axes, (profit, (name, unit)) in zip(both, _PROFITS.items(), strict=True):
        for modality, (colour, dashes) in styles(results).items():
            values = np.array([[epoch[profit][modality] for epoch in result["epochs"]] for result in results])
            epochs = np.arange(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), color=colour, ls=dashes, label=modality, lw=2)
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
        axes.axhline(0, color="black", lw=0.8)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.set_ylabel(f"contribution, {unit}")
        axes.set_title(name, loc="left")
    both[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=3)
    return save(figure, title, file)


def spreads(results: Results, title: str, file: Path) -> Path:
    """Standard deviation of predictions from one modality alone, beside that of the true poses."""
    figure, axes = plt.subplots(figsize=(6.5, 3.6))
    bars = styles(results)
    for place, (modality, (colour, _)) in enumerate(bars.items()):
        values = [result["spread_mm"][modality] for result in results]
        axes.bar(place, fmean(values), color=colour, width=0.6, alpha=0.85)
        axes.plot([place] * len(values), values, "o", color="black", ms=4)
    target = fmean(result["spread_mm"]["target"] for result in results)
    top = max([target, *(result["spread_mm"][modality] for result in results for modality in bars)])
    axes.axhline(target, color="black", ls="--", lw=1)
    axes.text(len(bars) - 0.7, target, "true poses", ha="right", va="bottom")
    axes.set_ylim(0, 1.15 * top)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.set_ylabel("standard deviation, mm (dot: a seed)")
    return save(figure, title, file)


def skeletons(drawn: Sequence[Poses], bones: Sequence[tuple[int, int]], title: str, file: Path) -> Path:
    """Skeletons of some frames in 3D: the first poses, the true ones, in grey, then predictions in colours.

    Args:
        drawn: Poses of the same frames, the true ones first.
        bones: Pairs of joints.
        title: Of the figure.
        file: To write.
    """
    points = np.stack([poses.joints for poses in drawn])
    frames = points.shape[1]
    figure = plt.figure(figsize=(3.1 * frames, 4.2))
    colours = dict(zip((poses.name for poses in drawn), ("#444444", VERMILION, BLUE), strict=False))
    for frame in range(frames):
        axes = figure.add_subplot(1, frames, frame + 1, projection="3d")
        for (name, joints), dashes in zip(drawn, _DASHES, strict=False):
            for bone in bones:
                label = name if bone == bones[0] else None
                axes.plot(*joints[frame, list(bone)].T, color=colours[name], ls=dashes, lw=2, alpha=0.85, label=label)
        _same_scale(axes, points.min((0, 1, 2)) - 0.05, points.max((0, 1, 2)) + 0.05)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="lower right", ncols=len(drawn))
    _headline(figure, f"{title} (grid: 0.5 m)")
    figure.subplots_adjust(0.01, 0.07, 0.99, 0.92, wspace=0.02)
    return _write(figure, file)


def styles(results: Results) -> dict[str, tuple[str, str]]:
    """Colour and dashes by modality."""
    modalities = results[0]["epochs"][0]["pearson"]
    return dict(zip(modalities, zip(_COLOURS, _DASHES, strict=True), strict=False))


def save(figure: Any, title: str, file: Path) -> Path:  # noqa: ANN401 - matplotlib carries no types
    """Write a figure with a title and tight margins, and close it."""
    _headline(figure, title)
    figure.tight_layout()
    return _write(figure, file)


def _headline(figure: Any, title: str) -> None:  # noqa: ANN401 - as above
    """A title from the left edge, in as many lines as the width asks for."""
    figure.suptitle(fill(title, int(12.5 * figure.get_figwidth())), x=0.01, ha="left", fontsize=11)


def _write(figure: Any, file: Path) -> Path:  # noqa: ANN401 - matplotlib carries no types
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = BytesIO()
    figure.savefig(picture, format=file.suffix[1:])
    plt.close(figure)
    write_whole(file, picture.getvalue())
    return file


def _same_scale(axes: Any, low: npt.NDArray[Any], high: npt.NDArray[Any]) -> None:  # noqa: ANN401 - as above
    """One length of a metre along all axes, and a grid of half a metre in place of numbers."""
    axes.set_box_aspect(high - low, zoom=1.25)
    for name, least, most in zip("xyz", low, high, strict=True):
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(matplotlib.ticker.MultipleLocator(0.5))
        axis.set_ticklabels([])
        axis.set_tick_params(size=0)
        getattr(axes, f"set_{name}lim")(least, most)
    axes.view_init(elev=12, azim=-70)
