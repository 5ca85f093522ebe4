"""Shapley values from a sample of the coalitions, by a regression on pairs: for more modalities than 16.

shapiq has such estimators, too. It is no back-end here, because they ask a game for one number per coalition while they
draw; here coalitions are fixed before the first batch, their profits come from statistics that are added up over
batches (and processes), and each has output coordinates. It also brings a dozen packages, and no standard errors.
"""

from __future__ import annotations

from itertools import combinations, islice
from math import comb

import numpy as np
import torch
from torch import Tensor

from awc_balance.checks import check_count
from awc_balance.contributions.designs import Design


class SampledCoalitions(Design):
    """Coalitions in pairs with their complements, and a least-squares fit of an additive game to their profits.

    The Shapley values minimise E (v(S) - v({}) - sum over m in S of phi_m)^2 under sum phi = v(grand) - v({}), where
    S is drawn with probability proportional to 1 / (|S| (M - |S|)) among sizes, and evenly within a size (Charnes et
    al., 1988; Lundberg and Lee, NeurIPS 2017). Pairs cancel the odd part of the error (Covert and Lee, AISTATS 2021,
    arXiv 2012.01536). Sizes that the budget covers are taken whole, and only the others are drawn. The values
    sum to v(grand) - v({}) exactly.

    Args:
        modalities: M, at least 2.
        budget: How many coalitions are run at most, at least 4 M + 2. What is drawn again counts again, but is run
            once.
        seed: Of the draw, which leaves the global random state alone.

    Raises:
        ValueError: If the budget is too small.

    Example:
        >>> design = SampledCoalitions(20, budget=500)
        >>> worth = torch.arange(20.0, dtype=torch.float64)
        >>> torch.allclose(design.values(design.members.double() @ worth), worth)  # an additive game is met exactly
        True
    """

    def __init__(self, modalities: int, budget: int, seed: int = 0) -> None:
        """See the class."""
        check_count("modalities", modalities, 2)
        check_count("budget", budget, least_budget(modalities))
        pairs, shares = (budget - 2) // 2, _probabilities(modalities)
        whole = _whole_sizes(modalities, pairs)
        parts = [_of_size(modalities, size) for size in whole]
        weights = [np.full(len(part), share / len(part)) for part, share in zip(parts, shares, strict=False)]
        drawn, times = _drawn(modalities, len(whole), pairs - sum(map(len, parts)), seed)
        half = torch.from_numpy(np.concatenate([*parts, drawn]))
        none = torch.zeros(1, modalities, dtype=torch.bool)
        self.members = torch.cat([none, half, ~half.flip(0), ~none])
        self.codes = [sum(1 << m for m, present in enumerate(row) if present) for row in self.members.tolist()]
        self._times = torch.from_numpy(times)
        self._rest = float(shares[len(whole) :].sum())
        self._fit(half, torch.from_numpy(np.concatenate([*weights, self._rest * times / max(times.sum(), 1.0)])))

    def values(self, profits: Tensor) -> Tensor:
        """The least-squares fit."""
        values: Tensor = torch.tensordot(self._matrix.to(profits), profits, 1)
        return values

    def errors(self, profits: Tensor) -> Tensor:
        """From the residuals of the pairs drawn, as independent draws; each as if its own pair had been left out."""
        drawn = len(self._times)
        profits = profits.to(self._matrix)
        if not drawn:
            return profits.new_zeros(self.members.shape[1])
        residuals = profits - profits[0] - self.members.to(profits) @ self.values(profits)
        half = (len(residuals) - 2) // 2
        first, second = residuals[1 : half + 1], residuals[half + 1 : -1].flip(0)
        influence = (self._influence[0] * first + self._influence[1] * second)[:, -drawn:]
        influence = influence * self._rest / (1 - self._leverage[-drawn:])
        draws = self._times.sum()
        centre = influence @ self._times / draws
        spread = (influence - centre.unsqueeze(1)).square() @ self._times
        errors: Tensor = (spread / (draws * (draws - 1))).sqrt()
        return errors

    def _fit(self, half: Tensor, weights: Tensor) -> None:
        """The matrix that takes profits to values, and what a pair's residuals do to them.

        Args:
            half: One coalition of every pair, `[pairs, M]`.
            weights: Of the pairs.
        """
        first, second = half.double(), (~half).double()
        moment = ((first * weights.unsqueeze(1)).T @ first + (second * weights.unsqueeze(1)).T @ second) / 2
        inverse = torch.linalg.inv(moment)
        total = inverse.sum(1) / inverse.sum()
        g = inverse - torch.outer(total, inverse.sum(0))  # takes what would change the sum of the values out
        self._influence = g @ first.T / 2, g @ second.T / 2
        slopes = torch.cat([self._influence[0] * weights, (self._influence[1] * weights).flip(1)], 1)
        self._matrix = torch.cat([(-slopes.sum(1) - total).unsqueeze(1), slopes, total.unsqueeze(1)], 1)
        of_pair = weights / 2 * (((first @ g) * first).sum(1) + ((second @ g) * second).sum(1))
        self._leverage = of_pair.clone()
        self._leverage[len(half) - len(self._times) :] /= self._times
        self._leverage.clamp_(max=0.9)


