"""What AWC adds to the training of the MM-Fi models, measured on all batches and on a few, beside the paper's Table 2.

    python -m benchmarks.awc_overhead [--quick] [--preset small] [--device cpu] [--result FILE]

Inputs are random, in the shapes of MM-Fi. Parts are timed in interleaved rounds and then put together for an epoch of
the window: passes over the loader for contributions and Fisher diagonals, anchors, and the pull at every step.
Batches are in memory: what it costs to load them once or twice more is not counted. The paper's setting is
`--preset paper --batch-size 192 --lidar-points 512 --mmwave-points 128`, for a GPU.
"""

from __future__ import annotations

import argparse
from math import ceil
from typing import Any

import torch
from torch import Tensor

from awc_balance import AWCRegularizer, Calibration, FisherDiagonal, ShapleyContribution
from awc_balance.batches import default_step
from awc_balance.calibration.elasticity import elasticities
from benchmarks.awc_timing import give, milliseconds, parse, parser
from examples.mmfi.models import FUSIONS, MODALITIES, PRESETS, PoseModel, build_model
from examples.mmfi.reproduce.published import OVERHEADS
from examples.pose_metrics import mpjpe

FRAMES = 119_750
"""Training frames of an epoch of protocol P1: 14 actions of 32 subjects, 297 frames each, a tenth of them held out."""

Inputs = dict[str, "Tensor | tuple[Tensor, Tensor]"]


def random_batch(args: argparse.Namespace) -> tuple[Inputs, Tensor]:
    """Readings of all modalities and poses; every cloud is full."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(args.batch_size, *shape, device=args.device)

    def cloud(points: int, columns: int) -> tuple[Tensor, Tensor]:
        return normal(points, columns), torch.ones(args.batch_size, points, dtype=torch.bool, device=args.device)

    inputs: Inputs = {
        "rgb": normal(81, 17, 2),
        "lidar": cloud(args.lidar_points, 3),
        "mmwave": cloud(args.mmwave_points, 5),
        "wifi": normal(3, 114, 10),
    }
    return inputs, normal(17, 3)


def parts(model: PoseModel, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a plain step, of each measurement on one batch, of new anchors, and of the pull at one step."""
    inputs, target = random_batch(args)
    batches = [(inputs, target)] * args.batches
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the model stays as it is
    contribution = ShapleyContribution(model, model.encoders)
    fisher = FisherDiagonal(model.encoders, "per_batch")
    awc = AWCRegularizer(model, model.encoders, mpjpe, fisher=fisher, window=10**9)
    calibration = Calibration(model, model.encoders)
    known = dict.fromkeys(model.encoders, 0.0)
    diagonal = fisher.estimate(batches, model, mpjpe)

    def step() -> None:
        optimizer.zero_grad()
        mpjpe(model(inputs), target).backward()
        optimizer.step()

    def anchors() -> None:
        awc.start_epoch(batches, contributions=known, fisher=diagonal)
        awc.add_gradient_()  # the first time in an epoch, what is pulled is worked out

    times = milliseconds(
        {
            "anchors": anchors,
            "step": step,
            "pull": awc.add_gradient_,
            "slopes": lambda: calibration.evaluate(batches, costs=False),
            "elasticities": lambda: elasticities(model, dict(model.encoders), default_step, batches[0]),
            "contributions": lambda: contribution.evaluate(batches),
            "fisher": lambda: fisher.estimate(batches, model, mpjpe),
        },
        args.device,
        args.rounds,
    )
    return times | {name: times[name] / args.batches for name in ("contributions", "fisher", "slopes")}


def shares(times: dict[str, float], args: argparse.Namespace) -> dict[str, float]:
    """Per cent of plain training in an epoch of the window.

    The contributions and all of AWC, in both modes, and the calibration rule where it holds nobody back and everybody.
    """
    steps = FRAMES // args.batch_size
    few = ceil(args.samples / args.batch_size)
    plain = steps * times["step"]
    found: dict[str, float] = {}
    for mode, batches in {"all": steps, "few": few}.items():
        contributions = batches * times["contributions"]
        total = contributions + batches * times["fisher"] + times["anchors"] + steps * times["pull"]
        found |= {f"{mode}_contributions": 100 * contributions / plain, f"{mode}_total": 100 * total / plain}
    looks = (few + ceil(args.held_out / args.batch_size)) * times["slopes"]
    holds = looks + few * times["fisher"] + times["elasticities"] + times["anchors"] + steps * times["pull"]
    found |= {"rule_looks": 100 * looks / plain, "rule_holds": 100 * holds / plain}
    return found | {"pull": 100 * times["pull"] / times["step"]}


def row(fusion: str, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """One model: the first `count` modalities, and a fusion."""
    model = build_model(MODALITIES[:count], fusion, args.preset).to(args.device)
    times = parts(model, args)
    return {
        "fusion": fusion,
        "modalities": count,
        "parameters": sum(p.numel() for p in model.parameters()),
        "milliseconds": {name: round(value, 3) for name, value in times.items()},
        "percent": {name: round(value, 2) for name, value in shares(times, args).items()},
        "published": OVERHEADS[fusion][count],
    }


def command() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--preset", choices=list(PRESETS), default="small", help="(%(default)s)")
    made.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    made.add_argument("--lidar-points", type=int, default=128, help="(%(default)s)")
    made.add_argument("--mmwave-points", type=int, default=64, help="(%(default)s)")
    made.add_argument(
        "--samples",
        type=int,
        default=128,
        help="measured on in the mode of few batches (%(default)s, which is 4 batches, as by default)",
    )
    made.add_argument("--held-out", type=int, default=1000, help="held-out samples of the rule (%(default)s)")
    made.add_argument("--batches", type=int, default=2, help="of a timed pass (%(default)s)")
    return made


def notes(args: argparse.Namespace) -> list[str]:
    """What one has to know to read the table."""
    return [
        f"Per cent of plain training in an epoch of the window of {FRAMES // args.batch_size} steps; preset "
        f"{args.preset}, batch {args.batch_size}, {args.lidar_points} LiDAR and {args.mmwave_points} radar points.",
        f"All: contributions and Fisher diagonals from every batch. Few: from {args.samples} samples (`batches=`).",
        f"Rule: rule='calibration', by {args.samples} training samples and {args.held_out} held-out ones.",
        "Published: the paper's Table 2, contributions alone, in per cent of forward and backward, two RTX 3090.",
    ]


def main() -> None:
    """Measure, print and save."""
    args = parse(command())
    cases = [(fusion, count) for fusion in FUSIONS for count in (2, 3, 4)]
    if args.quick:
        cases = [cases[0], cases[-1]]
    columns = {
        "fusion": "{fusion}",
        "modalities": "{modalities}",
        "step, ms": "{milliseconds[step]:.1f}",
        "pull at every step": "{percent[pull]:.2f} %",
        "all: contributions": "{percent[all_contributions]:.1f} %",
        "all: AWC": "{percent[all_total]:.1f} %",
        "few: contributions": "{percent[few_contributions]:.2f} %",
        "few: AWC": "{percent[few_total]:.2f} %",
        "rule, nobody held": "{percent[rule_looks]:.2f} %",
        "rule, all held": "{percent[rule_holds]:.2f} %",
        "published, contributions": "{published:.2f} %",
    }
    give(args, notes(args), [row(fusion, count, args) for fusion, count in cases], columns)


if __name__ == "__main__":
    main()
