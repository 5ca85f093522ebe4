"""Batches for training, gathered from a packed copy of MM-Fi by a few indexing operations each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import MMWAVE_COLUMNS, POINT_MODALITIES, Conventions
from examples.mmfi.gather import (
    blocks,
    clear_padding_,
    padded_frames,
    phases_of,
    point_indices,
    screen_coordinates,
)
from examples.mmfi.layout import ClipId
from examples.mmfi.packed import PackedClips

Points: TypeAlias = tuple[Tensor, Tensor]
Batch: TypeAlias = tuple[dict[str, Tensor | Points], Tensor]


class PoseFrames(Dataset[Batch]):
    """The frames of some clips in which all chosen modalities are present, with their poses.

    A batch is `(inputs, target)`. `target` is `[batch, joints, 3]` in metres. `inputs` maps each modality to

    - rgb: `[batch, window, keypoints, 2]`, keypoints around the frame in screen coordinates (the image's
      width spans [-1, 1]); a window stays within its clip and repeats the frames at its ends; where a frame
      has no keypoints, the nearest one of the clip that has stands in;
    - lidar: `(points, mask)`, `[batch, points, 3]` and `[batch, points]` bool, true where there is a point;
    - mmwave: the same with the five columns of `conventions.MMWAVE_COLUMNS`;
    - wifi: `[batch, antennas, subcarriers, packets]`, cleaned amplitude in [0, 1].

    All float32. A sample does not depend on the rest of its batch, except that points are padded (with zeros)
    to the batch's largest frame unless their number is fixed by the conventions.

    Attributes:
        packed: The packed copy.
        modalities: Which inputs a batch has.
        conventions: How they are made.
        clips: The clips.
        rows: The row of every frame in the packed copy.
        left_out: Number of frames that are not there because they lack a modality.
    """

    def __init__(
        self,
        packed: PackedClips,
        clips: Iterable[ClipId],
        modalities: Sequence[str],
        *,
        conventions: Conventions | None = None,
        seed: int = 0,
        every: int = 1,
    ) -> None:
        """Choose frames.

        Args:
            packed: A packed copy.
            clips: Clips of it.
            modalities: Which inputs a batch has.
            conventions: In place of those that the copy was packed with.
            seed: Of the choice of points, where they are sampled.
            every: Leave out all frames of a clip but the first and every so manieth after it; windows of keypoints
                still have them.

        Raises:
            ValueError: A modality or a clip is not packed, or no frame has all modalities.
        """
        self.packed = packed
        self.modalities = tuple(modalities)
        self.conventions = conventions or packed.conventions
        self.clips = tuple(clips)
        self._seed = seed
        self._every = every
        # Shared memory, so that the workers of a loader that keeps them see a later `set_epoch`.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        _check_known("modalities", self.modalities, packed.modalities)
        _check_known("clips", self.clips, packed.clips)
        self.rows, self._clip, self.left_out = self._usable_rows()
        self._bounds = np.array([packed.clips[clip] for clip in self.clips]).reshape(-1, 2)
        if "rgb" in self.modalities:
            self._keypoints, self._first_window = self._padded_keypoints()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        """Return one frame as a batch of one, without the batch axis."""
        inputs, target = self.__getitems__([index])
        single: dict[str, Tensor | Points] = {
            name: (value[0][0], value[1][0]) if isinstance(value, tuple) else value[0] for name, value in inputs.items()
        }
        return single, target[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the frames of the given indices as a batch. `DataLoader` calls this once a batch."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows, clip = self.rows[chosen], self._clip[chosen]
        inputs: dict[str, Tensor | Points] = {}
        for modality in self.modalities:
            if modality in POINT_MODALITIES:
                inputs[modality] = self._points(modality, rows)
            elif modality == "rgb":
                inputs[modality] = self._windows(rows, clip)
            else:
                inputs[modality] = torch.from_numpy(self.packed.tables[modality][rows])
        target = self.packed.tables["ground_truth"][rows]
        return inputs, torch.from_numpy(target).mul_(self.conventions.metres_per_unit)

    def frame(self, index: int) -> tuple[ClipId, int]:
        """Tell the clip and the frame number of an index."""
        clip = int(self._clip[index])
        return self.clips[clip], int(self.rows[index] - self._bounds[clip, 0]) + 1

    def set_epoch(self, epoch: int) -> None:
        """Draw other points from now on, where they are sampled; the same epoch draws the same ones."""
        self._epoch.fill_(epoch)

    def _usable_rows(self) -> tuple[Array, Array, int]:
        """Row and clip of every frame that has all modalities, and the number of those that lack one."""
        present = self.packed.tables["present"]
        columns = [self.packed.modalities.index(modality) for modality in self.modalities]
        rows, clips, left_out = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for number, clip in enumerate(self.clips):
            first, frames = self.packed.clips[clip]
            complete = present[first : first + frames : self._every, columns].all(axis=1)
            usable = first + self._every * np.flatnonzero(complete)
            rows.append(usable)
            clips.append(np.full(len(usable), number))
            left_out += int(complete.size) - len(usable)
        if not any(map(len, rows)):
            raise ValueError(
                f"`clips` should hold a frame with all of {', '.join(self.modalities)}. Got "
                f"{len(self.clips)} clips without one, such as {self.clips[0]}. Choose other clips or fewer "
                f"modalities; `{self.packed.folder / 'report.json'}` names what is missing."
            )
        return np.concatenate(rows), np.concatenate(clips), left_out

    def _padded_keypoints(self) -> tuple[Array, Array]:
        """All keypoints with a margin around every clip, so that any window of a clip is a run of records.

        Some 50 MB for the whole data set. Also where the window of each clip's first frame begins.
        """
        present, options = self.packed.present("rgb"), self.conventions
        rows = [np.empty(0, np.int64)]
        for first, frames in self._bounds:
            own = present[first : first + frames]
            rows.append(first + padded_frames(own, options.rgb_window // 2) if own.any() else rows[0])
        keypoints = self.packed.tables["rgb"][np.concatenate(rows)]
        scaled = screen_coordinates(keypoints, options.keypoint_unit, options.image_width, options.image_height)
        return scaled, np.cumsum([len(block) for block in rows])[:-1]

    def _windows(self, rows: Array, clip: Array) -> Tensor:
        starts = self._first_window[clip] + rows - self._bounds[clip, 0]
        return torch.from_numpy(blocks(self._keypoints, starts, self.conventions.rgb_window))

    def _points(self, modality: str, rows: Array) -> Points:
        tables, width = self.packed.tables, self.conventions.point_count(modality)
        start, counts = tables[f"{modality}_start"][rows], tables[f"{modality}_count"][rows]
        if width is None:
            width = int(counts.max())
            points = blocks(tables[modality], start, width)
        else:
            phases = phases_of(rows, self._seed + 1_000_003 * int(self._epoch))
            # Whole rows are taken three times as fast as indexed.
            points = np.take(tables[modality], start[:, None] + point_indices(counts, width, phases), axis=0)
        mask = clear_padding_(points, counts)
        if modality == "mmwave":
            points = points[..., [self.conventions.mmwave_columns.index(name) for name in MMWAVE_COLUMNS]]
        return torch.from_numpy(points), torch.from_numpy(mask)


def frame_loader(
    frames: PoseFrames,
    batch_size: int,
    *,
    shuffle: bool = False,
    sampler: Sampler[int] | Sequence[int] | None = None,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Make a loader of whole batches.

    Args:
        frames: What to load.
        batch_size: Frames of a batch.
        shuffle: Draw the frames in another order every epoch.
        sampler: Gives the order in place of `shuffle`, such as a `DistributedSampler`, or the indices themselves.
        seed: Of the order. `loader.generator.manual_seed(...)` before an epoch makes that epoch repeatable.
        workers: Processes that gather batches ahead; 0 gathers in this one.
        drop_last: Leave the last, smaller batch out.
        pin_memory: Put batches in page-locked memory, for copies to a GPU that do not wait.
    """
    return DataLoader(
        frames,
        batch_size=batch_size,
        shuffle=shuffle,
        sampler=sampler,
        generator=torch.Generator().manual_seed(seed),
        num_workers=workers,
        collate_fn=cast(Callable[[list[Any]], Batch], as_batch),
        drop_last=drop_last,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )


def as_batch(batch: Batch) -> Batch:
    """Collate function for a `DataLoader` over `PoseFrames`, whose `__getitems__` gives whole batches."""
    return batch


def _check_known(name: str, wanted: Iterable[object], known: Iterable[object]) -> None:
    available = set(known)
    unknown = [str(item) for item in wanted if item not in available]
    if unknown or not wanted:
        found = ", ".join(sorted(map(str, available))[:5])
        raise ValueError(
            f"`{name}` should name what is packed, at least one. Got {', '.join(unknown[:5]) or 'none'}. "
            f"{len(available)} are packed: {found}{', ...' if len(available) > 5 else ''}."
        )
