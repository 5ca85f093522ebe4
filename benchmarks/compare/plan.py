"""Which runs: subsets of the modalities, a search of every method's strength, and the chosen ones with all seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.task import load_task
from benchmarks.compare.training import Run

Results = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        tasks: By name.
        methods: Of `METHODS`; plain training is always among them.
        seeds: Of the final runs: 0, 1, ...
        share: Of the tasks' own epochs, for a quick look.
        search: Whether strengths are searched; otherwise the middle one is taken.
        subsets: Whether proper subsets of the modalities are trained.
        data: Folder by task, where it is not in the usual places.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int = 5
    share: float = 1.0
    search: bool = True
    subsets: bool = True
    data: tuple[tuple[str, str], ...] = ()

    def strengths(self, method: str) -> tuple[float, ...]:
        """What is tried of a method."""
        values = METHODS[method].values
        return values if self.search else values[len(values) // 2 :][:1]

    def run(self, task: str, method: str, strength: float, seed: int, modalities: Iterable[str] = ()) -> Run:
        """A run of all modalities, or of some."""
        folder = dict(self.data).get(task)
        known = load_task(task, folder)
        epochs = max(2, round(self.share * known.epochs))
        return Run(task, method, strength, seed, tuple(modalities) or known.modalities, epochs, folder)


def search_runs(plan: Plan) -> list[Run]:
    """Every strength of every method, with few seeds."""
    return [
        plan.run(task, method, strength, seed)
        for task in plan.tasks
        for method in plan.methods
        if len(plan.strengths(method)) > 1
        for strength in plan.strengths(method)
        for seed in range(min(plan.seeds, load_task(task, dict(plan.data).get(task)).search_seeds))
    ]


def chosen_strength(plan: Plan, task: str, method: str, searched: Results) -> float | None:
    """The strength with the lowest mean held-out error; None where all failed, or not all were tried.

    A strength with a run that failed is not chosen.
    """
    strengths = plan.strengths(method)
    if len(strengths) == 1:
        return strengths[0]
    errors: dict[float, list[float | None]] = {strength: [] for strength in strengths}
    for result in searched:
        run = result["run"]
        if (run["task"], run["method"]) == (task, method) and run["strength"] in errors:
            errors[run["strength"]].append(result["held_out"])
    if not all(errors.values()):
        return None
    whole = {strength: fmean(found) for strength, found in _finite(errors).items()}
    return min(whole, key=whole.__getitem__) if whole else None


def final_runs(plan: Plan, searched: Results) -> list[Run]:
    """Plain training of every subset and the chosen strength of every method, a whole seed before the next."""
    kinds: list[tuple[str, str, float, tuple[str, ...]]] = []
    for task in plan.tasks:
        kinds += [(task, PLAIN, 0.0, modalities) for modalities in _subsets(plan, task)]
        for method in plan.methods:
            strength = chosen_strength(plan, task, method, searched)
            if strength is not None and method != PLAIN:
                kinds.append((task, method, strength, ()))
    return [
        plan.run(task, method, strength, seed, modalities)
        for seed in range(plan.seeds)
        for task, method, strength, modalities in kinds
    ]


def _subsets(plan: Plan, task: str) -> list[tuple[str, ...]]:
    """All modalities, and before them every proper subset if wanted."""
    known = load_task(task, dict(plan.data).get(task)).modalities
    sizes = range(1, len(known) + 1) if plan.subsets else [len(known)]
    return [subset for size in sizes for subset in combinations(known, size)]


def _finite(errors: dict[float, list[float | None]]) -> dict[float, list[float]]:
    return {
        strength: [value for value in found if value is not None]
        for strength, found in errors.items()
        if None not in found
    }
