"""What contributions cost: exact values against other libraries, shortcuts against running every coalition, sampling.

    python -m benchmarks.contributions [--quick] [--result results/contributions.json]

Every comparison is made side by side in this one run, on one thread, and given as a ratio. Of shapiq, captum and shap
those that are not installed are left out, and named (`pip install awc_balance[benchmarks]` has them). Two games:

- exact: a table of random profits, so that nothing but the computation of the values takes time.
- sampling: profits of 12 (and 16) modalities with parts, pairs, saturation and a threshold, seeds 0 to 9.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from awc_balance import ShapleyContribution, shapley_values
from awc_balance.contributions.designs import AllCoalitions
from awc_balance.contributions.sampling import SampledCoalitions
from examples.machine import hardware, versions
from examples.sweep import write_json

OTHERS = ("shapiq", "captum", "shap")
CAPTUM_MOST = 7
"""It goes through all orders: 8 modalities would have 40 320."""

BUDGETS = (100, 200, 500, 1000, 2000)
OUTPUTS = 51
"""17 joints with three coordinates."""

Solver: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From a table of 2^M profits to M values."""


def exact_by_shapiq(table: np.ndarray) -> np.ndarray:
    """Shapley values of a table by shapiq's exact computation."""
    from shapiq import ExactComputer

    modalities = len(table).bit_length() - 1
    bits = 2 ** np.arange(modalities)
    computer = ExactComputer(lambda coalitions: table[coalitions.astype(int) @ bits], modalities)
    found = computer("SV", 1)
    return np.array([found[(m,)] for m in range(modalities)])


def exact_by_captum(table: np.ndarray) -> np.ndarray:
    """Shapley values of a table by captum, which goes through all orders."""
    from captum.attr import ShapleyValues

    modalities = len(table).bit_length() - 1
    profits, bits = torch.from_numpy(table), 2 ** torch.arange(modalities)
    method = ShapleyValues(lambda rows: profits[rows.long() @ bits])
    found: np.ndarray = method.attribute(
        torch.ones(1, modalities, dtype=torch.float64), perturbations_per_eval=1024
    ).numpy()[0]
    return found


def exact_by_shap(table: np.ndarray) -> np.ndarray:
    """Shapley values of a table by shap's exact explainer."""
    import shap

    modalities = len(table).bit_length() - 1
    bits = 2 ** np.arange(modalities)
    explainer = shap.explainers.Exact(
        lambda rows: table[rows.astype(int) @ bits], shap.maskers.Independent(np.zeros((1, modalities)))
    )
    found: np.ndarray = explainer(np.ones((1, modalities)), silent=True).values[0]
    return found


SOLVERS: dict[str, Solver] = {"shapiq": exact_by_shapiq, "captum": exact_by_captum, "shap": exact_by_shap}


