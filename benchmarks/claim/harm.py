"""The command `python -m benchmarks.claim.harm`: what the rule costs where every modality tells something. Simulated.

Three modalities, all of them needed: `a` in a simple way; `b` by a product of two of its columns, which is learned
late; `c`, the widest, by a few of its columns. 200 or 1000 samples to train on, 200 held out, 2000 to test, drawn anew
for every seed. With so few samples all encoders fit noise, `b` most of all before it learns the product: a rule that
takes this for its nature keeps it from learning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance import AWCRegularizer
from benchmarks.compare.output import bold
from benchmarks.compare.summary import paired_interval
from examples.machine import machine, machines
from examples.report import markdown_table
from examples.samples import Samples, batches
from examples.sweep import sweep, write_json

WIDTHS = {"a": 8, "b": 12, "c": 20}
EPOCHS = 40
KINDS = ("regression", "classes")


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Attributes:
        kind: Of the targets.
        normalised: Whether encoders have batch norm.
        samples: To train on.
        rule: Whether the calibration rule is on.
        seed: Of the data, the initial weights and the order of the samples.
    """

    kind: str
    normalised: bool
    samples: int
    rule: bool
    seed: int

    @property
    def epochs(self) -> int:
        """Passes over the training part."""
        return EPOCHS

    @property
    def setting(self) -> tuple[str, bool, int]:
        """What is compared by seed with and without the rule."""
        return self.kind, self.normalised, self.samples

    @property
    def name(self) -> str:
        """In file names and progress."""
        return (
            f"{self.kind} {'batch norm' if self.normalised else 'plain'} {self.samples} {'rule' if self.rule else ''}"
        )


class Model(nn.Module):
    """An encoder of two layers for every modality, and a head of two layers on the features side by side."""

    def __init__(self, outputs: int, *, normalised: bool) -> None:
        """With random weights."""
        super().__init__()
        self.encoders = nn.ModuleDict({m: _encoder(width, normalised=normalised) for m, width in WIDTHS.items()})
        self.head = nn.Sequential(nn.Linear(16 * len(WIDTHS), 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Predict `[batch, outputs]`."""
        features = [encoder(inputs[modality]) for modality, encoder in self.encoders.items()]
        prediction: Tensor = self.head(torch.cat(features, 1))
        return prediction


def draw(count: int, kind: str, generator: torch.Generator) -> Samples:
    """So many samples; targets are two numbers, or which of four classes their signs are."""
    x = {modality: torch.randn(count, width, generator=generator) for modality, width in WIDTHS.items()}
    a, b, c = x.values()
    first = a[:, 0] + b[:, 0] * b[:, 1] + 0.7 * c[:, :3].sum(1)
    second = a[:, 1].tanh() + 0.5 * b[:, 3] + c[:, 4]
    target = torch.stack([first, second], 1) + 0.5 * torch.randn(count, 2, generator=generator)
    return Samples(x, target if kind == "regression" else (target > 0).long() @ torch.tensor([1, 2]))


def train(run: Run, tick: Callable[[], None]) -> dict[str, Any]:
    """Train, and test the epoch that is best on the held-out part, and the last one."""
    generator = torch.Generator().manual_seed(run.seed)
    training, held_out, test = (draw(count, run.kind, generator) for count in (run.samples, 200, 2000))
    others = batches(held_out, 64)
    torch.manual_seed(run.seed)
    regression = run.kind == "regression"
    model, loss = Model(2 if regression else 4, normalised=run.normalised), mse_loss if regression else cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    awc = None
    if run.rule:
        profit = "pearson" if regression else "negative_cross_entropy"
        awc = AWCRegularizer(model, model.encoders, loss, rule="calibration", held_out=others, contributions=profit)
    best, chosen, last, loader = float("inf"), 0.0, 0.0, batches(training, 32, run.seed)
    for _ in range(EPOCHS):
        model.train()
        if awc is not None:
            awc.start_epoch(loader)
        for inputs, target in loader:
            optimizer.zero_grad()
            (loss(model(inputs), target) + (0.0 if awc is None else awc())).backward()
            optimizer.step()
        error, last = _mean(model, others, loss), _mean(model, batches(test, 512), loss)
        best, chosen = (error, last) if error < best else (best, chosen)
        tick()
    strengths = {} if awc is None else {m: max(row["alphas"][m] for row in awc.history) for m in WIDTHS}
    return {
        "run": asdict(run),
        "machine": machine(torch.device("cpu")),
        "test": chosen,
        "last": last,
        "strongest": strengths,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Change of the test loss in per cent, paired by seed, and the worst of all seeds."""
    found = {tuple(r["run"].values()): r for r in results}
    rows = []
    for setting in dict.fromkeys(tuple(r["run"].values())[:3] for r in results):
        pairs = [(found.get((*setting, True, s)), found.get((*setting, False, s))) for s in _seeds(results)]
        for which, words in (("test", "best on held-out data"), ("last", "last")):
            changes = [100 * (rule[which] / plain[which] - 1) for rule, plain in pairs if rule and plain]
            held = fmean(max(rule["strongest"].values()) for rule, plain in pairs if rule and plain)
            kind, normalised, samples = setting
            cells = [kind, "batch norm" if normalised else "plain", str(samples), words]
            rows.append(
                [*cells, bold(paired_interval(changes)), f"{max(changes):+.1f}", f"{min(changes):+.1f}", f"{held:.2f}"]
            )
    columns = [
        "targets",
        "encoders",
        "training samples",
        "epoch",
        "change of the test loss, %",
        "worst",
        "best",
        "held back",
    ]
    return markdown_table(columns, rows)


def main(arguments: list[str] | None = None) -> int:
    """Train, and write table and JSON; returns the exit status: 130 if it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claim.harm", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=24, help="(%(default)s)")
    parser.add_argument("--first", type=int, default=100, help="first seed (%(default)s)")
    parser.add_argument("--workers", type=int, help="runs at a time, one thread each (one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/claim_harm"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    settings = [(kind, normalised, n) for kind in KINDS for normalised in (False, True) for n in (200, 1000)]
    runs = [Run(*setting, rule, seed) for seed in seeds for setting in settings for rule in (False, True)]
    results = sweep(train, runs, options.out / "runs", asdict, options.workers)
    print(table(results))
    write_json(options.out / "claim_harm.json", {"simulated": True, "seeds": list(seeds), "machines": machines(results),
        "runs": [{key: value for key, value in result.items() if key != "machine"} for result in results]})  # fmt: skip
    return 0 if len(results) == len(runs) else 130


def _encoder(width: int, *, normalised: bool) -> nn.Module:
    norm: list[nn.Module] = [nn.BatchNorm1d(32)] if normalised else []
    return nn.Sequential(nn.Linear(width, 32), *norm, nn.ReLU(), nn.Linear(32, 16), nn.ReLU())


def _mean(model: nn.Module, loader: Any, loss: Callable[[Tensor, Tensor], Tensor]) -> float:  # noqa: ANN401
    model.eval()
    with torch.no_grad():
        pairs = [(loss(model(inputs), target).item(), len(target)) for inputs, target in loader]
    return sum(value * count for value, count in pairs) / sum(count for _, count in pairs)


def _seeds(results: list[dict[str, Any]]) -> list[int]:
    return sorted({result["run"]["seed"] for result in results})


if __name__ == "__main__":
    sys.exit(main())
