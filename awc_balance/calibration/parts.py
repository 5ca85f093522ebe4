"""A prediction as a sum of one part per modality."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from awc_balance.contributions.runs import BatchRun, Runner
from awc_balance.contributions.shapley import shapley_weights


class Parts(NamedTuple):
    """What the model predicts from nothing, and what each modality adds to that; together the prediction."""

    base: Tensor
    """`[batch, ...]`, float64."""
    parts: Tensor
    """`[M, batch, ...]`, float64."""

    @property
    def whole(self) -> Tensor:
        """The prediction from all modalities."""
        return self.base + self.parts.sum(0)


def split_prediction(run: BatchRun, runner: Runner, members: Tensor, number: int) -> Parts:
    """The part of every modality: the Shapley value of the function from a coalition to its prediction.

    For two modalities q_a = (P_ab - P_b + P_a - P_empty) / 2; in general
    q_m = sum over coalitions S without m of |S|! (M-|S|-1)! / M! * (P(S + m) - P(S)), so that
    P(grand) = P(empty) + sum_m q_m. AGM (arXiv 2308.07686, Equation 5) splits the output so, without P(empty).

    Args:
        run: Of a batch.
        runner: How coalitions are run.
        members: Of all coalitions, in the order of a table of profits, `[2^M, M]`.
        number: Of the batch.
    """
    weights = shapley_weights(members.shape[1])
    base: Tensor | None = None
    parts: Tensor | None = None
    done = 0
    for some in runner.run(run, members, number):
        predictions = some.detach().double()
        if base is None:
            base = predictions[0]
        part = torch.tensordot(weights[:, done : done + len(some)].to(predictions.device), predictions, 1)
        parts = part if parts is None else parts + part
        done += len(some)
    assert base is not None and parts is not None  # noqa: S101, PT018 - there are two coalitions at least
    return Parts(base, parts)
