"""Batches of a run: shuffled reproducibly, dealt out to processes, read in parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from examples.mmfi import processes
from examples.mmfi.dataset import Batch, Points, PoseFrames, frame_loader
from examples.mmfi.settings import AWC, MODALITY_LEVEL, Settings

Parts = list[Batch]
"""A batch, or a process's share of it, in parts of equal size."""
_TOGETHER = (AWC, MODALITY_LEVEL)
"""Methods for which the processes measure together, each on batches of its own; see `awc_balance.balancers`."""


class EpochOrder(Sampler[int]):
    """The order of the frames in an epoch, for one of several processes.

    It depends on the seed and the epoch only. Frames that do not fill the last batch are left out until the next
    epoch. The share of a process is every n-th frame of each batch, so that all processes together read the same
    batches as one alone.

    Attributes:
        steps: Batches of an epoch.
        skipped: Batches at its start that are left out.
    """

    def __init__(self, frames: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        """Of a number of frames; `batch_size` is that of all processes together."""
        self._frames, self._batch_size, self._seed = frames, batch_size, seed
        self._rank, self._processes = rank, processes
        self.steps = frames // batch_size
        self.begin(0)

    def begin(self, epoch: int, skipped: int = 0) -> None:
        """Give the order of an epoch from now on, without the batches that were read before an interruption."""
        self._epoch, self.skipped = epoch, skipped

    def __len__(self) -> int:
        """Return the number of frames that this process reads."""
        return (self.steps - self.skipped) * self._batch_size // self._processes

    def __iter__(self) -> Iterator[int]:
        """Give this process's frames."""
        generator = torch.Generator().manual_seed(_mixed(self._seed, self._epoch))
        order = torch.randperm(self._frames, generator=generator)
        read = order[self.skipped * self._batch_size : self.steps * self._batch_size]
        return iter(read[self._rank :: self._processes].tolist())


class Placed:
    """The batches of a loader, on a device."""

    def __init__(self, loader: DataLoader[Batch], device: torch.device) -> None:
        """Put the batches of a loader on a device."""
        self._loader, self._device = loader, device

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches."""
        return (on_device(batch, self._device) for batch in self._loader)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)


class PartedBatches:
    """Batches as lists of parts, of one epoch after another.

    Attributes:
        order: The order of the frames.
    """

    def __init__(self, parts: Placed, count: int, order: EpochOrder, limit: int | None = None) -> None:
        """Join every `count` parts to a batch; `limit` is the most batches that are read in an epoch."""
        self.order = order
        self._parts, self._count, self._limit = parts, count, limit

    def __iter__(self) -> Iterator[Parts]:
        """Give the batches."""
        parts = iter(self._parts)
        for _ in range(len(self)):
            yield list(islice(parts, self._count))

    def __len__(self) -> int:
        """Return the number of batches."""
        left = self.order.steps - self.order.skipped
        return left if self._limit is None else min(left, self._limit)


def training_batches(frames: PoseFrames, settings: Settings, device: torch.device, workers: int = 0) -> PartedBatches:
    """The shuffled batches of a run, of which this process reads its share.

    Args:
        frames: The training frames.
        settings: The size of a batch, in how many parts it is read, and the seed of the order.
        device: Where the batches go.
        workers: As in `frame_loader`.

    Raises:
        ValueError: If a batch does not divide into parts of equal size.
    """
    size = part_size(settings)
    order = EpochOrder(len(frames), settings.batch_size, settings.seed, processes.rank(), processes.count())
    return PartedBatches(_parts(frames, size, order, device, workers), settings.accumulation, order)


def method_batches(frames: PoseFrames, settings: Settings, device: torch.device, workers: int = 0) -> PartedBatches:
    """What a method measures on at the start of an epoch.

    Where the library puts together what the processes measure, each reads its share of every batch, as in training;
    elsewhere all read the same. Where gradients of whole batches are squared a batch has parts as small as in
    training. Elsewhere it does not matter how samples are batched, and a batch is a part. The arguments and errors are
    those of `training_batches`.
    """
    rank, count = (processes.rank(), processes.count()) if settings.method in _TOGETHER else (0, 1)
    squares_batches = settings.method == AWC and settings.method_options.get("fisher") != "per_sample"
    size, parts = part_size(settings), settings.accumulation if squares_batches else 1
    batch_size = size * parts * count
    order = EpochOrder(len(frames), batch_size, settings.seed, rank, count)
    limit = settings.method_frames and math.ceil(settings.method_frames / batch_size)
    return PartedBatches(_parts(frames, size, order, device, workers), parts, order, limit)


def part_size(settings: Settings) -> int:
    """Frames that a process reads at a time.

    Raises:
        ValueError: If a batch does not divide into parts of equal size.
    """
    size, rest = divmod(settings.batch_size, settings.accumulation * processes.count())
    if rest or not size:
        raise ValueError(
            "`batch_size` should be a multiple of `accumulation` times the number of processes. Got "
            f"`{settings.batch_size}`, `{settings.accumulation}` and {processes.count()}. Change one of them."
        )
    return size


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device, copied without waiting where its memory is pinned."""
    inputs, target = batch

    def moved(value: Tensor) -> Tensor:
        return value.to(device, non_blocking=True)

    placed: dict[str, Tensor | Points] = {
        name: moved(value) if isinstance(value, Tensor) else (moved(value[0]), moved(value[1]))
        for name, value in inputs.items()
    }
    return placed, moved(target)


def evenly(frames: Sequence[int], count: int) -> list[int]:
    """Some of the frames, evenly spaced; all of them if there are no more.

    >>> evenly(range(100), 4)
    [12, 37, 62, 87]
    """
    if count >= len(frames):
        return list(frames)
    return [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]


def _parts(frames: PoseFrames, size: int, order: EpochOrder, device: torch.device, workers: int) -> Placed:
    loader = frame_loader(frames, size, sampler=order, workers=workers, pin_memory=device.type == "cuda")
    return Placed(loader, device)


def _mixed(seed: int, epoch: int) -> int:
    """A seed of its own for every pair; 1 000 003 is a prime beyond any number of epochs."""
    return seed * 1_000_003 + epoch
