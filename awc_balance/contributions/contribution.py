"""Contributions of modalities, measured on batches: `ShapleyContribution`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from awc_balance.batches import STEP_REMEDY, Progress, Step, default_step, iterate
from awc_balance.checks import check_callable, check_choice, check_count
from awc_balance.contributions.designs import AllCoalitions, Design
from awc_balance.contributions.features import Feature, Features
from awc_balance.contributions.intervals import Interval, bootstrap, jackknife, widened
from awc_balance.contributions.measurement import Measurement
from awc_balance.contributions.profits import Profit, ProfitFunction, as_profit
from awc_balance.contributions.result import Contributions, Profits
from awc_balance.contributions.runs import Measured
from awc_balance.contributions.sampling import SampledCoalitions, least_budget
from awc_balance.contributions.shapley import MAX_MODALITIES
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.preserve import measuring
from awc_balance.processes import Processes, ProcessGroup
from awc_balance.replicas import share_model
from awc_balance.sharded import refuse_sharded

_SHARDED = "Pass alphas={...}, start_epoch(loader, contributions={...}), or measure a copy that is whole."


class ShapleyContribution:
    """How much each modality contributes to a model's predictions: the Shapley value of a profit.

    phi_m = sum over coalitions S without m of |S|! (M-|S|-1)! / M! * (v(S + m) - v(S)), where v(S) is the profit of
    predicting with the features of the modalities outside S set to zero (AWC, arXiv 2501.05264, Section 3.2). The
    encoders run once per batch; whatever the model does after them is run again for each of the 2^M coalitions, or
    for as many as the budget allows. The model is measured in evaluation mode and left exactly as it was; the target
    is that of the run with all modalities. Contributions sum to v(grand) - v(empty).

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality. An encoder puts out a tensor or nested tuples,
            lists, dicts and dataclasses of tensors, and may be called more than once. Masks and indices, which are
            boolean or integer, are not zeroed.
        profit: "pearson": correlation per output coordinate over all samples seen (regression; 0 for a constant
            prediction or target); "pearson_per_batch": the same along each batch, averaged over batches, as in the
            paper; "negative_mse"; "negative_cross_entropy" and "accuracy" for classes, and
            "negative_binary_cross_entropy" for yes-or-no outputs; or a function
            (prediction, target) of a batch, higher being better, averaged over batches.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch. The default takes a pair
            (inputs, target) and calls `model(inputs)`.
        head: `head(features) -> prediction`, from a dict of features by modality, if running the model itself
            again is not wanted. A modality whose encoder is called more than once has a tuple of features.
        budget: How many coalitions to run at most, at least 4 M + 2, drawn in pairs; see `SampledCoalitions`. None,
            for up to 16 modalities, is all of them. With a budget that covers all, all are run.
        seed: Of the draw of coalitions, and of the bootstrap. The global random state is left alone.
        interval: "jackknife": over 20 folds of the batches, leaving out each in turn, with Student's t. "bootstrap":
            percentiles of 1000 draws of the folds; it follows skewed distributions, covers about as well, takes
            fifty times as many evaluations. Both from stored sums, without running the model again. None: no interval.
        fast: Whether to take two shortcuts where the data show that they change nothing but roundings. If every
            modality adds its own part to the prediction ("pearson", 4 modalities or more), M + 4 coalitions are run
            (in the first batch M + 18) and the others follow from covariances. Else coalitions run together, stacked
            along the batch dimension. Every batch is checked against coalitions that are run, those of the second
            kind one by one. `result.route` tells what was done.
        process_group: Which processes measure together, each on its own batches: "auto", all of them, or those of a
            model in `DistributedDataParallel`, wherever `torch.distributed` is initialised; None, each for itself; or
            a group. All of them have to call `evaluate`, or `compute`. A profit of a batch, such as
            "pearson_per_batch", is that of the batch of one process.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If encoders share parameters or are not part of the model, or a profit is unknown.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> contribution = ShapleyContribution(model, {"a": model["a"], "b": model["b"]}, step=step)
        >>> result = contribution.evaluate([(torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))])
        >>> sorted(result)
        ['a', 'b']
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        profit: str | Profit | ProfitFunction = "pearson",
        *,
        step: Step | None = None,
        head: Callable[[dict[str, Feature]], Tensor] | None = None,
        budget: int | None = None,
        seed: int = 0,
        interval: Interval | None = "jackknife",
        fast: bool = True,
        process_group: ProcessGroup = "auto",
    ) -> None:
        """See the class."""
        self._processes = Processes(model, process_group)
        self._model = check_model(model)
        self._encoders = check_encoders(encoders, self._model)
        self._design = _design(len(self._encoders), budget, seed)
        self._profit = as_profit(profit)
        self._step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
        self._head = None if head is None else check_callable("head", head, "Pass a function of the features.")
        if interval is not None:
            check_choice("interval", interval, get_args(Interval))
        self._interval, self._seed, self._fast = interval, seed, fast
        Features(self._encoders)  # refuses encoders inside one another
        self.reset()

    def reset(self) -> None:
        """Forget all batches seen."""
        self._measurement = self._new_measurement()

    def update(self, batch: Any) -> None:  # noqa: ANN401
        """Measure the model as it is now on one batch, and add that to what was measured before.

        Args:
            batch: What `step` reads.

        Raises:
            RuntimeError: If an encoder does not run.
            TypeError: If the prediction is not a tensor, or a feature holds none.
            ValueError: If prediction and target do not fit the profit, or a prediction is not finite. Nothing of
                the batch is kept then.
        """
        refuse_sharded(self._model, "Contributions", _SHARDED)
        with measuring(self._model, self._head, self._step):
            self._measurement.add(batch)

    def compute(self) -> Contributions:
        """The contributions over all batches since the last `reset`.

        Raises:
            RuntimeError: If there was no batch.
        """
        return self._summary(self._processes.attempt(self._seen))

    def evaluate(self, loader: Iterable[Any], *, progress: Progress | None = None) -> Contributions:
        """The contributions over a whole loader, apart from anything given to `update`.

        Args:
            loader: The batches.
            progress: A wrapper that shows progress, such as `tqdm.tqdm`.

        Raises:
            ValueError: If the loader is empty, and as `update`.
        """
        refuse_sharded(self._model, "Contributions", _SHARDED)
        measurement = self._new_measurement()

        def read() -> None:
            for batch in iterate(loader, progress):
                measurement.add(batch)

        with measuring(self._model, self._head, self._step, loader=loader):
            share_model(self._model, self._processes)
            self._processes.attempt(read)
        return self._summary(measurement)

    __call__ = evaluate

    def _seen(self) -> Measurement:
        if not self._measurement.batches:
            raise RuntimeError("`compute` needs at least one batch. Got none. Call update(batch) before it.")
        return self._measurement

    def _new_measurement(self) -> Measurement:
        measured = Measured(self._model, self._encoders, self._step, self._head)
        return Measurement(measured, self._profit, self._design, fast=self._fast)

    @torch.no_grad()
    def _summary(self, measurement: Measurement) -> Contributions:
        measurement = measurement.over(self._processes)
        weighted, folds = measurement.profits(), len(measurement.folds)
        profits = weighted(torch.ones(folds, dtype=torch.float64))
        values = self._design.values(profits)
        mean_profits = _mean(profits)
        errors = self._design.errors(mean_profits)
        modalities = list(self._encoders)
        return Contributions(
            values_by_modality=dict(zip(modalities, _mean(values).tolist(), strict=True)),
            per_output=dict(zip(modalities, values.cpu(), strict=True)),
            intervals=self._intervals(weighted, folds, _mean(values), errors),
            errors=dict(zip(modalities, errors.tolist(), strict=True)),
            profits=Profits(modalities, self._design.codes, mean_profits.tolist()),
            route=measurement.route,
        )

    def _intervals(
        self, weighted: Callable[[Tensor], Tensor], folds: int, values: Tensor, errors: Tensor
    ) -> dict[str, tuple[float, float]] | None:
        """By modality, with the errors from drawing coalitions, which are independent of the data."""
        if self._interval is None or folds < 2:
            return None

        def estimate(weights: Tensor) -> Tensor:
            return _mean(self._design.values(weighted(weights)))

        ends = jackknife(estimate, folds) if self._interval == "jackknife" else bootstrap(estimate, folds, self._seed)
        low, high = (widened(values, end, errors.to(values)).tolist() for end in ends)
        return dict(zip(self._encoders, zip(low, high, strict=True), strict=True))


def _design(modalities: int, budget: int | None, seed: int) -> Design:
    """All coalitions, unless a budget does not cover them.

    Raises:
        ValueError: If there are too many modalities for all coalitions, or the budget is too small.
    """
    check_count("seed", seed, 0)
    if budget is not None:
        check_count("budget", budget, 1)
    if budget is None and modalities > MAX_MODALITIES:
        raise ValueError(
            f"Exact Shapley values take at most {MAX_MODALITIES} modalities. Got {modalities}, which has "
            f"2^{modalities} coalitions. Pass budget={max(2000, 2 * least_budget(modalities))} to estimate them from "
            "so many (AWCRegularizer takes a ShapleyContribution as contributions=), or treat related modalities as "
            "one, with an nn.ModuleList of their encoders."
        )
    if budget is None or (modalities <= MAX_MODALITIES and budget >= 2**modalities):
        return AllCoalitions(modalities)
    return SampledCoalitions(modalities, budget, seed)


def _mean(values: Tensor) -> Tensor:
    """Over output coordinates."""
    return values.reshape(len(values), -1).mean(1)
