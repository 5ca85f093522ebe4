"""Where the contributions of an epoch come from: `ContributionSource`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from awc_balance.batches import Progress, Step, device_of
from awc_balance.checks import check_callable, check_numbers
from awc_balance.contributions.contribution import ShapleyContribution
from awc_balance.contributions.profits import as_profit
from awc_balance.encoders import Encoders
from awc_balance.processes import Processes

Source: TypeAlias = Callable[[Iterable[Any]], Mapping[str, float]]
Given: TypeAlias = str | ShapleyContribution | Source | Mapping[str, float]


class ContributionSource:
    """Contributions by measuring, by the user's own function, or as given; the same in all processes.

    Args:
        given: Name of a profit, a `ShapleyContribution`, a function from the loader to numbers, or numbers.
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        step: How to read a batch.
        processes: Which measure together.
        wanted: Whether anything depends on contributions; if not, nothing is measured.

    Raises:
        TypeError: If `given` is none of these.
        ValueError: If there is no profit of that name.
    """

    def __init__(
        self,
        given: Given,
        model: nn.Module,
        encoders: Encoders,
        step: Step | None,
        processes: Processes,
        *,
        wanted: bool,
    ) -> None:
        """See the class."""
        self._model, self._modalities, self._processes = model, list(encoders), processes
        self._source: ShapleyContribution | Source | None
        if isinstance(given, Mapping):
            self._source = partial(_as_given, given)
        elif isinstance(given, str):
            profit = as_profit(given, "contributions")  # refuses unknown names, also where none is needed
            measured = partial(ShapleyContribution, model, encoders, profit, step=step, process_group=processes.group)
            self._source = measured() if wanted else None
        else:
            self._source = check_callable("contributions", given, "Name a profit, or pass a function or a mapping.")
        self._wanted = wanted

    def of_epoch(
        self, loader: Iterable[Any], known: Mapping[str, float] | None, progress: Progress | None
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """The contributions, and their intervals if they were measured; empty where nothing depends on them.

        Args:
            loader: Training batches.
            known: The contributions of this epoch, if the user knows them.
            progress: A wrapper that shows the progress of a pass.
        """
        source, processes = self._source, self._processes
        if known is None:
            if not self._wanted or source is None:
                return {}, {}
            if isinstance(source, ShapleyContribution):
                measured = source(loader, progress=progress)
                intervals = {modality: list(ends) for modality, ends in (measured.intervals or {}).items()}
                return check_numbers("contributions", measured, self._modalities), intervals
            known = processes.attempt(lambda: source(loader))
        checked = processes.attempt(lambda: check_numbers("contributions", known, self._modalities))
        return processes.mean(checked, device_of(self._model)), {}


def _as_given(contributions: Mapping[str, float], loader: Iterable[Any]) -> Mapping[str, float]:  # noqa: ARG001
    """The user's own numbers."""
    return contributions
