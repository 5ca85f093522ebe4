"""Doing runs: each once, whatever table wants it, and again only if its settings or its data have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from examples.mmfi.prepared import describe
from examples.mmfi.reproduce.published import EPOCHS
from examples.mmfi.settings import Resources, Settings
from examples.mmfi.training import train
from examples.report import Results
from examples.sweep import sweep

_LOADER_WORKERS = 4  # keep a GPU busy


def scaled(settings: Settings, epochs: int) -> Settings:
    """The same settings for another number of epochs: the learning rate drops at the same part of the run.

    >>> scaled(Settings("", "data"), 25).drop_every
    15
    """
    return replace(settings, epochs=epochs, drop_every=max(1, round(settings.drop_every * epochs / EPOCHS)))


def finished(runs: Sequence[Settings], out: Path, workers: int | None = None) -> Results:
    """Do what is not done yet and return the results of the runs that are finished, in order.

    Args:
        runs: On one packed copy.
        out: Results are kept in `out/runs`, checkpoints of unfinished runs in `out/checkpoints`.
        workers: As in `sweep`; None: 0 with a GPU, else one per core.
    """
    gpu = torch.cuda.is_available()
    workers = 0 if workers is None and gpu else workers
    # Processes of a pool can have no children of their own.
    loaders = _LOADER_WORKERS if gpu and workers == 0 else 0
    resources = Resources(workers=loaders, checkpoints=str(out / "checkpoints"))
    return sweep(partial(train, resources=resources), runs, out / "runs", describe, workers)
