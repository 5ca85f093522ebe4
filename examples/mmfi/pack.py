"""`pack ROOT OUT`: MM-Fi's many small files as a few large arrays that are memory-mapped for training."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from examples.mmfi.clip_reader import ClipArrays, packed_tables, read_clip
from examples.mmfi.conventions import MODALITIES, POINT_MODALITIES, Conventions, add_convention_option
from examples.mmfi.layout import RawClip, find_clips, is_simulated, modality_frames
from examples.mmfi.parallel import ordered_map
from examples.mmfi.readers import DamagedFileError
from examples.mmfi.store import StoreWriter, write_json

REPORT = "report.json"
_ABSENT = "clips packed earlier that the copy lacks"


def pack(
    root: Path,
    out: Path,
    conventions: Conventions,
    *,
    modalities: Sequence[str] | None = None,
    workers: int = 1,
    retry: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Pack a copy of MM-Fi, continuing where an earlier call on the same output stopped.

    Args:
        root: The copy, in any of the layouts of `layout.find_clips`.
        out: Folder to write to.
        conventions: How the files are to be read; kept with the output as the default of its readers.
        modalities: Which to pack; None for all that the copy has.
        workers: Processes that read; 1 reads in this one.
        retry: Read clips again that lacked files when they were packed. The first version of a clip that has
            changed remains in the output as unused space.
        progress: Show a progress bar.

    Returns:
        The report, which is also written to `out/report.json`.

    Raises:
        ValueError: There are no clips, a modality is absent, `workers` is below 1, or `out` was begun with
            other options or holds a clip of another copy.
    """
    clips = find_clips(root, conventions)
    chosen = _chosen_modalities(clips, modalities)
    header = {"conventions": conventions.to_json(), "modalities": list(chosen), "simulated": is_simulated(root)}
    read = partial(_read_or_reason, modalities=chosen, conventions=conventions, root=root)
    skipped: dict[str, str] = {}
    with StoreWriter(out, packed_tables(chosen, conventions), header) as store:
        for clip in clips:
            _check_unchanged(clip, store.entries.get(str(clip.name)), out, retry)
        todo = [clip for clip in clips if _is_due(store.entries.get(str(clip.name)), retry)]
        done = len(clips) - len(todo)
        with tqdm(total=len(clips), initial=done, unit="clip", disable=not progress) as bar:
            for clip, result in zip(todo, ordered_map(read, todo, workers), strict=True):
                if isinstance(result, str):
                    skipped[str(clip.name)] = result
                else:
                    _append(store, result, _source(clip, chosen))
                bar.update()
        report = {"simulated": header["simulated"], **summarise(store.entries, chosen, skipped)}
        report[_ABSENT] = sorted(store.entries.keys() - {str(clip.name) for clip in clips})
    write_json(out / REPORT, report)
    return report


