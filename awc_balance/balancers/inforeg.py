"""InfoReg: hold back the modality ahead while its information still grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import exp, isfinite, tanh
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from awc_balance.anchors import check_parameters
from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.scores import (
    Score,
    check_score,
    clipped_pearson,
    mean_of_others,
    mean_scores,
    probability,
    scores_of,
)
from awc_balance.batches import Step
from awc_balance.checks import check_alpha, check_count
from awc_balance.encoders import Encoders, parameters_by_modality
from awc_balance.fisher.objective import Criterion
from awc_balance.penalty import Pulled, add_pull_gradient_
from awc_balance.state import buffer_name

LARGEST_BETA = 10.0
"""Ten times the paper's largest; SGD with a usual learning rate diverges around there."""


class InfoReg(Balancer):
    """Pull the dominant modality towards its parameters at the start of the epoch, while its Fisher trace grows.

    "Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition", CVPR 2025. For the modality that
    does best by itself, gradient += beta * exp(tanh(s_dominant - s_other)) * (theta - theta_0), theta_0 being its
    parameters at the start of the epoch. Unlike AWC the pull is not weighted by the Fisher information. It acts
    inside the prime learning window: as long as the trace of the Fisher information, averaged over ten epochs, grows
    by more than 4 to 5 % per epoch.

    What the paper did: classes, two modalities, SGD; s_m is the probability of the true class, from heads of single
    modalities that are trained along; beta 0.95 or 0.1; the trace is that of the squared batch gradients of
    convolution and linear weights.

    What this port chose: s_m from predictions with the features of the others zeroed, so no heads are needed; its
    mean over the batch, because **tanh of a sum over a batch is always 1**. For numbers s_m is the mean correlation,
    at least 0, which has the range of a probability. s_other is the mean of the others. Each modality has a window of
    its own, by the trace of its own weights (parameters of two dimensions or more) from the gradients before the
    pull. Like the public code, growth is (now - before) / now of sums over the last ten epochs, with 0 for epochs
    that have not been, so the window is open in the first epochs; it may open again.

    Traps: in a run of fewer than ten epochs the window hardly ever closes, and with the paper's beta the pull on the
    dominant modality then outweighs the loss: tune beta, or bound it by `window`. Which modality is dominant may flip
    from step to step, and the anchor of the epoch stays. A correlation in a batch of fewer than 8 samples is noise (a
    warning says so). beta is in units of the gradient of the loss, so it does not carry over between losses in metres
    and in millimetres.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        beta: Strength of the pull. 0 is plain training.
        growth: The share by which the trace has to grow for the window to be open.
        memory: Over how many epochs the trace is averaged.
        score: `score(prediction, target)`, higher for better. None: `probability` for class numbers,
            `clipped_pearson` otherwise.
        window: How many epochs, from the first, the method works at most; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> balancer = InfoReg(model, {"a": model["a"], "b": model["b"]}, nn.functional.mse_loss, step=step)
        >>> batch = (torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
        >>> balancer.open
        {'a': True, 'b': True}
    """

    _saved: ClassVar[tuple[str, ...]] = ("dominant", "traces", "open", "_trace_sums", "_trace_steps")

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        beta: float = 0.95,
        growth: float = 0.04,
        memory: int = 10,
        score: Score | None = None,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, window=window, step=step)
        check_count("memory", memory, 1)
        self.beta = check_alpha("beta", beta)
        self.growth = check_alpha("growth", growth)
        self.memory = memory
        self.dominant: str | None = None
        self.traces: dict[str, list[float]] = {modality: [] for modality in self.modalities}
        self.open = dict.fromkeys(self.modalities, True)
        self._score = check_score("score", score)
        self._seen: list[tuple[int, dict[str, float]]] = []
        self._trace_sums = dict.fromkeys(self.modalities, 0.0)
        self._trace_steps = 0
        self._keep_anchors()
        if self.beta > LARGEST_BETA:
            self._warn(f"has beta={beta:g}, with which most learning rates diverge. The paper has 0.1 and 0.95.")

    def _prepare(self, loader: Iterable[Any]) -> None:  # noqa: ARG002 - nothing is measured
        if self.beta == 0:
            return
        check_parameters(self._encoders)
        self._seen = []
        self._keep_anchors()
        if self._trace_steps:
            for modality, total in self._trace_sums.items():
                self.traces[modality].append(total / self._trace_steps)
            self._trace_sums, self._trace_steps = dict.fromkeys(self.modalities, 0.0), 0
        self.open = {m: grows(traces, self.growth, self.memory) for m, traces in self.traces.items()}

    def _forget_step(self) -> None:
        super()._forget_step()
        self._seen = []

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        if self.beta == 0:
            return self._plain(batch)
        run = self._run(batch)
        with torch.no_grad():
            scores = scores_of(run.alone(), run.target, self._score, probability, clipped_pearson)
        loss = self._task_loss(run.prediction, run.target)
        self._seen.append((run.samples, scores))
        return loss

    def _adjust(self) -> None:
        if self.beta == 0:
            return
        if not self._seen:
            raise RuntimeError(
                "`adjust_gradients_` needs the scores of a batch. Got none since the last time. "
                "Call loss(batch) and backward() before it, once per step."
            )
        strengths = pulls(self._mean_over_processes(mean_scores(self._seen)), self.beta)
        pulled = {m: (strength, list(self._pulled(m))) for m, strength in strengths.items() if self.open[m]}
        self._seen = []
        if not self._add_traces():
            return
        self.dominant = next(iter(strengths), None)
        for strength, terms in pulled.values():
            add_pull_gradient_(terms, strength / 2)  # which adds twice its strength, the gradient of a square

    @torch.no_grad()
    def _add_traces(self) -> bool:
        """Add the sum over weights of the mean squared gradient of this step, unless it is not finite."""
        found = dict.fromkeys(self.modalities, 0.0)
        for modality, name, parameter in self._named_parameters():
            if parameter.grad is None or parameter.dim() < 2:
                continue
            mean = float(parameter.grad.to_dense().double().square().mean())
            if not isfinite(mean):
                self._warn(  # no error, since scalers of float16 losses overflow now and then, and skip the step
                    f"leaves a step alone whose gradients are not finite: nan or infinity for {name} of `{modality}`. "
                    "Without a GradScaler, which skips such steps, look for the cause in the batch."
                )
                return False
            found[modality] += mean
        self._trace_sums = {modality: total + found[modality] for modality, total in self._trace_sums.items()}
        self._trace_steps += 1
        return True

    def _pulled(self, modality: str) -> Iterator[Pulled]:
        for name, parameter in parameters_by_modality(self._encoders)[modality].items():
            if parameter.requires_grad:
                anchor = self._buffers.get(buffer_name("anchor", modality, name))
                if anchor is None or anchor.shape != parameter.shape:
                    raise RuntimeError(
                        f"The encoders should keep their parameters within an epoch. The parameter {name} of "
                        f"`{modality}` is new or has another shape. Call start_epoch(loader) after such a change."
                    )
                yield Pulled(parameter, anchor.to(parameter.device), torch.ones((), device=parameter.device))

    def _keep_anchors(self) -> None:
        kept = {
            buffer_name("anchor", modality, name): parameter.detach().clone()
            for modality, name, parameter in self._named_parameters()
        }
        for key in self._buffers.keys() - kept.keys():  # of parameters that are gone
            del self._buffers[key]
        for key, anchor in kept.items():
            self.register_buffer(key, anchor)

    def _named_parameters(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        for modality, named in parameters_by_modality(self._encoders).items():
            for name, parameter in named.items():
                yield modality, name, parameter


def pulls(scores: Mapping[str, float], beta: float) -> dict[str, float]:
    """The strength of the pull on the dominant modality, or nothing where no modality is ahead.

    Args:
        scores: By modality, higher being better.
        beta: Strength of the method.

    Example:
        >>> pulls({"rgb": 0.5, "wifi": 0.5}, beta=0.95)
        {}
    """
    dominant = max(scores, key=scores.__getitem__)
    if scores[dominant] == min(scores.values()):
        return {}  # not by their mean, which rounding puts a little below equal scores
    return {dominant: beta * exp(tanh(scores[dominant] - mean_of_others(scores)[dominant]))}


def grows(traces: Sequence[float], growth: float, memory: int) -> bool:
    """Whether the window is open: the mean trace over `memory` epochs grew by more than the share `growth`.

    Args:
        traces: By epoch, the last being the last that ended.
        growth: A share, such as 0.04.
        memory: A number of epochs.

    Example:
        >>> grows([1.0, 2.0, 3.0], 0.04, 10), grows([3.0] * 11, 0.04, 10)
        (True, False)
    """
    if not traces:
        return True
    now, before = sum(traces[-memory:]), sum(traces[-memory - 1 : -1])
    return now - before > growth * now
