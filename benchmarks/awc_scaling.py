"""How the cost and the memory of AWC grow with parameters, modalities and the batch.

    python -m benchmarks.awc_scaling [--quick] [--device cpu] [--result FILE]

Models of one multi-layer perceptron per modality and a head on the concatenated features; one size varies, the others
stay. A second table holds what the formulas of README.md give for a large model on many GPUs: computed, not measured.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from benchmarks.awc_timing import give, milliseconds, parse, parser
from examples.report import markdown_table

INPUTS, OUTPUTS = 32, 51
BASE = {"width": 256, "modalities": 4, "batch": 64}
VARIED = {"width": (64, 128, 512, 1024), "modalities": (1, 2, 6, 8, 10), "batch": (16, 256, 1024)}
QUICK = {"width": (512,), "modalities": (6,), "batch": (256,)}
DEPTH = 4
TIMED = ("forward", "step", "optimizer", "pull", "contributions", "fisher")
LARGE = {
    "parameters": 1e9,  # all of them in encoders
    "gpus": 64,
    "tokens": 16_384,  # of a step on one GPU
    "operations": 4e14,  # a second: 40 % of the dense bfloat16 rate in the data sheet of the H100
    "bandwidth": 3.35e12,  # bytes a second of its memory, from the same sheet
    "network": 5e10,  # bytes a second between GPUs: 400 Gbit/s each
    "steps": 10_000,  # of an epoch
    "batches": 5,  # measured on where few are
}
"""Assumptions, none of them measured here, under which the formulas are worked out for a large model."""
NOTES = (
    "Milliseconds: of a forward pass, a plain step and the optimizer's part of it; of the pull at every step; of both",
    "measurements on one batch. Bytes: kept for each parameter of the encoders, in float32, and with Fisher diagonals",
    "in bfloat16.",
)


class Fused(nn.Module):
    """One encoder per modality and a head on all features."""

    def __init__(self, width: int, modalities: int) -> None:
        """Build it, `DEPTH` hidden layers of `width` an encoder."""
        super().__init__()
        widths = [INPUTS, *[width] * DEPTH]
        self.encoders = nn.ModuleDict(
            {
                f"m{number}": nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)))
                for number in range(modalities)
            }
        )
        self.head = nn.Linear(width * modalities, OUTPUTS)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Predict from `[batch, INPUTS]` of each modality."""
        prediction: Tensor = self.head(torch.cat([self.encoders[m](x) for m, x in inputs.items()], dim=1))
        return prediction


def row(size: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one size."""
    model = Fused(size["width"], size["modalities"]).to(args.device)
    inputs = {m: torch.randn(size["batch"], INPUTS, device=args.device) for m in model.encoders}
    target = torch.randn(size["batch"], OUTPUTS, device=args.device)
    mse, batch = nn.functional.mse_loss, (inputs, target)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the model stays as it is
    contribution, fisher = ShapleyContribution(model, model.encoders), FisherDiagonal(model.encoders, "per_batch")
    awc = AWCRegularizer(model, model.encoders, mse, fisher=fisher)
    coarse = AWCRegularizer(model, model.encoders, mse, fisher_dtype=torch.bfloat16)
    awc.start_epoch([batch])

    def step() -> None:
        optimizer.zero_grad()
        mse(model(inputs), target).backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> None:
        model(inputs)

    works = {
        "forward": forward,
        "step": step,
        "optimizer": optimizer.step,
        "pull": awc.add_gradient_,
        "contributions": lambda: contribution.evaluate([batch]),
        "fisher": lambda: fisher.estimate([batch], model, mse),
    }
    parameters = sum(p.numel() for p in model.encoders.parameters())
    return {
        **size,
        "parameters": parameters,
        "milliseconds": {k: round(v, 3) for k, v in milliseconds(works, args.device, args.rounds).items()},
        "bytes": {name: round(kept(each) / parameters, 2) for name, each in {"float32": awc, "coarse": coarse}.items()},
    }


def kept(awc: AWCRegularizer) -> int:
    """Bytes of all buffers."""
    return sum(buffer.numel() * buffer.element_size() for buffer in awc.buffers())


def computed() -> dict[str, float]:
    """What the formulas of README.md give for a large model on many GPUs. Nothing of it is measured."""
    step = 6 * LARGE["parameters"] * LARGE["tokens"] / LARGE["operations"]
    pull = 7 * 4 * LARGE["parameters"] / LARGE["bandwidth"]
    exchange = 2 * 4 * LARGE["parameters"] / LARGE["network"]
    few = LARGE["batches"] * (1 / 3 + 1) * step + exchange
    epoch = LARGE["steps"] * step
    return {
        "step, ms": 1e3 * step,
        "pull of all parameters on every GPU, ms": 1e3 * pull,
        "the same, % of a step": 100 * pull / step,
        "pull of sharded parameters, % of a step": 100 * pull / LARGE["gpus"] / step,
        "contributions and Fisher diagonals of all batches, % of an epoch": 100 * (1 / 3 + 1),
        "contributions and Fisher diagonals of few batches, % of an epoch": 100 * few / epoch,
        "kept on every GPU, GB": 8e-9 * LARGE["parameters"],
        "kept on every GPU, sharded, GB": 8e-9 * LARGE["parameters"] / LARGE["gpus"],
    }


def main() -> None:
    """Measure, print and save."""
    args = parse(parser(__doc__))
    varied = QUICK if args.quick else VARIED
    sizes = [BASE, *({**BASE, name: value} for name, values in varied.items() for value in values)]
    columns = {
        **{name: f"{{{name}}}" for name in BASE},
        "parameters": "{parameters:,}",
        **{f"{name}, ms": f"{{milliseconds[{name}]:.2f}}" for name in TIMED},
        "bytes": "{bytes[float32]:g}",
        "bytes, bfloat16": "{bytes[coarse]:g}",
    }
    give(args, NOTES, [row(size, args) for size in sizes], columns)
    print("\nComputed, not measured, for", ", ".join(f"{name} {value:g}" for name, value in LARGE.items()), end="\n\n")
    print(markdown_table(["computed", ""], [[name, f"{value:.3g}"] for name, value in computed().items()]))


if __name__ == "__main__":
    main()
