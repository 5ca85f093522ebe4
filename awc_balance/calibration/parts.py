"""A prediction as a sum of parts that belong to modalities, or to coalitions of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from awc_balance.contributions.designs import AllCoalitions
from awc_balance.contributions.runs import BatchRun, Runner
from awc_balance.contributions.shapley import shapley_weights

MOST_SHARED = 6
"""For so many modalities at most, 2^6 coalitions, what coalitions add together is told apart."""


class Parts(NamedTuple):
    """What the model predicts from nothing, and parts that make that the prediction."""

    base: Tensor
    """`[batch, ...]`, float64."""
    parts: Tensor
    """`[K, batch, ...]`, float64."""

    @property
    def whole(self) -> Tensor:
        """The prediction from all modalities."""
        return self.base + self.parts.sum(0)


class Split(NamedTuple):
    """How predictions of coalitions become parts, and parts belong to modalities."""

    members: Tensor
    """Of all coalitions, in the order of a table of profits, `[2^M, M]`."""
    weights: Tensor
    """From the predictions of all coalitions to the parts, `[K, 2^M]`."""
    owners: Tensor
    """The share of a part that belongs to each modality, `[K, M]`; over the modalities they sum to 1."""


def by_modality(modalities: int) -> Split:
    """One part per modality: the Shapley value of the function from a coalition to its prediction.

    For two modalities q_a = (P_ab - P_b + P_a - P_empty) / 2; in general
    q_m = sum over coalitions S without m of |S|! (M-|S|-1)! / M! * (P(S + m) - P(S)), so that
    P(grand) = P(empty) + sum_m q_m. AGM (arXiv 2308.07686, Equation 5) splits the output so, without P(empty).
    """
    members = AllCoalitions(modalities).members
    return Split(members, shapley_weights(modalities), torch.eye(modalities, dtype=torch.float64))


def by_coalition(modalities: int) -> Split:
    """One part per coalition T: what its members add together that no fewer of them do.

    d_T = sum over S in T of (-1)^(|T|-|S|) P(S), the dividends of Harsanyi (1963), "A simplified bargaining model for
    the n-person cooperative game", International Economic Review 4. Shared alike among the members they are the
    Shapley values, and those of T without m are all that is left of a prediction without m.
    """
    members = AllCoalitions(modalities).members
    sizes = members.sum(1)
    inside = ~(members.unsqueeze(0) & ~members.unsqueeze(1)).any(2)  # [T, S]
    signs = 1.0 - 2.0 * ((sizes.unsqueeze(1) - sizes.unsqueeze(0)) % 2).double()
    return Split(members, (inside * signs)[1:], (members.double() / sizes.clamp(min=1).unsqueeze(1))[1:])


def split_prediction(run: BatchRun, runner: Runner, split: Split, number: int) -> Parts:
    """The parts of the prediction for a batch.

    Args:
        run: Of a batch.
        runner: How coalitions are run.
        split: Into which parts.
        number: Of the batch.
    """
    from_nothing = torch.eye(1, len(split.members), dtype=torch.float64)  # the empty coalition is the first
    weights = torch.cat([from_nothing, split.weights])

    def weighted() -> Iterator[Tensor]:
        done = 0
        for some in runner.run(run, split.members, number):
            of_these = weights[:, done : done + len(some)].to(some.device)
            done += len(some)
            yield torch.tensordot(of_these, some.detach().double(), 1)

    found = reduce(torch.add, weighted())
    return Parts(found[0], found[1:])
