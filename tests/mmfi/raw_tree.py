"""A writer of small trees in MM-Fi's layout: random values of the right shape, and ways to damage them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import savemat

from examples.mmfi.conventions import Conventions
from examples.mmfi.layout import ClipId

CLIPS = (ClipId("E01", "S01", "A01"), ClipId("E01", "S02", "A02"), ClipId("E04", "S31", "A02"))
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Tree:
    """A tree on disk and the arrays that were written, by clip, modality and frame number."""

    root: Path
    frames: int = 9
    clips: tuple[ClipId, ...] = CLIPS
    seed: int = 0
    written: dict = field(default_factory=dict)
    ground_truth: dict = field(default_factory=dict)

    def write(self) -> "Tree":
        rng = np.random.default_rng(self.seed)
        for clip in self.clips:
            folder = self.root / str(clip)
            for name in ("rgb", "lidar", "mmwave", "wifi-csi"):
                (folder / name).mkdir(parents=True)
            self.ground_truth[clip] = random_poses(rng, self.frames)
            np.save(folder / "ground_truth.npy", self.ground_truth[clip])
            self.written[clip] = {name: {} for name in ("rgb", "lidar", "mmwave", "wifi")}
            for number in range(1, self.frames + 1):
                for modality, value in random_frame(rng).items():
                    write_frame(self.file(clip, modality, number), modality, value)
                    self.written[clip][modality][number] = value
        return self

    def number_from_0(self, clip: ClipId, modality: str) -> None:
        """Rename the frames of a folder, unless that is done: 1, 2, ... become 0, 1, ..."""
        if self.file(clip, modality, 0).exists():
            return
        for number in range(1, self.frames + 1):
            self.file(clip, modality, number).rename(self.file(clip, modality, number - 1))

    def file(self, clip: ClipId, modality: str, number: int) -> Path:
        folder = Conventions().folder(modality)
        suffix = {"rgb": "npy", "wifi": "mat"}.get(modality, "bin")
        return self.root / str(clip) / folder / f"frame{number:03d}.{suffix}"


def random_poses(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Poses whose scale and axes are those of MM-Fi: upright, y down, about 3 m away, metres."""
    pelvis, hips, spine = (0.0, -0.08), (0.1, -0.08), (0.0, -0.38)
    right, left = [hips, (0.1, 0.32), (0.1, 0.77)], [(-x, y) for x, y in (hips, (0.1, 0.32), (0.1, 0.77))]
    trunk = [spine, (0.0, -0.68), (0.0, -0.8), (0.0, -0.86)]
    arms = [(-0.18, -0.62), (-0.4, -0.57), (-0.64, -0.62), (0.18, -0.62), (0.4, -0.57), (0.64, -0.62)]
    plane = np.array([pelvis, *right, *left, *trunk, *arms])
    body = np.column_stack([plane, np.full(17, 3.0)])
    return body + rng.normal(0, 0.01, size=(frames, 17, 3))


def random_frame(rng: np.random.Generator) -> dict[str, np.ndarray]:
    lidar, radar = rng.integers(5, 40), rng.integers(1, 12)
    return {
        "rgb": rng.uniform((100, 50), (540, 430), size=(17, 2)),
        "lidar": rng.normal((3, 0, 0), 0.4, size=(lidar, 3)),
        "mmwave": np.column_stack(
            [
                rng.normal((3, 0, 0), 0.4, size=(radar, 3)),
                rng.uniform(5, 250, size=radar),
                rng.normal(0, 0.4, size=radar),
            ]
        ),
        "wifi": random_csi(rng),
    }


def random_csi(rng: np.random.Generator) -> np.ndarray:
    """Amplitude in dB with an inf and a nan now and then."""
    amplitude = rng.normal(42.3, 5.0, size=(3, 114, 10))
    for value in (np.inf, -np.inf, np.nan):
        if rng.random() < 0.3:
            amplitude.flat[rng.integers(amplitude.size)] = value
    return amplitude


def write_frame(path: Path, modality: str, value: np.ndarray) -> None:
    if modality == "rgb":
        np.save(path, value)
    elif modality == "wifi":
        savemat(path, {"CSIamp": value, "CSIphase": np.zeros_like(value)})
    else:
        value.tofile(path)


def shared_data() -> Path:
    return Path(os.environ.get("AWC_BALANCE_DATA", REPOSITORY.parent / "shared" / "data"))
