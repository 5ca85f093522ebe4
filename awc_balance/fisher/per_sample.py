"""Sums of squared per-sample gradients, by the fastest way that is proven for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from torch import nn

from awc_balance.batches import split_samples
from awc_balance.fisher.gradients import Key, Measured
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.proof import LayerRules
from awc_balance.fisher.vectorised import Vectorised, Way

WAYS = get_args(Way)
"""From fast to slow."""


class PerSample:
    """By the rules of layers where they are proven, vectorised for the rest, one at a time where that fails.

    Args:
        objective: The loss.
        parameters: The parameters to differentiate by.
        chunk_size: Samples to vectorise over at once; None chooses by memory.
    """

    def __init__(self, objective: Objective, parameters: Mapping[Key, nn.Parameter], chunk_size: int | None) -> None:
        """See the class."""
        self._objective = objective
        self._parameters = dict(parameters)
        self._chunk_size = chunk_size
        self._rules = LayerRules(objective, parameters)
        self._slower: dict[frozenset[Key], Vectorised] = {}
        self.coverage: dict[Key, Way] = {}
        """The slowest way taken so far for each parameter."""

    def measure(self, batch: Any) -> Measured:  # noqa: ANN401
        """The sums of squared gradients over the samples of a batch."""
        count, samples, rebuild = split_samples(batch)
        found = self._rules.measure(samples, rebuild)
        squares = {} if found is None else found.squares
        self._note(frozenset(squares), "rule")
        rest = frozenset(self._parameters) - set(squares)
        if found is not None and not rest:
            return Measured(squares, count, found.losses.mean(), found.reached)
        slower = self._slower_for(rest)
        measured = slower.measure(batch)
        self._note(rest, slower.way)
        values = {key: squares[key] if key in squares else measured.values[key] for key in self._parameters}
        return measured._replace(values=values, reached=measured.reached | (found.reached if found else set()))

    def _slower_for(self, keys: frozenset[Key]) -> Vectorised:
        if keys not in self._slower:
            parameters = {key: parameter for key, parameter in self._parameters.items() if key in keys}
            self._slower[keys] = Vectorised(self._objective, parameters, self._chunk_size)
        return self._slower[keys]

    def _note(self, keys: frozenset[Key], way: Way) -> None:
        for key in keys:
            if self.coverage.get(key) == way:
                continue
            self.coverage[key] = max(self.coverage.get(key, way), way, key=WAYS.index)
