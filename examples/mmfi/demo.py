"""`demo`: everything in minutes: simulate a small tree, pack it, train, and show who carries the prediction."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.mmfi.packed import PackedClips
from examples.mmfi.prepared import packed_copy
from examples.mmfi.protocols import split_clips
from examples.mmfi.reproduce import figures, plans
from examples.mmfi.reproduce.command import add_run_options, changed
from examples.mmfi.reproduce.output import report
from examples.mmfi.reproduce.runs import finished, scaled
from examples.mmfi.reproduce.tables import is_balanced
from examples.mmfi.settings import PLAIN, Settings
from examples.mmfi.simulator import Settings as Simulation
from examples.mmfi.simulator import simulate_tree
from examples.report import Results

SUBJECTS = ("S01", "S02", "S03", "S04", "S05", "S11", "S12", "S13", "S14", "S15")  # of two scenes
ACTIONS = ("A02", "A03", "A04", "A05", "A13", "A17", "A19", "A22")  # of protocol P1
FRAMES = 60
ENOUGH_FRAMES = 1600
"""Frames that are used of a copy, training and test together, evenly spaced."""
QUICK: dict[str, Any] = {"batch_size": 32, "lidar_points": 64, "mmwave_points": 32, "measured_frames": 256}
"""What lets two cores finish in minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Trains the small preset on all four modalities, plainly and with AWC, and on each alone, and shows errors, "
        f"contributions and poses. Without --data on {len(SUBJECTS) * len(ACTIONS)} simulated clips, which are made "
        f"first. Of any copy some {ENOUGH_FRAMES} frames are used, so that it takes some five minutes on two cores; "
        "before that a copy of original files is packed, once, which takes longer where it is large. Simulated "
        "data looks like MM-Fi; no result on it is a result on MM-Fi. What is finished is kept and used again."
    )
    add_run_options(parser, required=False, epochs=18, seeds=2, preset="small")
    parser.add_argument("--out", type=Path, default=Path("results/mmfi-demo"), help="where results go (%(default)s)")
    parser.add_argument(
        "--findings", action="store_true",
        help="do all kinds of run with every seed, and say which of the paper's findings appear (a third longer)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status: 130 if it was interrupted."""
    packed = packed_copy(args.data or _simulated(args.out), args.out)
    common = quick(scaled(Settings("", str(packed), preset=args.preset), args.epochs))
    common = changed(common, args.changes)
    plan = plans.findings(args.epochs) if args.findings else plans.demo(args.epochs)
    wanted = plans.runs_of(plan.rows, common, plan.protocols, args.seeds)
    longest_first = sorted(wanted, key=_length, reverse=True)  # lest a long one is left for the end
    results = sorted(finished(longest_first, args.out, args.workers), key=_place(wanted))
    if not results:
        print("No run was finished.")
        return 130
    written = report(plan, results, common, plan.protocols, args.out / "demo", judged=args.findings)
    print("written:", *(f"  {file}" for file in [*written, *_draw(results, args.out)]), sep="\n")
    return 0 if len(results) == len(wanted) else 130


def quick(settings: Settings) -> Settings:
    """The same settings on few frames, and with few points and frames in a batch."""
    packed = PackedClips(Path(settings.data))
    clips = sum(split_clips(packed.clips, settings.protocol, settings.split), start=())
    frames = sum(packed.clips[clip].frames for clip in clips)
    return replace(settings, every=max(1, round(frames / ENOUGH_FRAMES)), **QUICK)


def _length(settings: Settings) -> int:
    """Longer for runs that take longer."""
    return 2 * len(settings.modalities) + (settings.method != PLAIN)


def _place(runs: Sequence[Settings]) -> Callable[[dict[str, Any]], int]:
    """A function from a result to the place of its run."""
    places = {(run.name, run.seed): place for place, run in enumerate(runs)}
    return lambda result: places[result["run"]["name"], result["run"]["seed"]]


def _simulated(out: Path) -> Path:
    tree = out / "simulated"
    print(f"Simulating {len(SUBJECTS) * len(ACTIONS)} clips in {tree}, unless they are there.")
    simulate_tree(tree, SUBJECTS, ACTIONS, Simulation(frames=FRAMES), workers=min(4, os.cpu_count() or 1))
    return tree


def _draw(results: Results, out: Path) -> Sequence[Path]:
    """The figures that the finished runs allow."""
    most = max(len(result["run"]["modalities"]) for result in results)
    joint = [result for result in results if len(result["run"]["modalities"]) == most]
    plain = [result for result in joint if not is_balanced(result)]
    files = [figures.errors(results, out / "errors.png")]
    if plain:
        files += [
            figures.spreads(plain, out / "spreads.png"),
            figures.contributions(plain, out / "contributions.png"),
            figures.skeletons(joint, out / "poses.png"),
        ]
    return files
