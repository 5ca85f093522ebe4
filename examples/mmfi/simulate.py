"""`simulate OUT`: write a tree of simulated clips in the layout of the real data."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from examples.mmfi.layout import SIMULATED_MARKER, pack_command, packed_beside
from examples.mmfi.protocols import SUBJECTS
from examples.mmfi.simulator.actions import ACTIONS
from examples.mmfi.simulator.clip import Settings
from examples.mmfi.simulator.tree import simulate_tree

SOME_SUBJECTS, SOME_ACTIONS, SOME_FRAMES = ("S01", "S02", "S03", "S05"), ("A02", "A03"), 60
"""Eight clips that protocol P1 can train on: splits S1 and S2 have training and test clips, and a full batch."""

_DESCRIPTION = f"""
Writes OUT/E01/S01/A01/{{ground_truth.npy, rgb, lidar, mmwave, wifi-csi}} and so on: moving bodies seen by
simulated sensors. The scene follows from the subject: E01 has S01-S10, E02 S11-S20, E03 S21-S30, E04 S31-S40.
OUT/{SIMULATED_MARKER} records seed and settings. Clips that are already there are kept, so an interrupted run
continues and a tree can grow. On one machine the same seed gives the same
bytes, whatever the number of workers.
A clip of 297 frames takes one to two seconds of a worker and 36 MB of disk.
"""


def _list_actions() -> str:
    return "actions:\n" + "\n".join(f"  {key}  {action.name}" for key, action in ACTIONS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments and help to `parser`."""
    parser.description = _DESCRIPTION
    parser.epilog = _list_actions()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the tree, new or simulated before")
    parser.add_argument(
        "--subjects",
        nargs="+",
        default=SOME_SUBJECTS,
        metavar="S",
        help=f"S01 to S40, or 'all' (default: {' '.join(SOME_SUBJECTS)})",
    )
    parser.add_argument(
        "--actions",
        nargs="+",
        default=SOME_ACTIONS,
        metavar="A",
        help=f"A01 to A27, or 'all' (default: {' '.join(SOME_ACTIONS)})",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=SOME_FRAMES,
        help="frames per clip at 10 Hz; real clips: 297 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of bodies, rooms, motions and noise (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")


def _report(name: str, done: int, total: int) -> None:
    print(f"[{done}/{total}] {name}", flush=True)


def _next_commands(args: argparse.Namespace) -> str:
    """What to do with the tree; training only of clips that are known to be enough for it."""
    lines = [pack_command(args.out)]
    if (args.subjects, args.actions) == (SOME_SUBJECTS, SOME_ACTIONS) and args.frames >= SOME_FRAMES:
        packed = shlex.quote(str(packed_beside(args.out)))
        lines.append(f"python -m examples.mmfi train {packed} --preset tiny --epochs 3")
    return "\n  ".join(lines)


def run(args: argparse.Namespace) -> int:
    """Simulate what the arguments ask for; returns the exit status."""
    written = simulate_tree(
        args.out,
        SUBJECTS if args.subjects == ["all"] else args.subjects,
        tuple(ACTIONS) if args.actions == ["all"] else args.actions,
        Settings(seed=args.seed, frames=args.frames),
        args.workers,
        _report,
    )
    print(f"{written} simulated clips written to {args.out}\nNext:\n  {_next_commands(args)}")
    return 0