def milliseconds(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least time of each, which other work on the machine disturbs least; taken in turn, after a first call.

    What takes less than ten milliseconds is called often enough to take as long.
    """
    calls, times = {}, dict.fromkeys(functions, float("inf"))
    for name, function in functions.items():
        function()
        calls[name] = max(1, int(10 / _once(function, 1)))
    for _ in range(repeats):
        for name, function in functions.items():
            times[name] = min(times[name], _once(function, calls[name]))
    return times


def _once(function: Callable[[], object], calls: int) -> float:
    """Milliseconds of one of so many calls."""
    start = perf_counter()
    for _ in range(calls):
        function()
    return 1000 * (perf_counter() - start) / calls


def exact(modalities: int, installed: list[str], repeats: int) -> dict[str, Any]:
    """Our exact values and those of other libraries: time, the ratio to ours, and the largest difference."""
    table = np.random.default_rng(0).normal(size=2**modalities)
    ours = shapley_values(table).numpy()
    solvers = {name: SOLVERS[name] for name in installed if name != "captum" or modalities <= CAPTUM_MOST}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda solver=solver: solver(table))  # type: ignore[misc]
        for name, solver in solvers.items()
    }
    times = milliseconds({"ours": lambda: shapley_values(table), **calls}, repeats)
    return {
        "modalities": modalities,
        "milliseconds": times,
        "times_ours": {name: times[name] / times["ours"] for name in solvers},
        "largest_difference": {name: float(np.abs(solver(table) - ours).max()) for name, solver in solvers.items()},
    }


class Model(nn.Module):
    """Small encoders, concatenation, and a head that is linear or has a hidden layer."""

    def __init__(self, modalities: int, *, additive: bool) -> None:
        """See the class."""
        super().__init__()
        self.encoders = nn.ModuleDict({f"m{i}": nn.Linear(8, 32) for i in range(modalities)})
        width = 32 * modalities
        self.head = (
            nn.Linear(width, OUTPUTS)
            if additive
            else nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, OUTPUTS))
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Predict from inputs by modality."""
        features = [encoder(inputs[modality]) for modality, encoder in self.encoders.items()]
        prediction: Tensor = self.head(torch.cat(features, 1))
        return prediction


def shortcut(modalities: int, *, additive: bool, repeats: int) -> dict[str, Any]:
    """A shortcut against running every coalition one by one, on eight batches of 64 samples."""
    torch.manual_seed(0)
    model = Model(modalities, additive=additive)
    batches = [({m: torch.randn(64, 8) for m in model.encoders}, torch.randn(64, OUTPUTS)) for _ in range(8)]
    measures = {
        name: ShapleyContribution(model, model.encoders, fast=fast, interval=None)
        for name, fast in (("fast", True), ("one by one", False))
    }
    found = {name: measure.evaluate(batches) for name, measure in measures.items()}
    times = milliseconds({name: lambda m=m: m.evaluate(batches) for name, m in measures.items()}, repeats)  # type: ignore[misc]
    return {
        "modalities": modalities,
        "head": "linear" if additive else "two layers",
        "route": found["fast"].route,
        "milliseconds": times,
        "times_faster": times["one by one"] / times["fast"],
        "largest_difference": max(
            float((a - b).abs().max())
            for a, b in zip(found["fast"].per_output.values(), found["one by one"].per_output.values(), strict=True)
        ),
    }


def game(modalities: int, seed: int) -> Tensor:
    """Profits of all coalitions: parts, pairs, saturation, and a threshold."""
    generator = torch.Generator().manual_seed(seed)
    members = AllCoalitions(modalities).members.double()
    parts = torch.rand(modalities, generator=generator, dtype=torch.float64)
    pairs = 0.1 * torch.randn(modalities, modalities, generator=generator, dtype=torch.float64)
    joint = members @ parts / parts.sum() + ((members @ pairs) * members).sum(1) / modalities
    return joint.tanh() + 0.1 * (members[:, :3].sum(1) > 1)


def sampling(modalities: int, budget: int, seeds: int, installed: list[str]) -> dict[str, Any]:
    """Root-mean-square errors of estimates by a budget, as a share of the mean size of a value; ours and shapiq's."""
    misses: dict[str, list[float]] = {"ours": []}
    claimed = []
    for seed in range(seeds):
        profits = game(modalities, seed)
        truth = shapley_values(profits)
        size = float(truth.abs().mean())
        design = SampledCoalitions(modalities, budget, seed)
        drawn = profits[torch.tensor(list(design.codes))]
        misses["ours"].append(float((design.values(drawn) - truth).square().mean()) / size**2)
        claimed.append(float(design.errors(drawn).square().mean()) / size**2)
        if "shapiq" in installed:
            estimate = sampled_by_shapiq(profits.numpy(), budget, seed)
            misses.setdefault("shapiq, paired KernelSHAP", []).append(
                float(np.square(estimate - truth.numpy()).mean()) / size**2
            )
    return {
        "modalities": modalities,
        "budget": budget,
        "seeds": seeds,
        "relative_error": {name: float(np.sqrt(np.mean(values))) for name, values in misses.items()},
        "relative_error_as_estimated": float(np.sqrt(np.mean(claimed))),
    }


def sampled_by_shapiq(table: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Shapley values of a table by shapiq's KernelSHAP with paired coalitions."""
    from shapiq.approximator import KernelSHAP

    modalities = len(table).bit_length() - 1
    bits = 2 ** np.arange(modalities)
    method = KernelSHAP(modalities, pairing_trick=True, random_state=seed)
    found = method.approximate(budget, lambda coalitions: table[coalitions.astype(int) @ bits])
    return np.array([found[(m,)] for m in range(modalities)])


def measure(*, quick: bool) -> dict[str, Any]:
    """All comparisons as JSON data."""
    installed = [name for name in OTHERS if find_spec(name) is not None]
    repeats = 3 if quick else 7
    sizes = (4, 7, 8) if quick else (4, 7, 8, 12, 16)
    return {
        "command": "python -m benchmarks.contributions" + (" --quick" if quick else ""),
        "hardware": hardware(torch.device("cpu")),
        "versions": versions() | {name: version(name) for name in installed},
        "not_installed": [name for name in OTHERS if name not in installed],
        "exact": [exact(n, installed, repeats) for n in sizes],
        "shortcuts": [
            shortcut(n, additive=additive, repeats=1 if n > 8 else repeats)
            for additive in (True, False)
            for n in ((4, 8) if quick else (4, 8, 10, 12))
        ],
        "sampling": [
            sampling(n, budget, 3 if quick else 10, installed)
            for n in ((12,) if quick else (12, 16))
            for budget in (BUDGETS[:3] if quick else BUDGETS)
        ],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """What is worth a line each."""
    found = [f"{result['hardware']}; {result['versions']}"]
    found += [f"{name} is not installed: left out" for name in result["not_installed"]]
    for row in result["exact"]:
        ratios = (f"{name} {ratio:.0f} x ours" for name, ratio in row["times_ours"].items())
        worst = max(row["largest_difference"].values(), default=0.0)
        found.append(
            f"exact, {row['modalities']} modalities: {row['milliseconds']['ours']:.3f} ms; "
            f"{', '.join(ratios) or 'nothing to compare with'}; largest difference {worst:.0e}"
        )
    for row in result["shortcuts"]:
        found.append(
            f"{row['head']} head, {row['modalities']} modalities: {row['route']} {row['times_faster']:.1f} times as "
            f"fast as one by one; largest difference {row['largest_difference']:.0e}"
        )
    for row in result["sampling"]:
        errors = (f"{name} {100 * error:.2f} %" for name, error in row["relative_error"].items())
        found.append(
            f"{row['modalities']} modalities, budget {row['budget']}: error {', '.join(errors)}; "
            f"estimated {100 * row['relative_error_as_estimated']:.2f} %"
        )
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes, in seconds")
    parser.add_argument("--result", type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other libraries
        result = measure(quick=args.quick)
    print(*lines(result), sep="\n")
    if args.result is not None:
        args.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.result, result)


if __name__ == "__main__":
    main()
