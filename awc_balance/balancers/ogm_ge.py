"""OGM-GE: on-the-fly gradient modulation with generalization enhancement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf, tanh
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.random_numbers import OwnRandom
from awc_balance.balancers.run import Run
from awc_balance.balancers.scores import (
    Score,
    check_score,
    inverse_mse,
    mean_of_others,
    mean_scores,
    probability,
    scores_of,
)
from awc_balance.batches import Step
from awc_balance.checks import check_alpha, check_choice
from awc_balance.encoders import Encoders, parameters_by_modality
from awc_balance.fisher.objective import Criterion

Which: TypeAlias = Literal["all", "convolutions"]

SATURATED = 3.0
"""From this alpha on every coefficient below 1 is below 1 - tanh(3) = 0.005: the encoder ahead stands still."""


FOREIGN_SLICES = 0.05
"""The share of the prediction from which a difference is no rounding error, not even that of bfloat16."""


class OGMGE(Balancer):
    """Slow down the encoder whose modality does better by itself, and add noise to all gradients.

    "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022, arXiv 2203.15332. With the score
    s_m of modality m alone and rho_m = s_m / s_other, k_m = 1 - tanh(alpha * relu(rho_m)) if rho_m > 1, else 1.
    Between backward and step g <- k_m g + N(0, std(g)), per tensor, with the deviation of the unscaled gradient.

    What the paper did: two modalities, classes, concatenation; s_m = sum over the batch of the probability of the
    true class from the modality's slice of the head, W_m z_m + b/2; tensors of four dimensions only; SGD; alpha 0.1
    (VGGSound) or 0.8 (CREMA-D); the first 50 of 100 epochs.

    What this port chose: rho_m against the mean score of the others, which for two modalities is the same. For
    numbers s_m = 1/MSE_m, positive and higher for better, whose ratio does not depend on the unit; `scores.py` has a
    clipped correlation as well. Predictions of a modality alone come from zeroing the features of the others, which
    any fusion allows, or with `head=` from its slice of that layer with its share b/M of the bias. All tensors of
    the encoders are changed, or `tensors="convolutions"` as in the paper, which leaves Linear and LayerNorm encoders
    untouched without a word. alpha = 0 switches everything off, the noise too.

    Traps: **under Adam the scale is cancelled**, and only the noise and the jumps of k act (`check` warns). k jumps
    at rho = 1, from 1 to 1 - tanh(alpha). Where one modality alone always does better, it is slowed down for good:
    mind `window`. A modality whose own predictions are far off in level scores low in 1/MSE even if it knows the
    target's order.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        alpha: Strength of the modulation. 0 is plain training.
        noise: Whether to add noise ("GE").
        tensors: Which gradients to change: "all", or those of four dimensions, "convolutions".
        score: `score(prediction, target)`, at least 0 and higher for better. None: `probability` for class numbers,
            `inverse_mse` otherwise.
        head: The linear layer, part of the model, that takes the features side by side in the order of `encoders`; a
            warning says where its slices do not sum to the prediction.
        seed: Of the noise, which leaves the global random state alone.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> encoders = {"a": model["a"], "b": model["b"]}
        >>> balancer = OGMGE(model, encoders, nn.functional.mse_loss, alpha=0.5, step=step)
        >>> batch = (torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
        >>> max(balancer.coefficients.values())  # the weaker one is left alone
        1.0
    """

    scales_gradients: ClassVar[bool] = True
    _saved: ClassVar[tuple[str, ...]] = ("coefficients",)

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        alpha: float = 0.1,
        noise: bool = True,
        tensors: Which = "all",
        score: Score | None = None,
        head: nn.Linear | None = None,
        seed: int = 0,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        check_choice("tensors", tensors, get_args(Which))
        if head is not None and not isinstance(head, nn.Linear):
            raise TypeError(
                f"`head` should be an nn.Linear. Got {type(head).__name__}. "
                "Leave it out for any other head: the features of the other modalities are zeroed then."
            )
        self.alpha = check_alpha("alpha", alpha)
        self.noise = noise
        self.tensors = tensors
        self.coefficients = dict.fromkeys(self.modalities, 1.0)
        self._score = check_score("score", score)
        self._head = (head,)  # in a tuple, or its parameters would become the balancer's
        self._random = OwnRandom(seed)
        self._seen: list[tuple[int, dict[str, float]]] = []
        if self.alpha > SATURATED:
            self._warn(
                f"has alpha={alpha:g}: from {SATURATED:g} on the encoder ahead stands still. The paper has 0.1 to 0.8."
            )

    def _prepare(self, loader: Iterable[Any]) -> None:  # noqa: ARG002 - nothing is measured
        self._seen = []

    def _forget_step(self) -> None:
        super()._forget_step()
        self._seen = []

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        if self.alpha == 0:
            return self._plain(batch)
        run = self._run(batch)
        with torch.no_grad():
            alone = run.alone() if self._head[0] is None else self._sliced(self._head[0], run)
        scores = scores_of(alone, run.target, self._score, probability, inverse_mse)
        loss = self._task_loss(run.prediction, run.target)
        self._seen.append((run.samples, scores))
        return loss

    def _sliced(self, head: nn.Linear, run: Run) -> dict[str, Tensor]:
        slices = sliced(head, run.rows(), run.prediction.shape)
        total = torch.stack(list(slices.values())).sum(0).to(run.prediction)
        if (total - run.prediction).norm() > FOREIGN_SLICES * run.prediction.norm():
            self._warn(
                "has a `head` whose slices do not sum to the prediction: `encoders` may be in another order than the "
                "head takes them, or dropout, pooling or an activation lies between. Mind the order, or leave it out."
            )
        return slices

    def _adjust(self) -> None:
        if self.alpha == 0:
            return
        if not self._seen:
            raise RuntimeError(
                "`adjust_gradients_` needs the scores of a batch. Got none since the last time. "
                "Call loss(batch) and backward() before it, once per step."
            )
        gradients = list(self._gradients())
        self.coefficients = modulation(self._mean_over_processes(mean_scores(self._seen)), self.alpha)
        self._seen = []
        for modality, gradient in gradients:
            self._modulate_(gradient, self.coefficients[modality])

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        for modality, named in parameters_by_modality(self._encoders).items():
            for name, parameter in named.items():
                gradient = parameter.grad
                if gradient is None or (self.tensors == "convolutions" and gradient.dim() != 4):
                    continue
                if gradient.layout != torch.strided:
                    raise ValueError(
                        f"Gradients should be dense to be modulated. Got {gradient.layout} for {name} of "
                        f"`{modality}`. Build the embedding with sparse=False."
                    )
                yield modality, gradient

    @torch.no_grad()
    def _modulate_(self, gradient: Tensor, coefficient: float) -> None:
        """Scale a gradient in place and add noise of the deviation it had."""
        if not self.noise or gradient.numel() < 2:  # one number has no deviation
            gradient.mul_(coefficient)
            return
        noise = self._random.normal_like(gradient)
        noise.mul_(gradient.to(noise.dtype).std())
        gradient.mul_(coefficient).add_(noise.to(gradient.dtype))


def modulation(scores: Mapping[str, float], alpha: float) -> dict[str, float]:
    """The coefficient k_m of every modality, from scores of at least 0, higher being better.

    Raises:
        ValueError: If a score is negative.

    Example:
        >>> modulation({"rgb": 1.0, "wifi": 0.5}, alpha=0.5)["wifi"]
        1.0
    """
    for modality, score in scores.items():
        if score < 0:
            raise ValueError(
                f"Scores should be at least 0, since their ratio is taken. Got {score:g} for `{modality}`. "
                "Pass a score such as one over an error."
            )
    coefficients = {}
    for modality, other in mean_of_others(scores).items():
        ahead = scores[modality] > other
        ratio = scores[modality] / other if other > 0 else inf
        coefficients[modality] = 1 - tanh(alpha * ratio) if ahead and alpha > 0 else 1.0
    return coefficients


def sliced(head: nn.Linear, rows: Mapping[str, Tensor], shape: torch.Size) -> dict[str, Tensor]:
    """What each modality's slice of a linear head puts out, with an equal share of the bias.

    Args:
        head: Takes the rows side by side.
        rows: `[batch, width]` by modality, in the order in which the head takes them.
        shape: Of the prediction.

    Raises:
        ValueError: If the widths do not add up to what the head takes.
    """
    widths = [row.shape[1] for row in rows.values()]
    if sum(widths) != head.in_features:
        raise ValueError(
            f"`head` should take the features side by side, {' + '.join(map(str, widths))} numbers. "
            f"It takes {head.in_features}. Leave it out: the features of the other modalities are zeroed then."
        )
    bias = 0.0 if head.bias is None else head.bias / len(rows)
    weights = head.weight.split(widths, dim=1)
    return {m: (row @ w.T + bias).reshape(shape) for (m, row), w in zip(rows.items(), weights, strict=True)}
