"""What the runs say together: summary, table, and figures."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from examples.mars.data import MODALITIES
from examples.mars.figures import contributions, errors, poses, spreads
from examples.mars.training import PLAIN

Results = list[dict[str, Any]]


def summarize(results: Results) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every kind of run, and the difference to plain training by seed."""
    kinds = dict.fromkeys(result["run"]["name"] for result in results)
    return {
        "runs": {name: _kind(name, results) for name in kinds},
        "modalities": {modality: _modality(modality, results) for modality in MODALITIES},
        "target_spread_mm": fmean(result["spread_mm"]["target"] for result in results),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as text."""
    lines = [f"{'test error, mm':32}{'MPJPE':>16}{'PA-MPJPE':>16}{'against plain':>18}{'seeds':>7}"]
    for name, row in summary["runs"].items():
        against = row["against_plain_mm"]
        change = f"{against['mean']:+.1f} ± {against['sd']:.1f}" if against else ""
        cells = [f"{row[key]['mean']:.1f} ± {row[key]['sd']:.1f}" for key in ("mpjpe_mm", "pa_mpjpe_mm")]
        lines.append(f"{name:32}{cells[0]:>16}{cells[1]:>16}{change:>18}{row['seeds']:>7}")
    lines += ["", f"{PLAIN + ': contribution by':32}{'Pearson':>16}{'negative MSE':>16}{'prediction sd, mm':>18}"]
    for modality, row in summary["modalities"].items():
        if row:
            lines.append(
                f"{modality:32}{row['pearson']['mean']:>16.3f}{row['negative_mse']['mean']:>16.4f}"
                f"{row['spread_mm']['mean']:>18.1f}"
            )
    lines.append(f"{'true poses':32}{'':>16}{'':>16}{summary['target_spread_mm']:>18.1f}")
    return "\n".join(lines)


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the figures that the finished runs allow."""
    plain = [result for result in results if result["run"]["name"] == PLAIN]
    files = [errors(results, folder / "errors.png")]
    if plain:
        files += [
            contributions(plain, folder / "contributions.png"),
            spreads(plain, folder / "spreads.png"),
            poses(plain[0], folder / "poses.png"),
        ]
    return files


def _kind(name: str, results: Results) -> dict[str, Any]:
    mine = {result["run"]["seed"]: result["test"] for result in results if result["run"]["name"] == name}
    plain = {result["run"]["seed"]: result["test"] for result in results if result["run"]["name"] == PLAIN}
    both = sorted(mine.keys() & plain.keys()) if name != PLAIN else []
    return {
        "seeds": len(mine),
        "mpjpe_mm": _spread([test["mpjpe_mm"] for test in mine.values()]),
        "pa_mpjpe_mm": _spread([test["pa_mpjpe_mm"] for test in mine.values()]),
        "against_plain_mm": _spread([mine[seed]["mpjpe_mm"] - plain[seed]["mpjpe_mm"] for seed in both]),
    }


def _modality(modality: str, results: Results) -> dict[str, Any]:
    plain = [result for result in results if result["run"]["name"] == PLAIN]
    last = [result["epochs"][-1] for result in plain]
    return (
        {
            "pearson": _spread([epoch["pearson"][modality] for epoch in last]),
            "negative_mse": _spread([epoch["negative_mse"][modality] for epoch in last]),
            "spread_mm": _spread([result["spread_mm"][modality] for result in plain]),
        }
        if plain
        else {}
    )


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else 0.0}
