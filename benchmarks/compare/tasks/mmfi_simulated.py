"""Simulated MM-Fi: the small preset of `examples/mmfi` on clips made by its simulator. No result on MM-Fi."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from benchmarks.compare.task import Task
from benchmarks.compare.tasks.mars import millimetres
from examples.mmfi.data import open_data
from examples.mmfi.dataset import PoseFrames
from examples.mmfi.models import build_model
from examples.mmfi.prepared import packed_copy
from examples.mmfi.settings import Settings
from examples.mmfi.simulator import Settings as Simulation
from examples.mmfi.simulator import simulate_tree
from examples.pose_metrics import mpjpe
from examples.samples import Samples, Splits

FOLDER = Path("results/compare/mmfi")
SUBJECTS = ("S01", "S02", "S03", "S04", "S05", "S11", "S12", "S13", "S14", "S15")  # of two scenes
ACTIONS = ("A02", "A03", "A04", "A05", "A13", "A17", "A19", "A22")  # of protocol P1
FRAMES = 60
EVERY = 8
"""Of neighbouring frames, which are alike, one of so many is used."""


def task(data: str | None = None) -> Task:
    """Poses from four simulated sensors; the tree is simulated once, which takes a minute.

    Args:
        data: A packed copy or a tree made by `simulate`; None to make one.

    Raises:
        ValueError: If the data is not simulated.
    """
    packed = packed_copy(Path(data) if data else _simulated(), FOLDER)
    frames = open_data(Settings("compare", str(packed), every=EVERY, lidar_points=64, mmwave_points=32, batch_size=32))
    if not frames.simulated:
        raise ValueError(
            f"`data` should be simulated. `{data}` is not. Use python -m examples.mmfi reproduce for real recordings."
        )
    splits = Splits(_in_memory(frames.train), _in_memory(frames.held_out), _in_memory(frames.test))
    build = partial(build_model, fusion="concat", preset="small")
    return Task(
        "MM-Fi, simulated", "MPJPE, mm", splits, build, mpjpe, millimetres,
        epochs=12, batch_size=32, search_seeds=1, simulated=True,
    )  # fmt: skip


def _in_memory(frames: PoseFrames) -> Samples:
    return Samples(*frames.__getitems__(range(len(frames))))


def _simulated() -> Path:
    tree = FOLDER / "simulated"
    simulate_tree(tree, SUBJECTS, ACTIONS, Simulation(frames=FRAMES), workers=min(4, os.cpu_count() or 1))
    return tree
