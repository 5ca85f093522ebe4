"""What a copy of MM-Fi holds: every file counted by listing folders, a few of them read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import MODALITIES, Conventions
from examples.mmfi.layout import ClipId, RawClip, is_shifted, modality_frames
from examples.mmfi.readers import READERS, DamagedFileError, read_ground_truth

_KEPT = 2000  # values in memory, of each kind


@dataclass(frozen=True)
class ModalityFiles:
    """Files of one modality in one clip.

    Attributes:
        count: Files with a frame number.
        missing: Frames without a file.
        empty: Files of 0 bytes.
        beyond: Files of frames that the ground truth does not have.
        shifted: Whether the frames look numbered from another start than the first frame.
        filled: Names of those that are not empty.
    """

    count: int
    missing: int
    empty: Sequence[Path]
    beyond: Sequence[Path]
    shifted: bool
    filled: Sequence[str]


@dataclass(frozen=True)
class ClipSurvey:
    """One clip: the frames of its ground truth, None where that does not open, and its files by modality."""

    clip: RawClip
    frames: int | None
    files: Mapping[str, ModalityFiles]


@dataclass(frozen=True)
class Sample:
    """Some files read, by path: values of the first of them, and what was wrong with those that are damaged."""

    read: Mapping[Path, Array]
    damaged: Mapping[Path, str]
    size: int

    @property
    def values(self) -> list[Array]:
        """Values without their paths."""
        return list(self.read.values())


@dataclass(frozen=True)
class Survey:
    """All that `doctor` looks at.

    Attributes:
        clips: Every clip.
        samples: Read files by modality, and the poses of some clips as `ground_truth`.
        other_folders: Number of clips that have a folder which no modality uses, by its name.
    """

    clips: Sequence[ClipSurvey]
    samples: Mapping[str, Sample]
    other_folders: Mapping[str, int]

    @property
    def names(self) -> set[ClipId]:
        """Names of the clips."""
        return {survey.clip.name for survey in self.clips}

    def having(self, modality: str) -> list[ClipSurvey]:
        """Clips that have files of a modality."""
        return [survey for survey in self.clips if survey.files[modality].count]


def survey_copy(clips: Iterable[RawClip], conventions: Conventions, sample: int | None, seed: int = 0) -> Survey:
    """List the files of all clips and read some.

    Args:
        clips: What `find_clips` found.
        conventions: How to read.
        sample: Files to read of each modality, spread over the clips; None for all.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    surveys = [survey_clip(clip, conventions) for clip in clips]
    poses = [survey.clip.ground_truth for survey in surveys if survey.frames is not None]
    paths = {"ground_truth": _drawn([[path] for path in poses], sample, rng)}
    for modality in MODALITIES:
        there = [survey for survey in surveys if survey.files[modality].filled]
        files = [[s.clip.folders[modality] / name for name in s.files[modality].filled] for s in there]
        paths[modality] = _drawn(files, sample, rng)
    return Survey(
        clips=surveys,
        samples={kind: _read(paths[kind], kind, conventions) for kind in paths},
        other_folders=_other_folders(surveys, {conventions.folder(modality) for modality in MODALITIES}),
    )


def survey_clip(clip: RawClip, conventions: Conventions) -> ClipSurvey:
    """List the files of one clip and open its ground truth, without reading it.

    Args:
        clip: The clip.
        conventions: For the number of the first frame, and of frames where there is no ground truth.
    """
    frames = _frames_of(clip.ground_truth)
    expected = frames or conventions.frames_per_clip
    files = {modality: _list(clip, modality, expected, conventions.first_frame) for modality in MODALITIES}
    return ClipSurvey(clip, frames, files)


def _list(clip: RawClip, modality: str, frames: int, first: int) -> ModalityFiles:
    files = sorted(modality_frames(clip, modality, first).items())
    return ModalityFiles(
        count=len(files),
        missing=len(set(range(1, frames + 1)) - {number for number, _ in files}),
        empty=[file.path for _, file in files if not file.size],
        beyond=[file.path for number, file in files if not 1 <= number <= frames],
        shifted=is_shifted(dict(files), frames),
        filled=[file.path.name for _, file in files if file.size],
    )


def _frames_of(ground_truth: Path) -> int | None:
    try:
        return len(np.load(ground_truth, mmap_mode="r"))
    except (OSError, ValueError, EOFError, SyntaxError, TypeError):
        return None


def _other_folders(surveys: Iterable[ClipSurvey], used: set[str]) -> dict[str, int]:
    places = [survey.clip.ground_truth.parent for survey in surveys]
    folders = Counter(entry.name for place in places for entry in place.iterdir() if not entry.suffix)
    return {name: folders[name] for name in sorted(folders) if name not in used}


def _read(paths: Sequence[Path], kind: str, conventions: Conventions) -> Sample:
    reader = {**READERS, "ground_truth": read_ground_truth}[kind]
    read: dict[Path, Array] = {}
    damaged: dict[Path, str] = {}
    for path in paths:
        _read_into(read, damaged, path, partial(reader, path, conventions))
    return Sample(read, damaged, len(paths))


def _read_into(read: dict[Path, Array], damaged: dict[Path, str], path: Path, reader: Callable[[], Array]) -> None:
    try:
        values = reader()
    except DamagedFileError as error:
        damaged[path] = error.reason
        return
    if len(read) < _KEPT:
        read[path] = values


def _drawn(clips: Sequence[Sequence[Path]], count: int | None, rng: np.random.Generator) -> list[Path]:
    """Up to `count` files at random, one of every clip before a second of any."""
    shuffled = [
        [clips[place][index] for index in rng.permutation(len(clips[place]))] for place in rng.permutation(len(clips))
    ]
    rounds = (path for turn in zip_longest(*shuffled) for path in turn if path is not None)
    return list(islice(rounds, count))