def least_budget(modalities: int) -> int:
    """All coalitions of one modality and of all but one, as many pairs again, the empty and the grand coalition."""
    return 4 * modalities + 2


def _sizes(modalities: int) -> np.ndarray:
    return np.arange(1, modalities // 2 + 1)


def _pairs_of(modalities: int, size: int) -> int:
    return comb(modalities, size) // (2 if 2 * size == modalities else 1)


def _probabilities(modalities: int) -> np.ndarray:
    """Of a pair to have a coalition of each size up to a half."""
    sizes = _sizes(modalities)
    weights = np.where(2 * sizes == modalities, 1.0, 2.0) / (sizes * (modalities - sizes))
    shares: np.ndarray = weights / weights.sum()
    return shares


def _whole_sizes(modalities: int, pairs: int) -> list[int]:
    """The sizes that are taken whole: where drawing would take as many of its pairs as there are."""
    left, rest = pairs, 1.0
    whole = []
    for size, share in zip(_sizes(modalities).tolist(), _probabilities(modalities).tolist(), strict=True):
        count = _pairs_of(modalities, size)
        if size > 1 and left * share / rest < count:
            break
        whole.append(size)
        left, rest = left - count, rest - share
    return whole


def _of_size(modalities: int, size: int) -> np.ndarray:
    """One coalition of every pair of a size, boolean `[pairs, M]`."""
    chosen = np.array(list(islice(combinations(range(modalities), size), _pairs_of(modalities, size))))
    rows = np.zeros((len(chosen), modalities), dtype=bool)
    np.put_along_axis(rows, chosen, values=True, axis=1)
    return rows


def _drawn(modalities: int, above: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs of sizes above one, and how often each was drawn until there were enough of them."""
    sizes = _sizes(modalities)[above:]
    if not len(sizes):
        return np.zeros((0, modalities), dtype=bool), np.zeros(0)
    generator = np.random.default_rng(seed)
    weights = _probabilities(modalities)[above:]
    rows = np.zeros((0, modalities), dtype=bool)
    first = np.zeros(0, dtype=int)
    while len(first) < pairs:
        rows = np.concatenate([rows, _draw(generator, sizes, weights / weights.sum(), pairs, modalities)])
        _, first = np.unique(rows, axis=0, return_index=True)
    different, times = np.unique(rows[: np.sort(first)[pairs - 1] + 1], axis=0, return_counts=True)
    return different, times.astype(float)


def _draw(
    generator: np.random.Generator, sizes: np.ndarray, shares: np.ndarray, pairs: int, modalities: int
) -> np.ndarray:
    """One coalition of each of so many pairs, boolean `[pairs, M]`."""
    size = generator.choice(sizes, (pairs, 1), p=shares)
    order = generator.random((pairs, modalities)).argsort(1).argsort(1)
    rows: np.ndarray = order < size
    # Of a pair of two halves, take the one without the last modality, so that both are known as one pair.
    rows ^= (2 * size == modalities) & rows[:, -1:]
    return rows
