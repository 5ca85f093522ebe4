"""Which of the paper's findings appear in a set of runs, by rules that are stated with every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean
from typing import Any, NamedTuple

from examples.mmfi.conventions import MODALITIES
from examples.mmfi.settings import AWC, PLAIN
from examples.report import Results, cell, mean_and_sd

PAPER_ORDER = MODALITIES
"""From the best modality to the worst when trained alone (paper, Table 3)."""
STRONG, WEAK = ("rgb", "lidar"), ("mmwave", "wifi")
COLLAPSED = 0.25
CLEARLY = 0.02
BOTH, SOME, NONE = "appears", "appears in part", "does not appear"


class Finding(NamedTuple):
    """A finding of the paper, whether it appears, the numbers, and the rule that decides."""

    claim: str
    verdict: str
    numbers: str
    rule: str


def findings(results: Results) -> list[Finding]:
    """Judge the runs of `plans.findings`.

    Args:
        results: Of every run of the plan, in one protocol; all seeds.

    Raises:
        ValueError: If a kind of run is missing.
    """
    alone = {modality: _of(results, (modality,)) for modality in MODALITIES}
    pair, plain, held_back = _of(results, STRONG), _of(results, MODALITIES), _of(results, MODALITIES, AWC)
    return [
        order_of_modalities(alone),
        collapse(plain),
        ranking(plain, {modality: fmean(map(_error, runs)) for modality, runs in alone.items()}),
        four_against_two(plain, pair),
        awc_against_plain(held_back, plain),
    ]


def order_of_modalities(alone: Mapping[str, Results]) -> Finding:
    """Trained alone, RGB is best, then LiDAR, mmWave, WiFi."""
    means = {modality: fmean(map(_error, runs)) for modality, runs in alone.items()}
    right = misordered(means, dict(zip(PAPER_ORDER, range(len(PAPER_ORDER)), strict=True))) == 0
    strong_first = max(means[m] for m in STRONG) < min(means[m] for m in WEAK)
    numbers = ", ".join(f"{m} {cell(mean_and_sd(map(_error, runs)))}" for m, runs in alone.items())
    return Finding(
        "errors of modalities trained alone: rgb < lidar < mmwave < wifi",
        BOTH if right else SOME if strong_first else NONE,
        f"{numbers} mm",
        "order of the means; in part: rgb and lidar before mmwave and wifi",
    )


def collapse(plain: Results) -> Finding:
    """In the joint model, predictions from a weak modality alone hardly move."""
    ratios = {m: fmean(run["spread_mm"][m] / run["spread_mm"]["target"] for run in plain) for m in MODALITIES}
    flat = [m for m in WEAK if ratios[m] < COLLAPSED]
    moving = all(ratios[m] > max(ratios[weak] for weak in WEAK) for m in STRONG)
    return Finding(
        "predictions from mmwave or wifi alone collapse in the joint model",
        BOTH if len(flat) == len(WEAK) and moving else SOME if flat or moving else NONE,
        ", ".join(f"{m} {ratio:.0%}" for m, ratio in ratios.items()) + " of the spread of true poses",
        f"both below {COLLAPSED:.0%} and below rgb and lidar; in part: one of these",
    )


def ranking(plain: Results, alone: Mapping[str, float]) -> Finding:
    """Pearson contributions rank the modalities as their errors alone do, those of negative MSE do not."""
    wrong = {
        profit: fmean(misordered({m: -value for m, value in run["epochs"][-1][profit].items()}, alone) for run in plain)
        for profit in ("pearson", "negative_mse")
    }
    better = wrong["pearson"] < wrong["negative_mse"]
    return Finding(
        "Pearson contributions rank the modalities as their errors alone do, negative MSE does not",
        BOTH if wrong["pearson"] == 0 and better else SOME if better else NONE,
        f"pairs in the wrong order, of {len(MODALITIES) * (len(MODALITIES) - 1) // 2}: Pearson {wrong['pearson']:.1f}, "
        f"negative MSE {wrong['negative_mse']:.1f}",
        "contributions at the last epoch, mean over seeds; in part: Pearson is better but not right",
    )


def four_against_two(plain: Results, pair: Results) -> Finding:
    """All four modalities are not clearly better than RGB and LiDAR."""
    gains = _gains(plain, pair)
    clear = min(gains) > 0 and fmean(gains) > CLEARLY * fmean(map(_error, pair))
    return Finding(
        "all four are not clearly better than rgb+lidar",
        NONE if clear else BOTH,
        f"all four {cell(mean_and_sd(map(_error, plain)))}, rgb+lidar {cell(mean_and_sd(map(_error, pair)))}, "
        f"gain by seed {cell(mean_and_sd(gains), sign=True)} mm",
        f"clearly: in every seed, and by more than {CLEARLY:.0%} on average",
    )


def awc_against_plain(held_back: Results, plain: Results) -> Finding:
    """AWC lowers the error of all four."""
    gains = _gains(held_back, plain)
    return Finding(
        "AWC lowers the error of all four",
        BOTH if min(gains) > 0 else SOME if fmean(gains) > 0 else NONE,
        f"AWC {cell(mean_and_sd(map(_error, held_back)))}, plain {cell(mean_and_sd(map(_error, plain)))}, "
        f"gain by seed {cell(mean_and_sd(gains), sign=True)} mm",
        "in every seed; in part: on average",
    )


def have_learned(results: Results) -> bool:
    """Whether models of all modalities, trained plainly, err by less than the mean pose would.

    That errs by sqrt(3) times the standard deviation of a coordinate, in the root mean square.
    """
    plain = _of(results, MODALITIES)
    return fmean(map(_error, plain)) < sqrt(3) * fmean(run["spread_mm"]["target"] for run in plain)


def as_text(found: Sequence[Finding], *, simulated: bool, learned: bool = True) -> str:
    """The findings for the terminal; `learned` as `have_learned` tells."""
    source = "SIMULATED data; says nothing about MM-Fi" if simulated else "MM-Fi"
    lines = [f"The paper's findings ({source}):"]
    if not learned:
        lines.append("  TOO EARLY: even all four err by more than the mean pose would. Train longer, then read on.")
    for finding in found:
        lines += [f"  {finding.verdict.upper()}: {finding.claim}", f"    {finding.numbers}", f"    ({finding.rule})"]
    return "\n".join(lines)


def misordered(first: Mapping[str, float], second: Mapping[str, float]) -> int:
    """Pairs of names that two scores do not order alike, ties included.

    >>> misordered({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 2.0, "b": 1.0, "c": 3.0})
    1
    """
    return sum((first[a] - first[b]) * (second[a] - second[b]) <= 0 for a, b in combinations(first, 2))


def _of(results: Results, modalities: Sequence[str], method: str = PLAIN) -> list[dict[str, Any]]:
    found = [
        result
        for result in results
        if tuple(result["run"]["modalities"]) == tuple(modalities) and result["run"]["method"] == method
    ]
    if not found:
        raise ValueError(
            f"`results` should have {method} runs of {'+'.join(modalities)}. Got none. Let all runs finish."
        )
    return found


def _gains(better: Results, worse: Results) -> list[float]:
    """By how much the error is lower, for every seed that both have."""
    errors = {result["run"]["seed"]: _error(result) for result in worse}
    return [errors[run["run"]["seed"]] - _error(run) for run in better if run["run"]["seed"] in errors]


def _error(result: dict[str, Any]) -> float:
    error: float = result["test"]["mpjpe_mm"]
    return error
