"""Frames per second of reading MM-Fi's small files one by one, against the packed loader, on the same frames.

    python -m benchmarks.mmfi_loader ROOT OUT --result results/mmfi_loader.json

ROOT is a copy of MM-Fi, or a simulated one; OUT what `python -m examples.mmfi pack ROOT OUT` made of it. Both
sides make the same batches, but the plain side is favoured: it reads one keypoint file a frame where the
packed one gathers a window of 81, and reads each ground truth once. Both find their files cached in memory.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from examples.machine import processor_name
from examples.mmfi.conventions import POINT_MODALITIES, Conventions
from examples.mmfi.csi import clean_csi
from examples.mmfi.dataset import PoseFrames
from examples.mmfi.layout import ClipId, RawClip, find_clips, modality_frames
from examples.mmfi.packed import PackedClips
from examples.mmfi.readers import READERS, read_ground_truth
from examples.mmfi.store import write_json


class PlainFrames:
    """Frames read from the original files, one file at a time, as published loaders do."""

    def __init__(self, clips: Sequence[RawClip], modalities: Sequence[str], conventions: Conventions) -> None:
        """List the files and read the poses of every clip."""
        self._conventions = conventions
        self._paths = {
            (clip.name, modality, number): file.path
            for clip in clips
            for modality in modalities
            for number, file in modality_frames(clip, modality).items()
        }
        self._poses = {clip.name: read_ground_truth(clip.ground_truth, conventions) for clip in clips}
        self._modalities = modalities

    def batch(self, frames: Sequence[tuple[ClipId, int]]) -> tuple[dict[str, Tensor], Tensor]:
        """Read the frames of some clips and numbers and stack them, points padded with zeros."""
        inputs = {}
        for modality in self._modalities:
            values = [self._read(modality, clip, number) for clip, number in frames]
            points = modality in POINT_MODALITIES
            inputs[modality] = pad_sequence(values, batch_first=True) if points else torch.stack(values)
        poses = [torch.from_numpy(self._poses[clip][number - 1]) for clip, number in frames]
        return inputs, torch.stack(poses).float()

    def _read(self, modality: str, clip: ClipId, number: int) -> Tensor:
        value = READERS[modality](self._paths[clip, modality, number], self._conventions)
        if modality == "wifi":
            value = clean_csi(value)
        return torch.from_numpy(value.astype(np.float32))


def frames_per_second(make: Callable[[Sequence[int]], object], batches: Sequence[Sequence[int]]) -> float:
    """Time the making of batches, after one untimed pass that brings the files into memory."""
    for batch in batches:
        make(batch)
    start = time.perf_counter()
    for batch in batches:
        make(batch)
    return sum(map(len, batches)) / (time.perf_counter() - start)


def measure(root: Path, out: Path, modalities: Sequence[str], batch_size: int, batches: int) -> dict[str, Any]:
    """Measure both ways on the same frames, drawn at random, and return the result as JSON data."""
    packed = PackedClips(out)
    frames = PoseFrames(packed, packed.clips, modalities)
    clips = [clip for clip in find_clips(root, frames.conventions) if clip.name in packed.clips]
    plain = PlainFrames(clips, modalities, frames.conventions)
    order = np.random.default_rng(0).permutation(len(frames))[: batch_size * batches]
    chosen = [chunk.tolist() for chunk in np.split(order, range(batch_size, len(order), batch_size))]
    slow = frames_per_second(lambda batch: plain.batch([frames.frame(index) for index in batch]), chosen)
    fast = frames_per_second(frames.__getitems__, chosen)
    return {
        "modalities": list(modalities),
        "batch size": batch_size,
        "frames": len(order),
        "files, frames per second": round(slow),
        "packed, frames per second": round(fast),
        "ratio": round(fast / slow, 1),
        "packed, milliseconds per batch": round(1000 * batch_size / fast, 2),
    }


def hardware() -> dict[str, Any]:
    """Return what the measurement ran on."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure every modality alone and all together; print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="ROOT", help="the original files")
    parser.add_argument("out", type=Path, metavar="OUT", help="the packed copy")
    parser.add_argument("--batch-size", type=int, default=192, help="default: 192, the paper's")
    parser.add_argument("--batches", type=int, default=10, help="batches to time (default: 10)")
    parser.add_argument("--result", type=Path, required=True, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    modalities = PackedClips(args.out).modalities
    choices = [*((modality,) for modality in modalities), modalities]
    results = [measure(args.root, args.out, choice, args.batch_size, args.batches) for choice in choices]
    for result in results:
        slow, fast = result["files, frames per second"], result["packed, frames per second"]
        names = "+".join(result["modalities"])
        print(f"{names:22} files {slow:>7} frames/s, packed {fast:>8} frames/s: {result['ratio']} times")
    args.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.result, {"hardware": hardware(), "results": results})


if __name__ == "__main__":
    main()
