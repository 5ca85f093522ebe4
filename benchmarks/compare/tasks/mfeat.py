"""UCI Multiple Features: 2 000 handwritten digits in several feature sets (R. Duin, CC BY 4.0).

Regression: the 47 Zernike moments from four other sets. Classification: the ten digits from the same four.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks.compare.task import Task
from examples import data_folder
from examples.samples import Samples, Splits

MODALITIES = ("fac", "kar", "fou", "mor")
TARGET = "zer"
TRAIN, HELD_OUT = 0.35, 0.15
"""Shares of the samples; the rest is the test part."""
FEATURE = 64
"""Width of the encoders."""


def regression(data: str | None = None) -> Task:
    """The standardised Zernike moments."""
    tables, labels = _read(data)
    splits = split({m: tables[m] for m in MODALITIES}, tables[TARGET], labels, standardise=True)
    build = partial(Model, {m: tables[m].shape[1] for m in MODALITIES}, tables[TARGET].shape[1])
    return Task(
        "mfeat, regression", "MSE x 1000", splits, build, mse_loss, squared_error,
        epochs=60, batch_size=64, feature=FEATURE,
    )  # fmt: skip


def classification(data: str | None = None) -> Task:
    """The ten digits."""
    tables, labels = _read(data)
    splits = split({m: tables[m] for m in MODALITIES}, labels, labels, standardise=False)
    build = partial(Model, {m: tables[m].shape[1] for m in MODALITIES}, 10)
    return Task(
        "mfeat, classification", "errors, %", splits, build, cross_entropy, wrong, "negative_cross_entropy",
        epochs=60, batch_size=64, feature=FEATURE,
    )  # fmt: skip


class Model(nn.Module):
    """An encoder of two layers for every table, concatenation, and a head of two layers."""

    def __init__(
        self, widths: dict[str, int], outputs: int, modalities: tuple[str, ...], feature: int = FEATURE
    ) -> None:
        """Of some of the modalities."""
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                modality: nn.Sequential(
                    nn.Linear(widths[modality], feature), nn.ReLU(), nn.Linear(feature, feature), nn.ReLU()
                )
                for modality in modalities
            }
        )
        self.head = nn.Sequential(nn.Linear(feature * len(modalities), 128), nn.ReLU(), nn.Linear(128, outputs))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Predict `[batch, outputs]`."""
        features = [encoder(inputs[modality]) for modality, encoder in self.encoders.items()]
        prediction: Tensor = self.head(torch.cat(features, dim=1))
        return prediction


def _read(data: str | None) -> tuple[dict[str, Tensor], Tensor]:
    """The tables by name, and the class of every row."""
    folder = data_folder.find("mfeat", f"mfeat-{TARGET}.csv", data)
    tables = {name: _table(folder / f"mfeat-{name}.csv") for name in (*MODALITIES, TARGET)}
    once = _without_copies(torch.cat([*tables.values()], dim=1))
    return {name: table[once, :-1].float() for name, table in tables.items()}, tables[TARGET][once, -1].long()


def _table(file: Path) -> Tensor:
    return torch.from_numpy(np.loadtxt(file, delimiter=",", skiprows=1))


def _without_copies(rows: Tensor) -> Tensor:
    """The rows without those that another row before them equals; six do, and could be trained on and tested."""
    first = {tuple(row): number for number, row in reversed(list(enumerate(rows.tolist())))}
    return torch.tensor(sorted(first.values()))


def split(tables: dict[str, Tensor], target: Tensor, labels: Tensor, *, standardise: bool) -> Splits:
    """Samples of every class, drawn once for all seeds: what is tested is never trained on or chosen by.

    Args:
        tables: Inputs by modality, one row a sample; their columns are standardised.
        target: One row a sample.
        labels: Of which every part gets its share.
        standardise: Whether to standardise the target, too.
    """
    generator = torch.Generator().manual_seed(0)
    train, held_out, test = [], [], []
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        first, second = round(TRAIN * len(rows)), round((TRAIN + HELD_OUT) * len(rows))
        train.append(rows[:first])
        held_out.append(rows[first:second])
        test.append(rows[second:])
    chosen = torch.cat(train)
    inputs = {modality: standardised(table, chosen) for modality, table in tables.items()}
    samples = Samples(inputs, standardised(target, chosen) if standardise else target)
    return Splits(samples.take(chosen), samples.take(torch.cat(held_out)), samples.take(torch.cat(test)))


def standardised(table: Tensor, rows: Tensor) -> Tensor:
    """Columns with mean 0 and standard deviation 1 over some rows."""
    return (table - table[rows].mean(0)) / table[rows].std(0).clamp(min=1e-6)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Of each sample, times 1000."""
    return 1000 * (prediction - target).square().mean(1)


def wrong(prediction: Tensor, target: Tensor) -> Tensor:
    """Errors in per cent."""
    return 100.0 * (prediction.argmax(1) != target)
