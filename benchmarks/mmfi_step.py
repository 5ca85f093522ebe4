"""What a training step of MM-Fi costs: its parts, those of AWC, memory, and what the loader delivers.

    python -m benchmarks.mmfi_step PACKED --preset small --result results/mmfi_step.json

PACKED is what `python -m examples.mmfi pack ROOT PACKED` made of MM-Fi or of a simulated copy. Runs on a GPU if
there is one. The defaults are the paper's; on a CPU take `--preset small --batch-size 32 --lidar-points 128`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from examples.machine import hardware, versions
from examples.mmfi.batches import on_device
from examples.mmfi.conventions import MODALITIES
from examples.mmfi.data import frames_of
from examples.mmfi.dataset import frame_loader
from examples.mmfi.models import FUSIONS, PRESETS, build_model
from examples.mmfi.packed import PackedClips
from examples.mmfi.settings import PAPER_AWC, Settings
from examples.mmfi.timing import overhead, step_parts
from examples.sweep import write_json


def measure(settings: Settings, device: torch.device, repeats: int, workers: int) -> dict[str, Any]:
    """All figures of one model as JSON data."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    parts = step_parts(settings, device, repeats)
    memory = peak_memory_mb(device)
    model = build_model(settings.modalities, settings.fusion, settings.preset)
    return {
        "preset": settings.preset,
        "modalities": list(settings.modalities),
        "fusion": settings.fusion,
        "batch_size": settings.batch_size,
        "lidar_points": settings.lidar_points,
        "mmwave_points": settings.mmwave_points,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "milliseconds": {name: round(value, 3) for name, value in parts.items()},
        "contributions_percent_of_step": round(overhead(parts), 2),
        "awc_percent": awc_percent(parts),
        "peak_memory_mb": memory,
        "loader_frames_per_second": round(loader_throughput(settings, device, workers)),
        "loader_workers": workers,
        "step_frames_per_second": round(1000 * settings.batch_size / training_step(parts)),
    }


def training_step(parts: dict[str, float]) -> float:
    """Milliseconds of a plain step."""
    return parts["forward"] + parts["backward"] + parts["optimizer"]


def awc_percent(parts: dict[str, float]) -> dict[str, float]:
    """What AWC adds to plain training: in an epoch of the window, and over a run with the paper's window."""
    inside = 100 * (parts["contributions"] + parts["fisher"] + parts["penalty"]) / training_step(parts)
    share = PAPER_AWC["window"] / Settings("", "").epochs
    return {"epoch_inside_window": round(inside, 1), "whole_run": round(share * inside, 1)}


def peak_memory_mb(device: torch.device) -> int:
    """On a GPU what tensors took at most; on a CPU the process, with all libraries."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def loader_throughput(settings: Settings, device: torch.device, workers: int, seconds: float = 3.0) -> float:
    """Frames per second that the loader delivers to the device, without any training."""
    packed = PackedClips(Path(settings.data))
    frames = frames_of(packed, packed.clips, settings)
    loader = frame_loader(
        frames, settings.batch_size, shuffle=True, drop_last=True, workers=workers, pin_memory=device.type == "cuda"
    )
    batches = cycle_epochs(loader)
    for batch in islice(batches, 1 + workers):  # the first ones wait for the workers to start
        on_device(batch, device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        on_device(next(batches), device)
        count += settings.batch_size
    return count / (time.perf_counter() - start)


def cycle_epochs(loader: torch.utils.data.DataLoader[Any]) -> Iterator[Any]:
    """The batches of one epoch after another."""
    while True:
        yield from loader


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
    parser.add_argument("--repeats", type=int, default=5, help="of which the median counts (%(default)s)")
    parser.add_argument("--loader-workers", type=int, default=0, help="processes that load (%(default)s)")
    parser.add_argument("--result", type=Path, required=True, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = {key: value for key, value in vars(args).items() if key in Settings.__dataclass_fields__}
    settings = Settings("", str(args.packed), **given)
    result = measure(settings, device, args.repeats, args.loader_workers)
    simulated = PackedClips(args.packed).simulated
    header = {"hardware": hardware(device), "versions": versions(), "simulated data": simulated}
    print(*(f"{name}: {value}" for name, value in {**header, **result}.items()), sep="\n")
    args.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.result, {**header, **result})


if __name__ == "__main__":
    main()
