"""Adaptive weight constraint: `AWCRegularizer` holds encoders back while a learning window is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import islice
from math import sqrt
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from awc_balance.anchors import Anchored, check_parameters
from awc_balance.batches import Progress, Step, device_of, iterate, refuse_iterator
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.judgement import Verdict
from awc_balance.calibration.rule import CalibrationRule
from awc_balance.checks import check_callable, check_choice, check_count
from awc_balance.contributions.source import ContributionSource, Given
from awc_balance.diagonals import check_diagonal
from awc_balance.encoders import Encoders, check_encoders, check_model, parameters_by_modality
from awc_balance.fisher import FisherDiagonal, Form, trace
from awc_balance.fisher.diagonal import Diagonal
from awc_balance.fisher.objective import Criterion
from awc_balance.grouping import Group, Grouping, kmeans_groups
from awc_balance.penalty import Bundle, add_penalty_gradient_, penalty
from awc_balance.preserve import RandomState
from awc_balance.processes import Processes, ProcessGroup
from awc_balance.sharded import reshard
from awc_balance.state import check_progress, check_state
from awc_balance.strengths import Rule, Strengths

Scale: TypeAlias = Literal["raw", "mean", "root_mean"]
HoldBack: TypeAlias = Literal["paper", "calibration"]

PAPER_WINDOW = 20

_OF_THE_PAPER: dict[str, Any] = {
    "alpha_superior": 20_000.0,
    "alpha_inferior": 10_000.0,
    "alphas": None,
    "grouping": kmeans_groups,
    "scale": "raw",
    "fisher": "per_batch",
}
"""The defaults of what rule="calibration" has no use for."""

_EXTRA: dict[str, type] = {
    "rule": str, "epoch": int, "contributions": dict, "groups": dict, "alphas": dict, "history": list
}  # fmt: skip


class _User(NamedTuple):
    """What belongs to the user."""

    model: nn.Module
    criterion: Criterion
    step: Step | None


class AWCRegularizer(Anchored):
    """Pull every encoder towards its parameters at the start of the epoch, as long as the learning window is open.

    L_AWC = alpha_S * sum over superior m of L_m + alpha_I * sum over inferior m of L_m, with
    L_m = sum_i F_ii (theta_i - anchor_i)^2, the anchor and the Fisher diagonal F taken at the start of the epoch
    (AWC, arXiv 2501.05264, Section 3.3). Groups come from the contributions, by K-means.

    The regularizer is a module with buffers and without parameters: an anchor of the parameter's dtype and a Fisher
    diagonal for every parameter of the encoders, 8 bytes for one in float32, or 6 with `fisher_dtype=torch.bfloat16`,
    or none on the model's device with `state_device="cpu"`. A step takes another 4 MiB, or one copy of the largest
    parameter.

    With `rule="calibration"` it decides for itself whom to hold back, how much and how long. At the start of every
    epoch predictions are split into the parts of the modalities, and the calibration slope of every part, the factor
    at which the loss is smallest, is measured on training and on held-out batches (`Calibration`). A modality whose
    slope is credibly lower on held-out data is pulled towards features of no size, L_m = s_m sum_k e_k |theta_k|^2
    with e_k the elasticity of their size by that of a parameter, the harder and the longer the more of its part is
    noise; the pull fades once that is no longer seen. All others are left alone: where nothing is wrong the run is
    bitwise that without the regularizer. What came of it: benchmarks/rule.md.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality. Frozen parameters are not pulled.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch, for the Fisher diagonals.
        alpha_superior: Strength for superior modalities.
        alpha_inferior: Strength for inferior modalities. The paper's 20 000 and 10 000 belong to a loss in metres:
            Fisher diagonals grow with the square of the loss's unit; see `scale`.
        window: How many epochs, from the first, the window stays open. 0 is never. None: the paper's 20; with
            rule="calibration" all of them.
        alphas: Strength by modality, or a function from contributions to that, in place of the groups and the two
            alphas. With a fixed mapping no contributions are measured.
        contributions: Name of a profit ("pearson" for regression, "negative_cross_entropy" or "accuracy" for
            classes), or a `ShapleyContribution`, or a function from the loader to any `Mapping[str, float]`, or such a
            mapping, which is read at the start of every epoch.
        grouping: From contributions to "superior" or "inferior" by modality.
        rule: "paper": strengths by groups, or by `alphas`. "calibration": by calibration slopes; `alphas` of an epoch
            are then the strengths that came out, 1 being a pull as strong as the gradients of batches. Alphas,
            grouping, scale, fisher and contributions of yours do not go with it; the name of a profit says what kind
            of targets there are.
        held_out: Batches that the model is not trained on, for rule="calibration"; a part of the training data, never
            the test data. All of them are read at the start of every epoch. Keep the frames of a recording in order:
            intervals allow for neighbours that are alike.
        fisher: Form of the Fisher diagonals, or a `FisherDiagonal` of the same encoders. "per_batch" is the default
            because the paper's alphas fit its scale: with the larger one of "per_sample" they did nearly three
            times the harm on the MARS recording (examples/mars).
        scale: What Fisher diagonals are divided by. "raw": nothing, as in the paper. "mean": their mean over all
            encoders, so that the penalty is the same for losses in metres and in millimetres. "root_mean": the
            square root of that mean, so that the penalty has the unit of the loss, and the balance of the two, hence
            the whole training, is the same in any unit.
        batches: How many batches of the loader an epoch's contributions and Fisher diagonals are measured on. They are
            the first ones that the loader yields: random samples if it shuffles, else the same ones in every epoch,
            which may be all of one kind; they are read once, kept meanwhile, and used for both. None: all of them,
            as in the paper, at the price of a forward pass and a forward and backward pass over the data. Models
            ended up the same with 4, at a fiftieth of the price or less (benchmarks/README.md).
        fisher_dtype: Of the Fisher diagonals that are kept: torch.bfloat16, which changes the pull by up to 0.4 % and
            is exact at the anchor, torch.float32 or torch.float64. None: that of the parameter, float32 or better.
            Anchors always have the dtype of their parameter.
        state_device: Where anchors and Fisher diagonals are kept, such as "cpu"; every step then copies them to the
            model's device, piece by piece. None: where their parameter is.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch. The default takes a pair
            (inputs, target) and calls `model(inputs)`.
        process_group: Which processes measure together, each on its own batches; see `FisherDiagonal`. All of them
            have to call `start_epoch`, and have equal strengths, anchors and Fisher diagonals after it. A
            `ShapleyContribution` or `FisherDiagonal` of yours has its own.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an encoder is unknown to the model or shares parameters with another, or an option is not one
            of those above.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> loader = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(3)]
        >>> mse, optimizer = nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=0.1)
        >>> awc = AWCRegularizer(model, {"table": model[0]}, mse, window=2)
        >>> for epoch in range(3):
        ...     awc.start_epoch(loader)
        ...     for inputs, target in loader:
        ...         loss = mse(model(inputs), target) + awc()
        ...         loss.backward(); optimizer.step(); optimizer.zero_grad()
        >>> [row["epoch"] for row in awc.history]
        [1, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        alpha_superior: float = _OF_THE_PAPER["alpha_superior"],
        alpha_inferior: float = _OF_THE_PAPER["alpha_inferior"],
        window: int | None = None,
        alphas: Mapping[str, float] | Rule | None = None,
        contributions: Given = "pearson",
        grouping: Grouping = kmeans_groups,
        rule: HoldBack = "paper",
        held_out: Iterable[Any] | None = None,
        fisher: Form | FisherDiagonal = "per_batch",
        scale: Scale = "raw",
        batches: int | None = 4,
        fisher_dtype: torch.dtype | None = None,
        state_device: torch.device | str | None = None,
        step: Step | None = None,
        process_group: ProcessGroup = "auto",
    ) -> None:
        """See the class."""
        processes = Processes(model, process_group)
        model = check_model(model)
        reshard(model)
        encoders = check_encoders(encoders, model)
        super().__init__(encoders, model, fisher_dtype, state_device)
        self._processes: Processes = processes
        check_choice("rule", rule, get_args(HoldBack))
        if window is not None:
            check_count("window", window, 0)
        if batches is not None:
            check_count("batches", batches, 1)
        check_choice("scale", scale, get_args(Scale))
        check_callable("criterion", criterion, "Pass the loss function of your training.")
        self._strengths = Strengths(encoders, alpha_superior, alpha_inferior, grouping, alphas)
        wanted = rule == "paper" and not self._strengths.fixed
        self._source = ContributionSource(contributions, model, encoders, step, processes, wanted=wanted)
        # In a tuple, or the parameters of modules among them would become the regularizer's.
        self._user = _User(model, criterion, step)
        self._forgets = isinstance(fisher, str)
        self._fisher = _fisher_of(fisher, encoders, processes)
        self._rule: CalibrationRule | None = None
        if rule == "calibration":
            given = (alpha_superior, alpha_inferior, alphas, grouping, scale, fisher)
            _refuse_both(dict(zip(_OF_THE_PAPER, given, strict=True)), contributions)
            self._rule = CalibrationRule(model, encoders, contributions, held_out, step, processes.group)
        elif held_out is not None:
            raise ValueError("`held_out` belongs to rule='calibration'. Got rule='paper'. Pass both or neither.")
        self.rule = rule
        self.window = PAPER_WINDOW if window is None and rule == "paper" else window
        self.scale = scale
        self.batches = batches
        self.epoch = 0
        self.contributions: dict[str, float] = {}
        self.groups: dict[str, Group] = {}
        self.alphas: dict[str, float] = dict.fromkeys(encoders, 0.0)
        self.history: list[dict[str, Any]] = []

    @property
    def active(self) -> bool:
        """Whether the window is open in the present epoch."""
        return self.epoch > 0 and (self.window is None or self.epoch <= self.window)

    def start_epoch(
        self,
        loader: Iterable[Any],
        *,
        contributions: Mapping[str, float] | None = None,
        fisher: Mapping[str, Mapping[str, Tensor]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Begin an epoch: inside the window take anchors, contributions, groups, alphas and Fisher diagonals.

        Outside the window the loader is not read. If anything fails, everything stays as it was before.

        Args:
            loader: The training batches, not an iterator of them. The first few are read, once; with `batches=None`
                all of them, once for the contributions and once for the Fisher diagonals.
            contributions: Those of this epoch, if they are known already.
            fisher: The Fisher diagonals of this epoch, if they are known already, as `FisherDiagonal.compute` gives
                them, perhaps from the gradients of the steps of the last epoch.
            progress: A wrapper that shows the progress of a pass, such as `tqdm.tqdm`.

        Raises:
            RuntimeError: If an encoder does not run, no gradient reaches it, or another thread measures the model.
            ValueError: If the loader is empty, can be read only once, or is also that of the held-out batches; all
                encoders are frozen; or a parameter, loss, gradient, contribution or alpha is not finite.
        """
        if self.window is not None and self.epoch >= self.window:
            self.epoch += 1
            self.alphas = dict.fromkeys(self._encoders, 0.0)
            return
        if self._rule is not None and (contributions is not None or fisher is not None):
            raise ValueError(
                "rule='calibration' measures what it needs by itself. Got contributions or Fisher diagonals of this "
                "epoch. Leave them out, or pass rule='paper'."
            )
        if self._rule is not None:
            self._rule.refuse(loader)
        if fisher is None or (contributions is None and not self._strengths.fixed):
            loader = self._first(loader)
        reshard(self._user.model)
        self._processes.attempt(lambda: check_parameters(self._encoders))
        known, intervals = self._source.of_epoch(loader, contributions, progress)
        rule = self._rule
        decision = None if rule is None else rule.decide(self.alphas, loader)
        groups, alphas = self._strengths.decide(known) if decision is None else ({}, decision.strengths)
        traces: dict[str, float] = {}
        if decision is None or any(alphas.values()):
            diagonal = self._diagonal(loader, fisher, progress)
            traces = trace(diagonal)
            if rule is None:
                self._keep(diagonal, self._divisor(sum(traces.values())))
            else:
                self._keep(rule.pull(diagonal, loader), to_zero=True)
        self.epoch += 1
        self.contributions, self.groups, self.alphas = known, groups, alphas
        self.history.append(
            {
                "epoch": self.epoch,
                "contributions": dict(known),
                "intervals": intervals,
                "groups": dict(groups),
                "alphas": dict(alphas),
                "fisher": traces,
                **({} if decision is None else decision.row()),
            }
        )

    def forward(self) -> Tensor:
        """The penalty L_AWC, a differentiable scalar in float32 or better; 0 outside the window.

        With gradient accumulation divide it as the loss, since it is added once per backward pass. Its gradient is in
        closed form, and can be differentiated again.

        Raises:
            RuntimeError: If no epoch was started.
        """
        return penalty(self._parts(), device_of(self._user.model))

    def add_gradient_(self) -> None:
        """Add the gradient of the penalty to `.grad`, in closed form: 2 alpha F (theta - anchor).

        The fast way, and the one for callbacks that cannot change the loss. Call it after `backward()`, and after
        gradients are unscaled if they were scaled, once per optimizer step.

        Raises:
            RuntimeError: If no epoch was started.
            ValueError: If a gradient is sparse.
        """
        add_penalty_gradient_(self._parts())

    def verdict(self, loader: Iterable[Any], *, alone: Mapping[str, Estimate] | None = None) -> Verdict:
        """At the end of a training with rule="calibration": balanced, or who is idle, overfits or starves the others.

        Measures the model on all training batches and all held-out batches; `print` it to read it.

        Args:
            loader: The training batches.
            alone: For some modalities what they tell when they are learned alone:
                `train_alone(model, encoders, loader, held_out)` of `awc_balance.calibration`.

        Raises:
            RuntimeError: If the rule is another one, or an encoder does not run.
            ValueError: If a loader is empty or that of the held-out batches, or a prediction or target is not finite.
        """
        if self._rule is None:
            raise RuntimeError(
                "A verdict needs batches that the model is not trained on. Got none, as rule='paper'. Pass "
                "rule='calibration', or compare two measurements of Calibration by awc_balance.calibration.verdict."
            )
        return self._rule.verdict(loader, alone)

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the buffers, as plain values."""
        return {name: deepcopy(getattr(self, name)) for name in _EXTRA}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_extra_state` gave.

        Raises:
            ValueError: If it holds a number that is out of its range; nothing is put back then.
        """
        check_progress(state, self._encoders, self.rule)
        for name in _EXTRA:
            setattr(self, name, deepcopy(state[name]))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch keeps the name of its return type to itself
        """Resume a run, in the middle of a window too, after checking that the state belongs to these encoders.

        Args:
            state_dict: From `state_dict()` of a regularizer of the same model.
            strict: Whether to refuse missing and unexpected keys.
            assign: As in `nn.Module.load_state_dict`.

        Raises:
            TypeError: If it is not a mapping.
            ValueError: With every key that is missing, unexpected, of another shape or not finite, or whose Fisher
                diagonal is negative; nothing is loaded then.
        """
        check_state(state_dict, self.state_dict(), _EXTRA, strict=strict)
        if "_extra_state" in state_dict:
            check_progress(state_dict["_extra_state"], self._encoders, self.rule)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def extra_repr(self) -> str:
        """For `print`."""
        of_rule = f"scale={self.scale!r}" if self.rule == "paper" else f"rule={self.rule!r}"
        return f"{', '.join(self._encoders)}, window={self.window}, epoch={self.epoch}, {of_rule}"

    def _first(self, loader: Iterable[Any]) -> Iterable[Any]:
        """What is measured on: the loader, or so many of its batches, read without moving its random state."""
        self._processes.attempt(lambda: refuse_iterator("loader", loader))
        if self.batches is None:
            return loader
        state = RandomState(loader)
        try:
            return self._processes.attempt(lambda: list(islice(iterate(loader), self.batches)))
        finally:
            state.restore()

    def _diagonal(
        self, loader: Iterable[Any], given: Mapping[str, Mapping[str, Tensor]] | None, progress: Progress | None
    ) -> Diagonal:
        """The Fisher diagonals given, else those measured."""
        model, criterion, step = self._user
        if given is not None:
            diagonal = self._processes.attempt(lambda: check_diagonal(given, self._encoders))
            return self._processes.averaged(diagonal)
        diagonal = self._fisher.estimate(loader, model, criterion, step=step, progress=progress)
        if self._forgets:
            self._fisher.reset()  # or it would take as much memory again until the next epoch
        return diagonal

    def _divisor(self, total: float) -> float:
        """What the Fisher diagonals, which sum to `total`, are divided by; 1 where all of them are 0."""
        if self.scale == "raw":
            return 1.0
        parameters = parameters_by_modality(self._encoders).values()
        mean = total / sum(p.numel() for named in parameters for p in named.values() if p.requires_grad)
        return (mean if self.scale == "mean" else sqrt(mean)) or 1.0

    def _parts(self) -> list[Bundle]:
        """What is pulled in the present epoch."""
        if self.epoch == 0:
            raise RuntimeError(
                "The penalty needs the anchors of an epoch. Got none yet. "
                "Call start_epoch(loader) at the start of every epoch."
            )
        reshard(self._user.model)
        return self._bundles(self.alphas if self.active else dict.fromkeys(self._encoders, 0.0))


def _fisher_of(fisher: Form | FisherDiagonal, encoders: Encoders, processes: Processes) -> FisherDiagonal:
    """What measures the Fisher diagonals of these encoders."""
    if isinstance(fisher, str):
        check_choice("fisher", fisher, get_args(Form))
        return FisherDiagonal(encoders, fisher, process_group=processes.group)
    if not isinstance(fisher, FisherDiagonal):
        raise TypeError(
            f"`fisher` should be a form or a FisherDiagonal. Got {type(fisher).__name__}. Pass fisher='per_batch'."
        )
    if fisher.encoders != encoders:
        raise ValueError(
            f"`fisher` should be made for the same encoders. Got one for {', '.join(fisher.encoders)}. "
            "Build both from one mapping."
        )
    return fisher


def _refuse_both(given: Mapping[str, object], contributions: object) -> None:
    """Refuse what the calibration rule decides or measures for itself."""
    own = [name for name, value in given.items() if value != _OF_THE_PAPER[name]]
    if not isinstance(contributions, str):
        own.append("contributions")
    if own:
        raise ValueError(
            f"rule='calibration' sets strengths by itself. Got `{own[0]}` too. Leave it out, or pass rule='paper'."
        )
