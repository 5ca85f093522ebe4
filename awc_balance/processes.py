"""Processes that train one model together: what they measure is put together here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice
from math import prod
from typing import Literal, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from awc_balance.sharded import is_sharded

T = TypeVar("T")
Entry: TypeAlias = tuple[Tensor, ...]
Merge: TypeAlias = Callable[[Entry, Entry], Entry]

ProcessGroup: TypeAlias = Literal["auto"] | "torch.distributed.ProcessGroup" | None
"""Which processes measure together: "auto", those of the model; None, each for itself; or a group of torch's."""

BUCKET = 2**25
"""Elements sent at once: 128 MiB of float32."""


class Processes:
    """The processes that measure one model together, each on batches of its own; often there is just one.

    As in torchmetrics, processes work together wherever `torch.distributed` is initialised, and all of them have to
    call what exchanges something, in the same order. Where one fails, all raise, and none goes on with numbers of
    its own; but one that never arrives, because it died or skipped the call, keeps the others waiting until the
    timeout of the group.

    Args:
        model: As it is trained. Of a model in `DistributedDataParallel` it is the processes of the wrapper.
        group: "auto", all processes, or those of the wrapper; None, this process alone; or those of a group.

    Raises:
        TypeError: If the group is none of these, such as that of other processes than this.
    """

    def __init__(self, model: nn.Module | None = None, group: ProcessGroup = "auto") -> None:
        """See the class."""
        if not (group is None or group == "auto" or (dist.is_available() and isinstance(group, dist.ProcessGroup))):
            raise TypeError(
                "`process_group` should be 'auto', None or a group that this process is in. "
                f"Got {group!r}. Pass None to measure in each process for itself."
            )
        if group == "auto" and isinstance(model, DistributedDataParallel) and model.process_group != dist.group.WORLD:
            group = model.process_group
        self.group = group

    @property
    def count(self) -> int:
        """How many there are."""
        if self.group is None or not (dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self._group)

    @property
    def rank(self) -> int:
        """The number of this one among them."""
        return dist.get_rank(self._group) if self.count > 1 else 0

    def gathered(self, value: T) -> list[T]:
        """A picklable value of every process, by rank."""
        if self.count == 1:
            return [value]
        values = [value] * self.count
        dist.all_gather_object(values, value, group=self._group)
        return values

    def mean(self, numbers: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """The mean of every number, with the same names in every process; the numbers themselves in a single one.

        Args:
            numbers: By name.
            device: Where to put them for the exchange.
        """
        if self.count == 1:
            return dict(numbers)
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=device)
        self.sum_([values])
        return dict(zip(numbers, (values / self.count).tolist(), strict=True))

    def averaged(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """The means of tensors by two names; what is sharded stays."""
        if self.count == 1:
            return {outer: dict(named) for outer, named in tensors.items()}
        means = {
            outer: {name: value if is_sharded(value) else value / self.count for name, value in named.items()}
            for outer, named in tensors.items()
        }
        self.sum_(value for named in means.values() for value in named.values() if not is_sharded(value))
        return means

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of the same shapes in every process by their sums, in few exchanges."""
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            dist.all_reduce(flat, group=self._group)
            _fill(bucket, flat)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of the same shapes in every process by those of process 0, in few exchanges."""
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            dist.broadcast(flat, group=self._group, group_src=0)
            _fill(bucket, flat)

    def attempt(self, work: Callable[[], T]) -> T:
        """What `work()` gives; where it fails in one process, an error in all of them.

        Raises:
            RuntimeError: If it failed in another process.
        """
        if self.count == 1:
            return work()
        error: Exception | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        self.refuse_failures(error, self.gathered(describe(error)))
        return result

    def refuse_failures(self, error: Exception | None, descriptions: Sequence[str | None]) -> None:
        """Raise this process's own error, if there is one, or one that names those of the others.

        Args:
            error: What went wrong in this process, if anything did.
            descriptions: The same of every process, as `describe` has it.

        Raises:
            RuntimeError: If something went wrong in another process only.
        """
        if error is not None:
            raise error
        failed = [f"process {rank}: {text}" for rank, text in enumerate(descriptions) if text is not None]
        if failed:
            raise RuntimeError(
                "A measurement should succeed in every process; nothing is kept of one that fails in some. "
                f"Mend what failed in {'; '.join(failed)}"
            )

    def in_step(self, batches: Iterable[T]) -> Iterator[T]:
        """Batches, once it is known that every process has a next one; a sharded model runs in all of them or none.

        Raises:
            RuntimeError: If reading a batch failed in another process.
            ValueError: If some processes have fewer batches than others.
        """
        following = iter(batches)
        while True:
            found: list[T] = []
            error: Exception | None = None
            try:
                found = list(islice(following, 1))
            except Exception as caught:
                error = caught
            reports = self.gathered((describe(error), len(found)))
            self.refuse_failures(error, [failure for failure, _ in reports])
            counts = [count for _, count in reports]
            if not any(counts):
                return
            if not all(counts):
                raise ValueError(
                    "For a sharded model processes should have equally many batches. Got fewer in process "
                    f"{counts.index(0)}. Pass a DistributedSampler to the DataLoader, which deals them out evenly."
                )
            yield found[0]

    def merged(self, entries: Mapping[int, Entry], merge: Merge) -> dict[int, Entry]:
        """Statistics of all processes, entry by entry, put together in the order of their ranks.

        Args:
            entries: Tuples of tensors of one dtype, of the same shapes for all numbers and processes. Every process
                has one at least.
            merge: From two entries to one.

        Raises:
            ValueError: If shapes differ between processes.
        """
        if self.count == 1:
            return dict(entries)
        template = next(iter(entries.values()))
        held = self.gathered((list(entries), [tuple(x.shape) for x in template]))
        shapes = [shape for _, shape in held]
        if any(shape != shapes[0] for shape in shapes):
            found = sorted({str(max(shape, key=prod)) for shape in shapes})
            raise ValueError(
                f"What is measured should have the same shape in every process. Got {' and '.join(found)}. "
                "Read batches of one kind everywhere."
            )
        numbers = sorted({number for own, _ in held for number in own})
        return {
            number: self._merged(
                entries.get(number, template), [rank for rank, (own, _) in enumerate(held) if number in own], merge
            )
            for number in numbers
        }

    def _merged(self, entry: Entry, holders: Sequence[int], merge: Merge) -> Entry:
        """One entry, of those processes that hold it."""
        flat = _flat(entry)
        flats = [torch.empty_like(flat) for _ in range(self.count)]
        dist.all_gather(flats, flat, group=self._group)
        sizes = [x.numel() for x in entry]
        found: list[Entry] = [
            tuple(piece.view_as(x) for piece, x in zip(flats[rank].split(sizes), entry, strict=True))
            for rank in holders
        ]
        return reduce(merge, found)

    @property
    def _group(self) -> dist.ProcessGroup | None:
        """As torch's functions take it, for whom None is all processes."""
        return None if isinstance(self.group, str) else self.group


def describe(error: Exception | None) -> str | None:
    """An error in a line that other processes can read."""
    return None if error is None else f"{type(error).__name__}: {error}"


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one device and dtype that are sent at once."""
    found: list[list[Tensor]] = []
    latest: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], int]] = {}
    for tensor in tensors:
        kind = (tensor.device, tensor.dtype)
        bucket, size = latest.get(kind, ([], BUCKET))
        if size + tensor.numel() > BUCKET:
            bucket, size = [], 0
            found.append(bucket)
        bucket.append(tensor)
        latest[kind] = bucket, size + tensor.numel()
    return found


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _fill(tensors: Sequence[Tensor], flat: Tensor) -> None:
    """Put back what `_flat` put side by side."""
    for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.data.copy_(piece.view_as(tensor))  # a graph may have saved it, which is not to notice
