"""One clip of small files as one array per modality, and a list of what could not be used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import POINT_MODALITIES, Conventions
from examples.mmfi.csi import clean_csi
from examples.mmfi.layout import ClipId, RawClip, is_shifted, modality_frames
from examples.mmfi.readers import READERS, DamagedFileError, read_ground_truth
from examples.mmfi.store import Table


@dataclass
class Problems:
    """What a clip lacks; files by their path below the root.

    Attributes:
        missing: Frame numbers without a file, by modality, written as ranges.
        empty: Files of 0 bytes.
        damaged: Files that do not read, and folders whose frames cannot be told apart, with the reason.
        beyond: Files of frames that have no ground truth.
    """

    missing: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    beyond: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClipArrays:
    """A clip as records of the tables of `packed_tables`, one row per frame of the ground truth.

    `arrays["present"]` tells the rows that hold a frame; the others are zero. The points of all frames lie
    behind each other; `<modality>_start` and `<modality>_count` locate those of a frame within the clip.
    """

    name: ClipId
    arrays: Mapping[str, Array]
    problems: Problems

    @property
    def frames(self) -> int:
        """Frames of the clip, with or without a file."""
        return len(self.arrays["ground_truth"])


def packed_tables(modalities: Sequence[str], conventions: Conventions) -> dict[str, Table]:
    """Return the tables of a packed copy; `present` has one column per modality, in the given order."""
    tables = {
        "ground_truth": Table("<f4", (conventions.joints, 3)),
        "present": Table("|b1", (len(modalities),)),
    }
    frame_shapes = {"rgb": (conventions.keypoints, 2), "wifi": conventions.csi_shape}
    for modality in modalities:
        if modality in POINT_MODALITIES:
            tables[modality] = Table("<f4", (len(conventions.columns(modality)),))
            tables[f"{modality}_start"] = Table("<i8", ())
            tables[f"{modality}_count"] = Table("<i4", ())
        else:
            tables[modality] = Table("<f4", frame_shapes[modality])
    return tables


def read_clip(clip: RawClip, modalities: Sequence[str], conventions: Conventions, root: Path) -> ClipArrays:
    """Read all frames of a clip, each to the row of its number; a file that does not read leaves it absent.

    WiFi amplitudes are cleaned (`clean_csi`); everything else stays in the unit and column order of disk.

    Raises:
        DamagedFileError: The ground truth is missing or damaged, so that no frame can be used.
    """
    if not clip.ground_truth.is_file():
        raise DamagedFileError(clip.ground_truth, "is missing")
    poses = read_ground_truth(clip.ground_truth, conventions)
    tables = packed_tables(modalities, conventions)
    problems = Problems()
    arrays = {"ground_truth": poses, "present": np.zeros((len(poses), len(modalities)), dtype=bool)}
    for column, modality in enumerate(modalities):
        frames = _read_frames(clip, modality, len(poses), conventions, root, problems)
        arrays["present"][[number - 1 for number in frames], column] = True
        if modality in POINT_MODALITIES:
            arrays |= _point_rows(modality, frames, len(poses), tables[modality])
        else:
            rows = _frame_rows(frames, len(poses), tables[modality])
            arrays[modality] = clean_csi(rows) if modality == "wifi" else rows
    return ClipArrays(clip.name, arrays, problems)


def number_ranges(numbers: Iterable[int]) -> str:
    """Write numbers shortly.

    >>> number_ranges([3, 9, 7, 8])
    '3, 7-9'
    """
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _read_frames(
    clip: RawClip, modality: str, count: int, conventions: Conventions, root: Path, problems: Problems
) -> dict[int, Array]:
    files = modality_frames(clip, modality, conventions.first_frame)
    if is_shifted(files, count):
        problems.damaged[_below(root, clip.folders[modality])] = (
            f"does not number its frames from {conventions.first_frame}: see --convention first_frame=NUMBER"
        )
        files = {}
    if missing := set(range(1, count + 1)) - set(files):
        problems.missing[modality] = number_ranges(missing)
    frames = {}
    for number, file in sorted(files.items()):
        name = _below(root, file.path)
        if number > count:
            problems.beyond.append(name)
            continue
        if file.size == 0:
            problems.empty.append(name)
            continue
        try:
            frames[number] = READERS[modality](file.path, conventions)
        except DamagedFileError as error:
            problems.damaged[name] = error.reason
    return frames


def _below(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _frame_rows(frames: Mapping[int, Array], count: int, table: Table) -> Array:
    rows = np.zeros((count, *table.shape))
    for number, frame in frames.items():
        rows[number - 1] = frame
    return rows


def _point_rows(modality: str, frames: Mapping[int, Array], count: int, table: Table) -> dict[str, Array]:
    counts = np.zeros(count, dtype=np.int64)
    counts[[number - 1 for number in frames]] = [len(points) for points in frames.values()]
    points = np.concatenate([np.empty((0, *table.shape)), *(frames[number] for number in sorted(frames))])
    return {
        modality: points,
        f"{modality}_start": np.cumsum(counts) - counts,
        f"{modality}_count": counts,
    }
