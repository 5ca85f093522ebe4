"""`doctor ROOT`: what a copy of MM-Fi holds, and whether the example's assumptions hold for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from examples.mmfi.arrays import Array
from examples.mmfi.checks import findings
from examples.mmfi.conventions import MODALITIES, POINT_MODALITIES, Conventions, add_convention_option
from examples.mmfi.layout import find_clips, is_simulated, pack_command
from examples.mmfi.store import INDEX
from examples.mmfi.survey import Sample, Survey, survey_copy

_WIDTHS = (5, 7, 7, 6)
_HEADER = f"{'':12} {'clips':>5} {'files':>7} {'missing':>7} {'empty':>6} {'damaged':>8}  values (1 to 99 %)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Lists every file of a copy of MM-Fi, reads some, and prints on one screen what is there, what is "
        "missing and whether the example's assumptions hold, with what to do where one does not. Changes "
        "nothing. Exit status 1 if there is something to fix."
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the copy, with E01 ... E04 in it")
    parser.add_argument(
        "--sample", type=_sample, default=100, metavar="N", help="files to read of each kind, or 'all' (default: 100)"
    )
    add_convention_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if (args.root / INDEX).exists():
        raise ValueError(f"`ROOT` should be the original files. `{args.root}` is packed. Name the copy it came from.")
    if args.sample is not None and args.sample < 1:
        raise ValueError(f"`--sample` should be 1 or more. Got `{args.sample}`.")
    conventions = Conventions().updated(args.convention)
    clips = find_clips(args.root, conventions)
    survey = survey_copy(tqdm(clips, desc="listing", unit="clip", leave=False), conventions, args.sample)
    found = findings(survey, conventions)
    print("\n".join([*overview(survey, conventions, args.root), ""]))
    for finding in found:
        print(f"{finding.level:5} {finding.text}")
        if finding.remedy:
            print(f"      -> {finding.remedy}")
    faults = sum(finding.level == "FIX" for finding in found)
    print(f"\n{faults} to fix." if faults else f"\nReady: `{pack_command(args.root, args.convention)}`.")
    return 1 if faults else 0


def _sample(text: str) -> int | None:
    return None if text == "all" else int(text)


def overview(survey: Survey, conventions: Conventions, root: Path) -> list[str]:
    """Return the lines of the table of what is there."""
    scenes, subjects, actions = (len(set(kind)) for kind in zip(*survey.names, strict=True))
    readable = sum(clip.frames is not None for clip in survey.clips)
    truth = (readable, readable, len(survey.clips) - readable, 0)
    kind = "simulated clips" if is_simulated(root) else "clips"
    lines = [
        f"{root}: {len(survey.clips)} {kind}, {scenes} scenes, {subjects} subjects, {actions} actions",
        _HEADER,
        _line("ground truth", truth, survey.samples["ground_truth"], ("x", "y", "z")),
    ]
    columns = {"rgb": ("x", "y"), "wifi": ("amplitude",)}
    for modality in MODALITIES:
        files = [clip.files[modality] for clip in survey.clips]
        counts = (
            len(survey.having(modality)),
            sum(kind.count for kind in files),
            sum(kind.missing for kind in files),
            sum(len(kind.empty) for kind in files),
        )
        names = columns.get(modality) or conventions.columns(modality)
        lines.append(_line(modality, counts, survey.samples[modality], names))
    if survey.other_folders:
        there = ", ".join(f"{name} in {clips} clips" for name, clips in survey.other_folders.items())
        lines.append(f"there too, not used: {there}")
    return lines


def _line(name: str, counts: Sequence[int], sample: Sample, columns: Sequence[str]) -> str:
    numbers = " ".join(f"{count:>{width}}" for count, width in zip(counts, _WIDTHS, strict=True))
    damaged = f"{len(sample.damaged)}/{sample.size}"
    return f"{name:12} {numbers} {damaged:>8}  {_values(name, sample, columns)}"


def _values(name: str, sample: Sample, columns: Sequence[str]) -> str:
    if not sample.values:
        return "none read"
    values = np.concatenate([value.reshape(-1, len(columns)) for value in sample.values])
    ranges = [f"{column} {_range(values[:, place])}" for place, column in enumerate(columns)]
    if name in POINT_MODALITIES:
        ranges.insert(0, f"{_range(np.array([len(value) for value in sample.values]))} points")
    return ", ".join(ranges)


def _range(values: Array) -> str:
    low, high = np.quantile(values[np.isfinite(values)], [0.01, 0.99], method="nearest")
    return f"{low:.3g}..{high:.3g}"
