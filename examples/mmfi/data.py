"""The frames of a run: what it trains on, what it chooses by, and what it is tested on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from examples.mmfi.dataset import PoseFrames
from examples.mmfi.layout import ClipId
from examples.mmfi.packed import PackedClips
from examples.mmfi.protocols import hold_out, split_clips
from examples.mmfi.settings import Settings


@dataclass(frozen=True)
class RunData:
    """Frames of whole clips.

    Attributes:
        train: To train on.
        held_out: Of training clips that are set aside, to choose the epoch by.
        test: Of the validation clips of the split, read once the epoch is chosen.
        simulated: Whether they were made by `simulate`.
    """

    train: PoseFrames
    held_out: PoseFrames
    test: PoseFrames
    simulated: bool

    @property
    def frames(self) -> dict[str, dict[str, int]]:
        """How many frames each part has, and how many of its clips are left out because they lack a modality."""
        parts = {"train": self.train, "held_out": self.held_out, "test": self.test}
        return {name: {"used": len(part), "left_out": part.left_out} for name, part in parts.items()}


def open_data(settings: Settings) -> RunData:
    """Open the packed copy and split its clips as the settings say.

    Raises:
        ValueError: The folder is not packed, lacks a modality, a part of the split has no frame, or there are
            fewer training frames than a batch has.
    """
    packed = PackedClips(Path(settings.data))
    train, test = split_clips(packed.clips, settings.protocol, settings.split)
    for part, clips in {"training": train, "validation": test}.items():
        if not clips:
            raise ValueError(
                f"`data` should have {part} clips of protocol {settings.protocol}, split {settings.split}. "
                f"`{settings.data}` has {len(packed.clips)} clips, none of those. Choose another protocol or split."
            )
    kept, held_out = hold_out(train, settings.held_out, settings.seed)
    data = RunData(
        train=frames_of(packed, kept, settings),
        held_out=frames_of(packed, held_out, settings),
        test=frames_of(packed, test, settings),
        simulated=packed.simulated,
    )
    if len(data.train) < settings.batch_size:
        raise ValueError(
            f"`batch_size` should not exceed the {len(data.train)} training frames. Got `{settings.batch_size}`."
        )
    return data


def frames_of(packed: PackedClips, clips: Iterable[ClipId], settings: Settings) -> PoseFrames:
    """The frames of some clips as a run reads them."""
    conventions = replace(packed.conventions, lidar_points=settings.lidar_points, mmwave_points=settings.mmwave_points)
    return PoseFrames(
        packed, clips, settings.modalities, conventions=conventions, seed=settings.seed, every=settings.every
    )
