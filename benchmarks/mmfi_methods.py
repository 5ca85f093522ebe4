"""What an epoch of each balancing method costs on the MM-Fi example, in units of the steps of plain training.

    python -m benchmarks.mmfi_methods PACKED --preset small --batch-size 32 --lidar-points 128 --result FILE

PACKED is what `python -m examples.mmfi pack ROOT PACKED` made of MM-Fi or of a simulated copy. Batches lie in memory.
In every round all methods do an epoch, one after the other, and ratios are taken within a round. Runs on a GPU if
there is one. `--quick` is for trying it.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from examples.machine import hardware, versions
from examples.mmfi.batches import Parts, on_device
from examples.mmfi.conventions import MODALITIES
from examples.mmfi.data import frames_of
from examples.mmfi.learner import Learner
from examples.mmfi.methods import table_options
from examples.mmfi.models import FUSIONS, PRESETS
from examples.mmfi.packed import PackedClips
from examples.mmfi.settings import METHODS, PLAIN, Settings
from examples.mmfi.timing import Clock
from examples.sweep import write_json

EVERY_EPOCH = {"Modality-level": {"warmup": 0}, "Sample-level": {"warmup": 0}, "G-Blending": {"super_epoch": 1}}
"""Options with which a method works in every epoch."""


def measure(settings: Settings, device: torch.device, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """The median cost over rounds of each method: `steps`, and `start`, what it measures at the start of an epoch."""
    batches = batches_of(settings, device, steps)
    learners = {method: learner_of(settings, method, device, batches) for method in METHODS}
    clock = Clock(device)
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for number in range(rounds + 1):
        times = {method: epoch_times(learner, batches, clock) for method, learner in learners.items()}
        unit = times[PLAIN][1]
        if number:  # the first one is not counted
            for method, (start, all_steps) in times.items():
                found[method].append((start / unit, all_steps / unit))
    return {
        method: {"start": round(median(start for start, _ in of), 3), "steps": round(median(s for _, s in of), 3)}
        for method, of in found.items()
    }


def batches_of(settings: Settings, device: torch.device, steps: int) -> list[Parts]:
    """So many batches of frames, each in one part, on the device."""
    packed = PackedClips(Path(settings.data))
    frames = frames_of(packed, packed.clips, settings)
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    size = settings.batch_size
    if steps * size > len(order):
        raise ValueError(f"`steps` should be at most the {len(order) // size} batches of the copy. Got `{steps}`.")
    return [[on_device(frames.__getitems__(order[i * size : (i + 1) * size]), device)] for i in range(steps)]


def learner_of(settings: Settings, method: str, device: torch.device, batches: list[Parts]) -> Learner:
    """A learner with a method as in Table 1, at work in every epoch."""
    options = {**table_options(method, settings.epochs), **EVERY_EPOCH.get(method, {})}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*scales gradients")  # known, and beside the point
        return Learner(replace(settings, method=method, method_options=options), device, batches[0])


def epoch_times(learner: Learner, batches: list[Parts], clock: Clock) -> tuple[float, float]:
    """Milliseconds of the start of an epoch and of its steps."""
    start, steps = clock.once(
        lambda: learner.start_epoch(batches), lambda: [learner.update(parts) for parts in batches]
    )
    return start, steps


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    paper = Settings("", "")
    parser.add_argument("packed", type=Path, metavar="PACKED", help="the packed copy")
    parser.add_argument("--preset", choices=list(PRESETS), default=paper.preset, help="(%(default)s)")
    parser.add_argument("--fusion", choices=list(FUSIONS), default=paper.fusion, help="(%(default)s)")
    parser.add_argument("--modalities", nargs="+", choices=MODALITIES, default=MODALITIES, help="(all)")
    parser.add_argument("--batch-size", type=int, default=paper.batch_size, help="(%(default)s)")
    parser.add_argument("--lidar-points", type=int, default=paper.lidar_points, help="(%(default)s)")
    parser.add_argument("--mmwave-points", type=int, default=paper.mmwave_points, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of an epoch (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=7, choices=range(1, 20), metavar="N",
        help="of which the median counts; fewer than the 20 epochs of AWC (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two steps, one round")
    parser.add_argument("--result", type=Path, required=True, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = {key: value for key, value in vars(args).items() if key in Settings.__dataclass_fields__}
    settings = Settings("", str(args.packed), **given)
    steps, rounds = (2, 1) if args.quick else (args.steps, args.rounds)
    result: dict[str, Any] = {
        "hardware": hardware(device),
        "versions": versions(),
        "simulated data": PackedClips(args.packed).simulated,
        **{name: given[name] for name in ("preset", "fusion", "batch_size", "lidar_points", "mmwave_points")},
        "steps": steps,
        "rounds": rounds,
        "cost": measure(settings, device, steps, rounds),
    }
    print(*(f"{name}: {value}" for name, value in result.items() if name != "cost"), sep="\n")
    print(
        *(f"{method:16}{cost['start']:8.3f}{cost['steps']:8.3f}" for method, cost in result["cost"].items()), sep="\n"
    )
    args.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.result, result)


if __name__ == "__main__":
    main()
