"""Data that fits in memory: samples of several modalities, and shuffled batches of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler


@dataclass(frozen=True)
class Samples:
    """Inputs by modality, tensors or containers of tensors, and targets; samples are along the first axis of each."""

    inputs: dict[str, Any]
    target: Tensor

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.target)

    def take(self, indices: Tensor) -> Samples:
        """Some of the samples."""
        return Samples(tree_map(lambda tensor: tensor[indices], self.inputs), self.target[indices])

    def only(self, modalities: Iterable[str]) -> Samples:
        """The same samples with some of the modalities.

        >>> samples = Samples({"a": torch.ones(2, 1), "b": torch.ones(2, 3)}, torch.zeros(2))
        >>> list(samples.only(["b"]).inputs)
        ['b']
        """
        return replace(self, inputs={modality: self.inputs[modality] for modality in modalities})


@dataclass(frozen=True)
class Splits:
    """Samples to train on, held out from training to choose by, and to test on."""

    train: Samples
    held_out: Samples
    test: Samples

    def only(self, modalities: Iterable[str]) -> Splits:
        """The same with some of the modalities."""
        chosen = tuple(modalities)
        return Splits(self.train.only(chosen), self.held_out.only(chosen), self.test.only(chosen))


def batches(samples: Samples, size: int, seed: int | None = None) -> DataLoader[Any]:
    """Batches `(inputs, target)`, shuffled anew in every pass if a seed is given."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    dataset = _Batched(samples)
    order = SequentialSampler(samples) if seed is None else RandomSampler(samples, generator=generator)
    return DataLoader(dataset, sampler=BatchSampler(order, size, drop_last=False), batch_size=None)


class _Batched(Dataset[Any]):
    """Samples by lists of indices, a whole batch at once."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, indices: list[int]) -> tuple[dict[str, Any], Tensor]:
        taken = self.samples.take(torch.tensor(indices))
        return taken.inputs, taken.target

    def __len__(self) -> int:
        return len(self.samples)
