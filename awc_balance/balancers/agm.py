"""AGM: adaptive gradient modulation."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.scores import Score, check_score, cross_entropy, log_mse, scores_of
from awc_balance.batches import Step
from awc_balance.checks import check_alpha
from awc_balance.contributions.shapley import coalitions, refuse_too_many, shapley_values
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.precision import at_least_float32

LARGEST_ALPHA = 10.0
"""Two and a half times the largest alpha of the paper; beyond it coefficients are 0 or in the thousands."""

_EXPONENT = 80.0
"""Ratios and coefficients beyond e^80 are not told apart, lest they overflow in float32."""


class AGM(Balancer):
    """Split the prediction into one part per modality and scale the gradient of each part.

    "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", ICCV 2023, arXiv 2308.07686. The part
    q_m is the Shapley value of the function from a coalition to its prediction, the empty coalition predicting 0, so
    that the parts sum to the prediction: for two modalities q_a = (P_full - P_b + P_a) / 2. The loss is that of the
    sum; on the way back the gradient of q_m is multiplied by k_m = exp(alpha * min(tau_m - r_m, cap)), where
    r_m = exp(M/(M-1) * (mean_j s_j - s_m)), s_m is the loss of q_m by itself, and tau_m is r_m of the running means
    of s over all earlier steps, which start at 0. A modality ahead of its own average lead is slowed down; k may be
    above 1.

    What the paper did: classes, two or three modalities, any fusion, s_m the cross-entropy; alpha 1.5 (CREMA-D),
    2.5 (AV-MNIST), 4.0 (UR-Funny), cap 10 or 7, in all epochs.

    What this port chose: the Shapley value for any number of modalities; for numbers s_m = log MSE_m, whose
    differences do not depend on the unit, so that r_m is a power of a ratio of errors. Coalitions are predicted in
    evaluation mode from the features of the one training pass. The value of the loss is that of the plain loss,
    since P_full + sum_m (k_m - 1) q_m, the last without its value, has the gradient of the sum of the scaled parts.

    Traps: **under Adam the scale is cancelled** as far as it varies slowly (`check` warns). 2^M - 1 predictions keep
    their graphs until `backward()`. Which part of the model sees which scale depends on the fusion: with late linear
    fusion it is encoder m and its slice of the head that are scaled by k_m. In regression a part q_m carries a share
    of the target's mean, so the scores compare levels as well as knowledge: centre the target.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        alpha: Strength of the modulation. 0 is plain training.
        cap: The largest tau_m - r_m.
        score: `score(part, target)`, lower for better. None: cross-entropy for class numbers, log MSE otherwise.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range, or there are too many modalities.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> balancer = AGM(model, {"a": model["a"], "b": model["b"]}, nn.functional.mse_loss, alpha=1.5, step=step)
        >>> batch = (torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
        >>> sorted(balancer.coefficients)
        ['a', 'b']
    """

    scales_gradients: ClassVar[bool] = True
    _saved: ClassVar[tuple[str, ...]] = ("coefficients", "running_scores", "steps")

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        alpha: float = 1.5,
        cap: float = 10.0,
        score: Score | None = None,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        refuse_too_many(len(self.modalities))
        self.alpha = check_alpha("alpha", alpha)
        self.cap = check_alpha("cap", cap)
        self.coefficients = dict.fromkeys(self.modalities, 1.0)
        self.running_scores = dict.fromkeys(self.modalities, 0.0)
        self.steps = 0
        self._score = check_score("score", score)
        self._coalitions = coalitions(self.modalities)
        if self.alpha > LARGEST_ALPHA:
            self._warn(f"has alpha={alpha:g}, and k is an exponential of it. The paper has 1.5 to 4.")

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        if self.alpha == 0 or len(self.modalities) < 2:
            return self._plain(batch)
        run = self._run(batch, keep_gradient=True)
        parts = decomposed([*run.predictions(self._coalitions[1:-1]), run.prediction])
        named = dict(zip(self.modalities, parts, strict=True))
        scores = scores_of(named, run.target, self._score, cross_entropy, log_mse)
        found = coefficients(scores, self.running_scores, self.alpha, self.cap)
        parts = at_least_float32(parts)  # coefficients may be beyond the largest float16
        scale = torch.tensor(list(found.values()), dtype=parts.dtype, device=parts.device)
        # No tensordot, which autocast would turn back to float16.
        extra = ((scale - 1).view(-1, *[1] * run.prediction.dim()) * (parts - parts.detach())).sum(0)
        loss = self._task_loss(run.prediction + extra.to(run.prediction.dtype), run.target)
        self.coefficients = found
        self.steps += 1
        for modality, score in scores.items():
            self.running_scores[modality] += (score - self.running_scores[modality]) / self.steps
        return loss


def decomposed(predictions: list[Tensor]) -> Tensor:
    """The part of the prediction that each modality makes, `[M, batch, ...]`; the parts sum to the full prediction.

    Args:
        predictions: Of all coalitions but the empty one, in the order of `coalitions`; the full prediction is last.

    Example:
        >>> decomposed([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([5.0])])  # {a}, {b}, {a, b}
        tensor([[2.],
                [3.]])
    """
    return shapley_values(torch.stack([torch.zeros_like(predictions[-1]), *predictions]))


def coefficients(
    scores: Mapping[str, float], running: Mapping[str, float], alpha: float, cap: float
) -> dict[str, float]:
    """k_m of every modality, from losses of the parts, lower being better, and their running means.

    Example:
        >>> coefficients({"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 0.0}, alpha=1.5, cap=10.0)
        {'a': 1.0, 'b': 1.0}
    """
    now, before = _ratios(scores), _ratios(running)
    return {m: exp(min(alpha * min(before[m] - now[m], cap), _EXPONENT)) for m in scores}


def _ratios(scores: Mapping[str, float]) -> dict[str, float]:
    """r_m: above 1 for a modality that does better than the mean."""
    count = len(scores)
    mean = sum(scores.values()) / count
    return {m: exp(min(count / (count - 1) * (mean - score), _EXPONENT)) for m, score in scores.items()}
