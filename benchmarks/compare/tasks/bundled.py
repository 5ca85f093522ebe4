"""Real data sets that come with scikit-learn, as multi-modal tasks: nothing was developed on them.

Diabetes (442 patients; Efron et al., "Least angle regression", 2004): the body (age, sex, body mass, blood pressure)
and six blood serum measurements; the progress of the disease. Breast cancer (569 tumours; Wolberg, Street and
Mangasarian, 1995, CC BY 4.0): means, standard errors and worst values of ten measurements of cell nuclei; malignant or
benign. Digits (1797 images of 8 x 8; Alpaydin and Kaynak, 1998, CC BY 4.0): the four quarters of the image; the digit.
"""

from __future__ import annotations

from functools import partial

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks.compare.task import Task
from benchmarks.compare.tasks.mfeat import FEATURE, Model, split, squared_error, wrong


def diabetes(_: str | None = None) -> Task:
    """The standardised progress of the disease."""
    bunch = load_diabetes()
    columns = torch.from_numpy(bunch.data).float()
    tables = {"body": columns[:, :4], "serum": columns[:, 4:]}
    target = torch.from_numpy(bunch.target).float().unsqueeze(1)
    splits = split(tables, target, torch.zeros(len(target)), standardise=True)
    build = partial(Model, _widths(tables), 1)
    return Task(
        "diabetes", "MSE x 1000", splits, build, mse_loss, squared_error, epochs=60, batch_size=32, feature=FEATURE
    )


def breast_cancer(_: str | None = None) -> Task:
    """Malignant or benign."""
    bunch = load_breast_cancer()
    columns = torch.from_numpy(bunch.data).float()
    tables = {name: columns[:, i : i + 10] for name, i in (("mean", 0), ("error", 10), ("worst", 20))}
    return _classes("breast cancer", tables, torch.from_numpy(bunch.target).long())


def digits(_: str | None = None) -> Task:
    """The digit from the quarters of its image."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()
    rows = {"upper": images[:, :4], "lower": images[:, 4:]}
    tables = {f"{name} left": part[:, :, :4].flatten(1) for name, part in rows.items()}
    tables |= {f"{name} right": part[:, :, 4:].flatten(1) for name, part in rows.items()}
    return _classes("digits", tables, torch.from_numpy(bunch.target).long())


def _classes(title: str, tables: dict[str, Tensor], labels: Tensor) -> Task:
    splits = split(tables, labels, labels, standardise=False)
    build = partial(Model, _widths(tables), int(labels.max()) + 1)
    return Task(
        title, "errors, %", splits, build, cross_entropy, wrong, "negative_cross_entropy",
        epochs=60, batch_size=64, feature=FEATURE,
    )  # fmt: skip


def _widths(tables: dict[str, Tensor]) -> dict[str, int]:
    return {name: table.shape[1] for name, table in tables.items()}
