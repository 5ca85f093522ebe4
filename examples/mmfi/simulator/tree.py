"""Trees on disk: simulated clips in the layout of the real data, written in parallel and atomically."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from scipy.io import savemat

from examples.mmfi.layout import SIMULATED_MARKER, ClipId
from examples.mmfi.parallel import ordered_map
from examples.mmfi.protocols import scene_of
from examples.mmfi.simulator.actions import action_named
from examples.mmfi.simulator.clip import Clip, Settings, simulate_clip

_PARTIAL = ".partial"
_NOTICE = "SIMULATED data in the layout of MM-Fi. No measurement; no result on it is a result on MM-Fi."
_MAT_HEADER = b"MATLAB 5.0 MAT-file, SIMULATED in the layout of MM-Fi"
_MAT_TEXT = 116  # bytes of free text at the start of the format


def clip_folder(root: Path, subject: str, action: str) -> Path:
    """Where a clip lies: ROOT/E01/S01/A01 (public toolbox)."""
    return root / str(ClipId(scene_of(subject), subject, action))


def _mat_file(clip: Clip, index: int) -> bytes:
    """A MATLAB v5 file of one frame's CSI, without the usual date, so that equal data are equal bytes."""
    buffer = BytesIO()
    savemat(buffer, {"CSIamp": clip.csi_amplitude[index], "CSIphase": clip.csi_phase[index]})
    return _MAT_HEADER.ljust(_MAT_TEXT) + buffer.getvalue()[_MAT_TEXT:]


def write_clip(clip: Clip, folder: Path) -> None:
    """Write one clip's files into a new folder, in the names and types of the real data.

    Raises:
        FileExistsError: If the folder exists.
    """
    folder.mkdir(parents=True)
    for modality in ("rgb", "lidar", "mmwave", "wifi-csi"):
        (folder / modality).mkdir()
    np.save(folder / "ground_truth.npy", clip.ground_truth)
    for index in range(len(clip.ground_truth)):
        name = f"frame{index + 1:03d}"
        np.save(folder / "rgb" / f"{name}.npy", clip.rgb[index])
        clip.lidar[index].astype("<f8").tofile(folder / "lidar" / f"{name}.bin")
        clip.mmwave[index].astype("<f8").tofile(folder / "mmwave" / f"{name}.bin")
        (folder / "wifi-csi" / f"{name}.mat").write_bytes(_mat_file(clip, index))


def _produce(names: tuple[str, str], root: Path, settings: Settings) -> str:
    """Simulate and write one clip: into a partial folder that is renamed when complete."""
    unfinished = root / _PARTIAL / "-".join(names)
    shutil.rmtree(unfinished, ignore_errors=True)
    write_clip(simulate_clip(*names, settings), unfinished)
    target = clip_folder(root, *names)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(target)
    return " ".join(names)


def _claim(root: Path, settings: Settings) -> None:
    """Mark a folder as a simulated tree, or check that it is the same one.

    Raises:
        ValueError: If the folder holds something else, or a tree with other settings.
    """
    marker = root / SIMULATED_MARKER
    mine = json.dumps({"notice": _NOTICE, "settings": asdict(settings)}, indent=2) + "\n"
    if marker.exists():
        if marker.read_text() != mine:
            raise ValueError(
                f"`{root}` should hold a simulated tree with the same seed, frames and sensors. "
                f"Got another `{SIMULATED_MARKER}`. Choose another folder, or repeat the settings written there."
            )
        return
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {SIMULATED_MARKER.parts[0]}):
        raise ValueError(
            f"`{root}` should be a new or empty folder or a simulated tree. Got other files. "
            "Choose another folder: simulated and real data are never mixed."
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    unfinished = marker.with_suffix(".tmp")
    unfinished.write_text(mine)
    unfinished.replace(marker)


def _check(subjects: Sequence[str], actions: Sequence[str], workers: int) -> None:
    for subject in subjects:
        scene_of(subject)
    for action in actions:
        action_named(action)
    if workers < 1:  # before anything is written
        raise ValueError(f"`workers` should be positive. Got `{workers}`. Pass 1 to stay in this process.")


def simulate_tree(
    root: Path,
    subjects: Sequence[str],
    actions: Sequence[str],
    settings: Settings,
    workers: int = 1,
    report: Callable[[str, int, int], None] | None = None,
) -> int:
    """Write every clip of `subjects` x `actions` that is not there yet; an interrupted run continues.

    The bytes of a clip depend on its subject, action and the settings only, not on `workers` or other clips.

    Args:
        root: Folder of the tree: new, empty, or a simulated tree with the same settings.
        subjects: "S01" to "S40".
        actions: "A01" to "A27".
        settings: Seed, number of frames and sensors.
        workers: Processes.
        report: Called after every written clip with its name, its number and the number to write.

    Returns:
        How many clips were written.

    Raises:
        ValueError: For an unknown subject or action, no worker, or a folder that holds anything else.
    """
    _check(subjects, actions, workers)
    _claim(root, settings)
    wanted = [(subject, action) for subject in dict.fromkeys(subjects) for action in dict.fromkeys(actions)]
    missing = [names for names in wanted if not clip_folder(root, *names).exists()]
    produce = partial(_produce, root=root, settings=settings)
    for done, name in enumerate(ordered_map(produce, missing, workers), start=1):
        if report is not None:
            report(name, done, len(missing))
    shutil.rmtree(root / _PARTIAL, ignore_errors=True)
    return len(missing)
