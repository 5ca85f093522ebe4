"""Loaders that are read for a measurement in a framework: `Prepared`, and `Measured` for that of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from awc_balance.batches import iterate


class Prepared:
    """The batches of a loader as the framework gives them to a model: on the device, in its precision.

    Balancers put back the random generators of a loader, which they find here as they would find them there. What
    Accelerate puts around a loader to count its passes is left out.

    Args:
        loader: That of the user, of the framework, or of Accelerate.
        prepare: From a batch of the loader to one for the model.
    """

    def __init__(self, loader: Iterable[Any], prepare: Callable[[Any], Any] = lambda batch: batch) -> None:
        """See the class."""
        self.source: Any = getattr(loader, "base_dataloader", loader)
        self.prepare = prepare
        for name in ("generator", "sampler", "batch_sampler"):
            setattr(self, name, getattr(self.source, name, None))

    def __iter__(self) -> Iterator[Any]:
        """The batches."""
        for batch in iterate(self.source):
            yield self.prepare(batch)


class Measured(Prepared):
    """The batches of a framework's training loader, while the framework reads it, with no trace left in the loader.

    The count of passes of Accelerate's sampler is put back.

    Args:
        loader: That of the framework, or of Accelerate.
        prepare: See `Prepared`.
        batches: How many to read at most; None is all.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        prepare: Callable[[Any], Any] = lambda batch: batch,
        batches: int | None = None,
    ) -> None:
        """See the class."""
        super().__init__(loader, prepare)
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        """The batches.

        Raises:
            TypeError: If it is a collection of loaders.
            ValueError: If its workers outlive a pass.
        """
        self._refuse()
        epochs = [(sampler, sampler.epoch) for sampler in _samplers(self.source) if hasattr(sampler, "epoch")]
        try:
            yield from islice(super().__iter__(), self._batches)
        finally:
            for sampler, epoch in epochs:
                sampler.epoch = epoch

    def _refuse(self) -> None:
        if isinstance(self.source, Mapping | list | tuple):
            raise TypeError(
                "The training loader should be one loader to be measured on. "
                f"Got a {type(self.source).__name__}. Pass loader=, whose batches are those of your training step."
            )
        if getattr(self.source, "persistent_workers", False):
            raise ValueError(
                "The training loader should not keep its workers, since a second pass would end the one that is "
                "under way. Got persistent_workers=True. Pass loader=, another DataLoader of the same data."
            )


def _samplers(holder: object) -> Iterator[Any]:
    """The samplers of a loader, and what they are made of."""
    for name in ("sampler", "batch_sampler"):
        sampler = getattr(holder, name, None)
        if sampler is not None and sampler is not holder:
            yield sampler
            yield from _samplers(sampler)
