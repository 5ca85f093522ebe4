"""The MARS recording: points of a mmWave radar and poses of a Kinect, frame by frame.

Layout and columns as in the public repository SizheAn/MARS (An and Ogras, ACM TECS 2021):
`synced_data/wooutlier/subjectN/timesplit/{radar,kinect}_data_{validate,test}.csv`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.samples import Samples, Splits

LAYOUT = "synced_data/wooutlier"
PARTS = ("validate", "test")
"""To train and to test on."""
MODALITIES = {"geometry": [2, 3, 4], "doppler": [5], "intensity": [6]}
"""Columns of a radar row by modality: x, y, z (m); radial velocity (m/s); intensity."""
JOINTS = 25
BLOCK, HELD_OUT_EVERY = 50, 7
"""Neighbouring frames are alike, so frames are held out in blocks: every 7th of 50."""

Inputs = dict[str, tuple[Tensor, Tensor]]
"""By modality the points `[frames, points, columns]` and a mask `[frames, points]`, True for real points."""


def subjects(root: Path) -> list[Path]:
    """The folders of all subjects.

    Raises:
        FileNotFoundError: If there are none, or with every file of theirs that is missing.
    """
    found = sorted(path for path in (root / LAYOUT).glob("subject*") if path.is_dir())
    if not found:
        raise FileNotFoundError(f"MARS should have folders {LAYOUT}/subjectN. Found none in {root}. Check --data.")
    files = [_file(folder, what, part) for folder in found for what in ("radar", "kinect") for part in PARTS]
    missing = "\n  ".join(str(file) for file in files if not file.exists())
    if missing:
        raise FileNotFoundError(
            f"Every subject of MARS should have its radar and Kinect files. Missing are\n  {missing}\n"
            "Complete the copy, or take the subject out of it."
        )
    return found


def load(root: Path) -> Splits:
    """Read all subjects: the `validate` files to train on (minus held-out blocks), the `test` files to test on."""
    training, test = ([_read(folder, part) for folder in subjects(root)] for part in PARTS)
    longest = max(len(points) for clouds, _ in training + test for points in clouds)
    held_out = torch.cat([_held_out(len(clouds)) for clouds, _ in training])
    known = _pad(training, longest)
    scaled = _scaler(known, ~held_out)
    known, unknown = scaled(known), scaled(_pad(test, longest))
    return Splits(
        known.take((~held_out).nonzero().squeeze(1)),
        known.take(held_out.nonzero().squeeze(1)),
        unknown,
    )


def _read(subject: Path, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The radar rows of every frame, and the poses `[frames, joints, 3]`."""
    radar, kinect = (
        np.loadtxt(_file(subject, what, part), delimiter=",", skiprows=1, ndmin=2) for what in ("radar", "kinect")
    )
    # Frame numbers recur, so a frame is a run of equal numbers.
    clouds = np.split(radar, np.flatnonzero(np.diff(radar[:, 0])) + 1)
    if len(clouds) != len(kinect):
        raise ValueError(
            f"Radar and Kinect should have equally many frames. Got {len(clouds)} and {len(kinect)} "
            f"({part}) in {subject}. Take both files from one release of the data."
        )
    return clouds, kinect.reshape(len(kinect), 3, JOINTS).transpose(0, 2, 1)


def _file(subject: Path, what: str, part: str) -> Path:
    return subject / "timesplit" / f"{what}_data_{part}.csv"


def _pad(parts: list[tuple[list[np.ndarray], np.ndarray]], longest: int) -> Samples:
    clouds = [cloud for part, _ in parts for cloud in part]
    rows = np.zeros((len(clouds), longest, clouds[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(clouds), longest), dtype=bool)
    for i, cloud in enumerate(clouds):
        rows[i, : len(cloud)] = cloud
        mask[i, : len(cloud)] = True
    points, real = torch.from_numpy(rows), torch.from_numpy(mask)
    poses = torch.from_numpy(np.concatenate([pose for _, pose in parts])).float()
    return Samples({modality: (points[..., columns], real) for modality, columns in MODALITIES.items()}, poses)


def _held_out(frames: int) -> Tensor:
    return torch.arange(frames) // BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


class _scaler:  # noqa: N801 - used as a function
    """Standardise each column by the real points of the chosen frames; padding stays 0."""

    def __init__(self, frames: Samples, chosen: Tensor) -> None:
        self._of = {}
        for modality, (points, mask) in frames.inputs.items():
            real = points[chosen][mask[chosen]]
            self._of[modality] = (real.mean(0), real.std(0))

    def __call__(self, frames: Samples) -> Samples:
        scaled = {}
        for modality, (points, mask) in frames.inputs.items():
            mean, std = self._of[modality]
            scaled[modality] = ((points - mean) / std * mask.unsqueeze(-1), mask)
        return Samples(scaled, frames.target)
