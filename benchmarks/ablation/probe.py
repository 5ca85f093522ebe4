"""What is looked at during plain training that could tell who should be held back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from awc_balance import ShapleyContribution
from awc_balance.calibration import Calibration
from benchmarks.compare.methods import Setup
from examples.samples import batches

SAMPLES = 1000
"""Of the training part, at most."""
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Of the epochs, after which it is looked."""


class Probe:
    """Contributions and calibration slopes on training and on held-out samples, at some epochs.

    Args:
        setup: The model that is trained, and its data.
    """

    def __init__(self, setup: Setup) -> None:
        """See the class."""
        self._setup = setup
        self._wanted = {setup.share(share) for share in SHARES}
        self._epoch = 0
        self.found: list[dict[str, Any]] = []

    def tick(self) -> None:
        """After every epoch."""
        self._epoch += 1
        if self._epoch in self._wanted:
            self.found.append({"epoch": self._epoch, **self.look()})

    def look(self) -> dict[str, Any]:
        """At the model as it is, without a trace in it or in the random state."""
        train = self._setup.task.splits.train.only(self._setup.parts[1])
        some = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        with torch.random.fork_rng(devices=[]):  # a loader draws a number wherever it is read
            return {"train": self._on(batches(train.take(some), 512)), "held_out": self._on(self._setup.held_out)}

    def _on(self, loader: Iterable[Any]) -> dict[str, Any]:
        model, encoders, _ = self._setup.parts
        slopes = Calibration(model, encoders).evaluate(loader, costs=False)
        return {
            "contributions": dict(ShapleyContribution(model, encoders, self._setup.task.profit).evaluate(loader)),
            "slopes": dict(slopes),
            "whole": slopes.whole,
            "shares": dict(slopes.shares),
        }