def summarise(
    entries: Mapping[str, dict[str, Any]], modalities: Sequence[str], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Sum what was packed and name what was not: the content of `report.json`.

    Args:
        entries: The entries of a packed store by clip.
        modalities: The packed modalities.
        skipped: Clips that were not packed, with the reason.
    """
    problems = {clip: entry["problems"] for clip, entry in sorted(entries.items())}
    return {
        "clips": len(entries),
        "frames": sum(entry["frames"] for entry in entries.values()),
        "present": {name: sum(entry["present"][name] for entry in entries.values()) for name in modalities},
        "empty files": [file for found in problems.values() for file in found["empty"]],
        "damaged files": {file: why for found in problems.values() for file, why in found["damaged"].items()},
        "files of frames without ground truth": [f for found in problems.values() for f in found["beyond"]],
        "missing frames": {clip: found["missing"] for clip, found in problems.items() if found["missing"]},
        "clips that were not packed": dict(skipped),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Reads a copy of MM-Fi once and writes its frames to OUT as a few large files (roughly 10 GB for the "
        "full set), from which training reads at many times the speed. May be stopped and run again: it "
        "continues with the next clip. Files that are empty, damaged or missing leave only their own frame "
        f"and modality out; all are named in OUT/{REPORT}. Exit status 1 if no clip could be packed."
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the copy, with E01 ... E04 in it")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, new or begun earlier")
    parser.add_argument(
        "--modalities", nargs="+", choices=MODALITIES, metavar="NAME",
        help=f"pack only these, of {', '.join(MODALITIES)} (default: all that the copy has)",
    )  # fmt: skip
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument(
        "--workers", type=int, default=workers, metavar="N", help=f"processes that read (default: {workers})"
    )
    parser.add_argument(
        "--retry", action="store_true", help="read clips again that lacked files, after you fetched them"
    )
    add_convention_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        report = pack(
            args.root,
            args.out,
            Conventions().updated(args.convention),
            modalities=args.modalities,
            workers=args.workers,
            retry=args.retry,
            progress=True,
        )
    except KeyboardInterrupt:
        print("Stopped. What is packed is kept: run the same command again to continue.")
        return 130
    _print_report(report, args.out)
    return 0 if report["clips"] else 1


def _chosen_modalities(clips: Iterable[RawClip], wanted: Sequence[str] | None) -> tuple[str, ...]:
    found = {modality for clip in clips for modality in clip.folders}
    for modality in wanted or ():
        if modality not in found:
            raise ValueError(
                f"`modalities` should name what the copy has. Got `{modality}`. Found: "
                f"{', '.join(sorted(found)) or 'none'}. A folder's name is a convention: see --convention."
            )
    if not found:
        raise ValueError("The clips should hold folders of frames. None has any. `doctor` shows what is there.")
    return tuple(modality for modality in MODALITIES if modality in (wanted or found))


def _is_due(entry: Mapping[str, Any] | None, retry: bool) -> bool:
    return entry is None or (retry and any(entry["problems"].values()))


def _read_or_reason(clip: RawClip, modalities: Sequence[str], conventions: Conventions, root: Path) -> ClipArrays | str:
    try:
        return read_clip(clip, modalities, conventions, root)
    except DamagedFileError as error:
        return f"{error.path.name} {error.reason}"


def _source(clip: RawClip, modalities: Iterable[str]) -> dict[str, Any]:
    """What tells a clip's files from those of another copy, without reading all of them."""
    poses = clip.ground_truth.read_bytes() if clip.ground_truth.is_file() else b""
    return {
        "ground_truth": hashlib.blake2b(poses, digest_size=16).hexdigest(),
        "files": {modality: len(modality_frames(clip, modality)) for modality in modalities},
    }


def _check_unchanged(clip: RawClip, entry: Mapping[str, Any] | None, out: Path, retry: bool) -> None:
    if entry is None:
        return
    old, new = entry["source"], _source(clip, entry["present"])
    compared = ["ground_truth"] if _is_due(entry, retry) else ["ground_truth", "files"]
    if changed := [name for name in compared if old[name] != new[name]]:
        raise ValueError(
            f"A clip should have the files that it was packed from. {clip.name} has other {' and '.join(changed)} than "
            f"when it was packed into `{out}`: {[new[name] for name in changed]} in place of "
            f"{[old[name] for name in changed]}. Name another folder, or delete `{out}`; if only files were "
            "fetched that the clip lacked, add --retry."
        )


def _append(store: StoreWriter, clip: ClipArrays, source: Mapping[str, Any]) -> None:
    problems = asdict(clip.problems)
    if (earlier := store.entries.get(str(clip.name))) and earlier["problems"] == problems:
        return  # read again in vain: a second copy would only take space
    shifted = {
        f"{name}_start": clip.arrays[f"{name}_start"] + store.lengths[name]
        for name in POINT_MODALITIES
        if name in source["files"]
    }
    entry = {
        "first": store.lengths["ground_truth"],
        "frames": clip.frames,
        "present": dict(zip(source["files"], clip.arrays["present"].sum(axis=0).tolist(), strict=True)),
        "problems": problems,
        "source": source,
    }
    store.append(str(clip.name), entry, {**clip.arrays, **shifted})


def _print_report(report: Mapping[str, Any], out: Path) -> None:
    kind = "simulated clips" if report["simulated"] else "clips"
    print(f"{report['clips']} {kind}, {report['frames']} frames in {out}")
    for modality, present in report["present"].items():
        print(f"  {modality:7} {present} frames")
    for what in ("empty files", "damaged files", "files of frames without ground truth", _ABSENT):
        print(f"  {len(report[what])} {what}")
    for clip, reason in report["clips that were not packed"].items():
        print(f"  {clip} was not packed: {reason}")
    print(f"Every file that was left out is named in {out / REPORT}")
