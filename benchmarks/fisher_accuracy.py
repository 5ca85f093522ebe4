"""How close cheap Fisher diagonals are to the exact one, along a real training.

    python -m benchmarks.fisher_accuracy --result benchmarks/results/fisher_accuracy.json

Trains the MARS model of `examples.mars` as there. At the end of some epochs, and so at the anchor of the next, the
exact per-sample diagonal over all training frames is compared with: the exact one on a random subset; the corrected and
the per-batch form from a few batches; the per-batch form from all; and what the gradients of the epoch's own steps say
without any further pass. Scale is log10 of the ratio of totals, shares the largest difference between the parts of the
modalities in the total, rank Spearman's correlation over all parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from scipy.stats import spearmanr
from torch import Tensor

from awc_balance import FisherDiagonal
from awc_balance.fisher import Diagonal, trace
from examples.data_folder import find
from examples.machine import hardware, versions
from examples.mars.data import LAYOUT, load
from examples.mars.model import PoseModel
from examples.mars.training import Run
from examples.pose_metrics import mpjpe
from examples.samples import Samples, batches
from examples.sweep import write_json

Comparison: TypeAlias = dict[str, float]


class SuccessiveDifferences:
    """F = E[g_t g_{t-1}] + B / 2 E[(g_t - g_{t-1})^2], with g the gradients of batches of B samples at each step.

    Neighbouring steps have nearly the same parameters, so that the drift over an epoch does not count as spread.
    """

    def __init__(self, model: PoseModel) -> None:
        """Nothing yet."""
        self._model = model
        self._last: dict[str, dict[str, Tensor]] = {}
        self._total: dict[str, dict[str, Tensor]] = {}
        self._pairs = 0

    def update(self, batch_size: int) -> None:
        """Take in the gradients of a step."""
        now = {
            modality: {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}  # type: ignore[union-attr]
            for modality, encoder in self._model.encoders.items()
        }
        for modality, named in self._last.items():
            total = self._total.setdefault(modality, {})
            for name, before in named.items():
                g = now[modality][name]
                total[name] = total.get(name, 0) + g * before + batch_size / 2 * (g - before).square()
        self._pairs += bool(self._last)
        self._last = now

    def compute(self) -> Diagonal:
        """The estimate; not below 0, which it can be by chance."""
        return {
            modality: {name: (total / self._pairs).clamp(min=0) for name, total in named.items()}
            for modality, named in self._total.items()
        }


def compare(found: Diagonal, exact: Diagonal) -> Comparison:
    """Scale, shares and ranks of an estimate against the exact diagonal."""
    totals, expected = trace(found), trace(exact)
    whole, whole_expected = sum(totals.values()), sum(expected.values())
    shares = [abs(totals[m] / whole - expected[m] / whole_expected) for m in expected]
    rank = spearmanr(_flat(found), _flat(exact)).statistic
    return {
        "scale": float(torch.tensor(whole / whole_expected).log10()),
        "shares": max(shares),
        "rank": float(rank),
    }


def _flat(diagonal: Diagonal) -> Any:  # noqa: ANN401 - numpy's array
    parts = [values.flatten() for named in diagonal.values() for values in named.values()]
    return torch.cat(parts).double().numpy()


def estimates(model: PoseModel, frames: Samples, size: int, seed: int) -> dict[str, Diagonal]:
    """The diagonals of passes over the data, the exact one first; subsets and batches are drawn at random."""

    def run(form: Any, samples: int | None, draw: int) -> Diagonal:  # noqa: ANN401
        loader: Iterable[Any] = batches(frames, size, 1000 * seed + draw)
        if samples is not None:
            loader = list(islice(loader, -(-samples // size)))
        return FisherDiagonal(model.encoders, form, samples=samples).estimate(loader, model, mpjpe)

    return {
        EXACT: run("per_sample", None, 0),
        "exact, 256 samples": run("per_sample", 256, 1),
        "exact, 1024 samples": run("per_sample", 1024, 2),
        "corrected, 4 batches": run("corrected", 4 * size, 3),
        "corrected, 16 batches": run("corrected", 16 * size, 4),
        "per batch, 16 batches": run("per_batch", 16 * size, 5),
        "per batch, all": run("per_batch", None, 6),
    }


EXACT = "exact, all"


def train(run: Run, frames: Samples, at: set[int], tick: Callable[[str], None]) -> dict[int, dict[str, Comparison]]:
    """The comparisons at the ends of the chosen epochs of a plain training."""
    torch.manual_seed(run.seed)
    model = PoseModel(run.modalities)
    optimizer = torch.optim.Adam(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, run.drop_every, 0.1)
    loader = batches(frames, run.batch_size, run.seed)
    results = {}
    for epoch in range(1, max(at) + 1):
        steps = {
            "steps, corrected": FisherDiagonal(model.encoders, "corrected"),
            "steps, successive differences": SuccessiveDifferences(model),
            "steps, per batch": FisherDiagonal(model.encoders, "per_batch"),
        }
        for inputs, poses in loader:
            mpjpe(model(inputs), poses).backward()
            for estimate in steps.values() if epoch in at else ():
                estimate.update(len(poses))  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
        tick(f"seed {run.seed}, epoch {epoch}")
        if epoch in at:
            found = estimates(model, frames, run.batch_size, run.seed)
            found |= {name: estimate.compute() for name, estimate in steps.items()}  # type: ignore[attr-defined]
            results[epoch] = {name: compare(value, found[EXACT]) for name, value in found.items() if name != EXACT}
    return results


def table(results: dict[int, dict[str, list[Comparison]]]) -> str:
    """In Markdown: scale, shares and rank by estimate and epoch, means over seeds."""
    epochs = list(results)
    lines = ["| scale, shares, rank | " + " | ".join(f"epoch {epoch}" for epoch in epochs) + " |"]
    lines.append("|---" * (len(epochs) + 1) + "|")
    for name in results[epochs[0]]:
        cells = []
        for epoch in epochs:
            runs = results[epoch][name]
            mean = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
            cells.append(f"{mean['scale']:+.2f}, {mean['shares']:.3f}, {mean['rank']:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of MARS (searched for)")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="to compare at (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two epochs, one seed, an eighth of the frames")
    parser.add_argument("--result", type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = find("mars", LAYOUT, args.data)
    frames = load(data).train
    epochs, seeds = ([1, 2], 1) if args.quick else (sorted(set(args.epochs)), args.seeds)
    if args.quick:
        frames = frames.take(torch.arange(0, len(frames), 8))
    runs = [
        train(Run("plain", "", seed), frames, set(epochs), lambda line: print(line, flush=True))
        for seed in range(seeds)
    ]
    results = {epoch: {name: [run[epoch][name] for run in runs] for name in runs[0][epoch]} for epoch in epochs}
    print(table(results), f"\nMeans over {seeds} seeds; scale is log10 of the ratio to the exact diagonal's total.")
    if args.result is not None:
        args.result.parent.mkdir(parents=True, exist_ok=True)
        header = {"hardware": hardware(torch.device("cpu")), "versions": versions(), "frames": len(frames)}
        write_json(args.result, {**header, "quick": args.quick, "seeds": seeds, "epochs": results})


if __name__ == "__main__":
    main()
