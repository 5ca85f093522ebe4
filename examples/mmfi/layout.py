"""Where things are in a copy of MM-Fi: clips by scene, subject and action, frames by their number.

Accepted: `ROOT/E01/S01/A01/...`, the mirror that repeats a level (`ROOT/E01/E01/S01/...`), and radar frames
in a tree of their own (`filtered_mmwave/E01/S01/A01/frame001.bin`) inside ROOT, beside it, or given as ROOT.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from examples.mmfi.conventions import MODALITIES, SUFFIXES, Conventions

SIMULATED_MARKER = Path("SIMULATED", ".settings.json")
"""In the root of every simulated copy, and of none else: its seed and settings.

A folder with a hidden file, because the public toolbox lists every entry of the root and of the folders
in it as a folder, unless its name starts with a dot.
"""

_SCENE, _SUBJECT, _ACTION = (re.compile(rf"{letter}\d\d") for letter in "ESA")
_FRAME = re.compile(r"frame(\d+)")


class ClipId(NamedTuple):
    """Name of a clip: one subject doing one action in one scene."""

    scene: str
    subject: str
    action: str

    def __str__(self) -> str:
        """Return the clip's path below the root, such as `E01/S01/A01`."""
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> ClipId:
        """Rebuild a clip's name from its path below the root."""
        scene, subject, action = text.split("/")
        return cls(scene, subject, action)


@dataclass(frozen=True)
class RawClip:
    """A clip on disk.

    Attributes:
        name: Which clip.
        ground_truth: The file of its poses, which may be absent.
        folders: The folder of every modality found.
        filtered_mmwave: The folder of its frames in the separate radar tree, if that has it.
    """

    name: ClipId
    ground_truth: Path
    folders: Mapping[str, Path]
    filtered_mmwave: Path | None = None


class FrameFile(NamedTuple):
    """A file of one frame and its size in bytes."""

    path: Path
    size: int


def find_clips(root: Path, conventions: Conventions) -> list[RawClip]:
    """Find the clips of a copy, sorted by name; frames are not listed yet.

    Raises:
        ValueError: `root` is no folder, holds no clip, or holds a clip twice.
    """
    folders = _clip_folders(root)
    if not folders:
        raise ValueError(f"`root` should hold clips as E01/S01/A01. Looked in `{root}`, found {_seen(root)}.")
    filtered = _filtered_clip_folders(root, conventions.filtered_mmwave_folder)
    return [
        RawClip(
            name=name,
            ground_truth=folder / conventions.ground_truth_file,
            folders=_modality_folders(folder, filtered.get(name), conventions),
            filtered_mmwave=filtered.get(name),
        )
        for name, folder in sorted(folders.items())
    ]


def is_simulated(root: Path) -> bool:
    """Whether a copy was made by `simulate`, which says so in its root."""
    return (root / SIMULATED_MARKER.parts[0]).is_dir()


def packed_beside(root: Path) -> Path:
    """Where to pack a copy to, unless told: beside it."""
    named = root if root.name not in ("", "..") else root.resolve()
    return named.with_name(f"{named.name}-packed")


def pack_command(root: Path, conventions: Sequence[str] = ()) -> str:
    """The command that packs a copy, to be pasted into a shell, with `NAME=VALUE` options where there are any."""
    words = ["pack", str(root), str(packed_beside(root)), *(f"--convention={option}" for option in conventions)]
    return f"python -m examples.mmfi {shlex.join(words)}"


def frame_files(folder: Path, suffix: str) -> dict[int, FrameFile]:
    """List the frames of a folder by the number in their name, never by position; other files are ignored.

    A link to nowhere counts as absent.

    Raises:
        ValueError: Two files carry the same number.
    """
    found: dict[int, FrameFile] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, dot, extension = entry.name.rpartition(".")
            match = _FRAME.fullmatch(stem)
            if match is None or dot + extension != suffix:
                continue
            number = int(match[1])
            if number in found:
                raise ValueError(
                    f"A frame number should occur once in a folder. Got `{found[number].path.name}` and "
                    f"`{entry.name}` in `{folder}`. Move one of them away."
                )
            if not entry.is_symlink() or Path(entry.path).exists():
                found[number] = FrameFile(folder / entry.name, entry.stat().st_size)
    return found


def modality_frames(clip: RawClip, modality: str, first: int = 1) -> dict[int, FrameFile]:
    """List the frames of one modality of a clip, counted from 1; empty where the clip lacks the modality.

    Args:
        clip: The clip.
        modality: One of `MODALITIES`.
        first: Number in the name of the first frame. A file with a lower number gets one below 1.
    """
    folder = clip.folders.get(modality)
    files = {} if folder is None else frame_files(folder, SUFFIXES[modality])
    return {number - first + 1: file for number, file in files.items()}


def is_shifted(numbers: Collection[int], frames: int) -> bool:
    """Whether frames, counted from 1, look numbered from another start: before the first, or one too far.

    One surplus file at the end of a complete folder is no shift: the first frame is there, too.
    """
    return any(number < 1 for number in numbers) or (1 not in numbers and frames + 1 in numbers)


def _clip_folders(root: Path) -> dict[ClipId, Path]:
    if not root.is_dir():
        raise ValueError(f"`root` should be a folder with E01, E02, ... in it. Got `{root}`: no such folder.")
    found: dict[ClipId, Path] = {}
    for scene in _children(root, _SCENE):
        repeated = scene / scene.name
        for level in (scene, repeated) if repeated.is_dir() else (scene,):
            for subject in _children(level, _SUBJECT):
                for action in _children(subject, _ACTION):
                    name = ClipId(scene.name, subject.name, action.name)
                    if name in found:
                        raise ValueError(
                            f"A clip should occur once in a copy. Got {name} as `{found[name]}` and "
                            f"`{action}`. Move one of them away."
                        )
                    found[name] = action
    return found


def _filtered_clip_folders(root: Path, folder: str) -> dict[ClipId, Path]:
    if not folder:
        return {}
    for place in (root / folder, root / folder / folder, root.parent / folder, root.parent / folder / folder):
        if place.is_dir() and (found := _clip_folders(place)):
            return found
    return {}


def _modality_folders(clip: Path, filtered: Path | None, conventions: Conventions) -> dict[str, Path]:
    places = {modality: clip / conventions.folder(modality) for modality in MODALITIES}
    if not _has_frames(places["mmwave"]) or conventions.prefer_filtered_mmwave:
        # The filtered radar tree has no modality level: its frames lie in the clip's own folder.
        filtered_places = [place for place in (filtered, clip) if place and _has_frames(place)]
        places["mmwave"] = next(iter(filtered_places), places["mmwave"])
    return {modality: place for modality, place in places.items() if place.is_dir()}


def _has_frames(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(_FRAME.match(entry.name) for entry in entries)


def _children(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        matching = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir()]
    return sorted(matching)


def _seen(root: Path) -> str:
    deeper = sorted({scene.parent for scene in root.glob("*/E[0-9][0-9]")})
    if deeper:
        return f"scenes one level deeper: pass `{deeper[0]}`"
    names = sorted(path.name for path in root.iterdir())
    if any(_SUBJECT.fullmatch(name) for name in names):
        return f"subjects: pass the folder above, `{root.resolve().parent}`"
    return f"only {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "nothing"
