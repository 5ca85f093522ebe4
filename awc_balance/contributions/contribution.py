"""Contributions of modalities, measured on batches: `ShapleyContribution`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from scipy.special import stdtrit  # scipy comes with scikit-learn
from torch import Tensor, nn

from awc_balance.batches import (
    STEP_REMEDY,
    Progress,
    Step,
    check_prediction,
    default_step,
    device_of,
    iterate,
    predict,
    to_device,
)
from awc_balance.checks import check_callable
from awc_balance.contributions.features import Feature, Features
from awc_balance.contributions.profits import Profit, ProfitFunction, Statistics, as_profit
from awc_balance.contributions.result import Contributions
from awc_balance.contributions.shapley import coalitions, refuse_too_many, shapley_values
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.nested import copied
from awc_balance.preserve import RandomState, measuring
from awc_balance.processes import Processes, ProcessGroup
from awc_balance.sharded import refuse_sharded

FOLDS = 20
"""Batches are dealt to this many folds; the interval is the jackknife over them."""

Folds = list[Statistics | None]

_SHARDED = "Pass alphas={...}, start_epoch(loader, contributions={...}), or measure a copy that is whole."


class ShapleyContribution:
    """How much each modality contributes to a model's predictions: the Shapley value of a profit.

    phi_m = sum over coalitions S without m of |S|! (M-|S|-1)! / M! * (v(S + m) - v(S)), where v(S) is the profit of
    predicting with the features of the modalities outside S set to zero (AWC, arXiv 2501.05264, Section 3.2). The
    encoders run once per batch; whatever the model does after them is run again for each of the 2^M coalitions. The
    model is measured in evaluation mode and left exactly as it was. Contributions sum to v(grand) - v(empty).

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them. An encoder puts out a tensor
            or nested tuples, lists, dicts and dataclasses of tensors, and may be called more than once. Masks and
            indices, which are boolean or integer, are not zeroed.
        profit: "pearson": correlation per output coordinate over all samples seen (regression; 0 for a constant
            prediction or target); "pearson_per_batch": the same along each batch, averaged over batches, as in the
            paper; "negative_mse"; "negative_cross_entropy" and "accuracy" for classes, and
            "negative_binary_cross_entropy" for yes-or-no outputs; or a function
            (prediction, target) of a batch, higher being better, averaged over batches.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch. The default takes a pair
            (inputs, target) and calls `model(inputs)`.
        head: `head(features) -> prediction`, from a dict of features by modality, if running the model itself
            again is not wanted. A modality whose encoder is called more than once has a tuple of features.
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
        process_group: ProcessGroup = "auto",
    ) -> None:
        """See the class."""
        self._processes = Processes(model, process_group)
        self._model = check_model(model)
        self._encoders = check_encoders(encoders, self._model)
        refuse_too_many(len(self._encoders))
        self._profit = as_profit(profit)
        self._step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
        self._head = None if head is None else check_callable("head", head, "Pass a function of the features.")
        Features(self._encoders)  # refuses encoders inside one another
        self._coalitions = coalitions(list(self._encoders))
        self.reset()

    def reset(self) -> None:
        """Forget all batches seen."""
        self._folds: Folds = [None] * FOLDS
        self._batches = 0

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
            self._add(self._folds, self._batches, batch)
        self._batches += 1

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

        def read() -> Folds:
            folds: Folds = [None] * FOLDS
            for number, batch in enumerate(iterate(loader, progress)):
                self._add(folds, number, batch)
            return folds

        with measuring(self._model, self._head, self._step, loader=loader):
            self._processes.share_model(self._model)
            folds = self._processes.attempt(read)
        return self._summary(folds)

    __call__ = evaluate

    def _seen(self) -> Folds:
        if not self._batches:
            raise RuntimeError("`compute` needs at least one batch. Got none. Call update(batch) before it.")
        return self._folds

    @torch.no_grad()
    def _add(self, folds: Folds, number: int, batch: Any) -> None:  # noqa: ANN401
        """Add the statistics of a batch to the fold that is its turn."""
        if self._step is default_step:
            batch = to_device(batch, device_of(self._model))  # once, not once per coalition
        features = Features(self._encoders)
        start = RandomState()
        with features.recorded():
            whole, target = predict(self._step, self._model, copied(batch))
        after = RandomState()
        measured = []
        for coalition in self._coalitions:
            start.restore()  # whatever the user's code draws, it is the same for every coalition
            # A copy each time, since the user's code may change its batch in place.
            prediction, target = self._pair(features, coalition, copied(batch), target)
            measured.append(self._profit.measure(prediction, target))
        after.restore()
        if self._head is None:
            _compare(prediction, whole)
        statistics = tuple(torch.stack(parts) for parts in zip(*measured, strict=True))
        self._check_finite(statistics, number)
        before = folds[number % FOLDS]
        _check_alike(statistics, next((fold for fold in folds if fold is not None), statistics))
        folds[number % FOLDS] = statistics if before is None else self._profit.merge(before, statistics)

    def _pair(self, features: Features, coalition: frozenset[str], batch: Any, target: Any) -> tuple[Tensor, Any]:  # noqa: ANN401
        """The prediction from a coalition, and the target."""
        if self._head is not None:
            prediction: Any = self._head(features.of(coalition))
        else:
            with features.replayed(coalition):
                prediction, target = predict(self._step, self._model, batch)
        return check_prediction(prediction), target

    def _check_finite(self, statistics: Statistics, batch: int) -> None:
        finite = torch.stack([part.isfinite().reshape(len(part), -1).all(1) for part in statistics]).all(0).tolist()
        if not all(finite):
            coalition = self._coalitions[finite.index(False)]
            raise ValueError(
                f"Predictions, targets and profits should be finite. In batch {batch}, predicting from "
                f"{', '.join(sorted(coalition)) or 'no modality'}, one is nan or infinite. "
                "Look for the cause in the inputs, the target or the parameters."
            )

    def _summary(self, folds: Folds) -> Contributions:
        """Of all processes: a fold holds the batches of one turn in each of them."""
        own = {number: fold for number, fold in enumerate(folds) if fold is not None}
        filled = list(self._processes.merged(own, self._profit.merge).values())
        profits = self._profit.value(reduce(self._profit.merge, filled))
        values = shapley_values(profits)
        low, high = self._interval(filled, _mean(values))
        modalities = list(self._encoders)
        return Contributions(
            values_by_modality=dict(zip(modalities, _mean(values).tolist(), strict=True)),
            per_output=dict(zip(modalities, values.cpu(), strict=True)),
            intervals=None
            if len(filled) < 2
            else dict(zip(modalities, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
            profits=dict(zip(self._coalitions, _mean(profits).tolist(), strict=True)),
        )

    def _interval(self, folds: list[Statistics], values: Tensor) -> tuple[Tensor, Tensor]:
        """The delete-one jackknife over folds. Efron and Tibshirani (1993), "An introduction to the bootstrap", 11."""
        count = len(folds)
        if count < 2:
            return values, values
        without = [
            _mean(shapley_values(self._profit.value(reduce(self._profit.merge, folds[:i] + folds[i + 1 :]))))
            for i in range(count)
        ]
        error = ((count - 1) * torch.stack(without).var(0, correction=0)).sqrt()
        margin = float(stdtrit(count - 1, 0.975)) * error
        return values - margin, values + margin


def _mean(values: Tensor) -> Tensor:
    """Over output coordinates."""
    return values.reshape(len(values), -1).mean(1)


def _compare(again: Tensor, whole: Tensor) -> None:
    """Warn if the model, run again with all of its own features, does not give its own prediction."""
    if again.shape == whole.shape:
        again, whole = (
            prediction.to(torch.promote_types(prediction.dtype, torch.float32)) for prediction in (again, whole)
        )
        difference, size = torch.linalg.vector_norm(again - whole), torch.linalg.vector_norm(whole)
        if not difference > 0.01 * size:  # also where they are not finite, which is refused elsewhere
            return
    warnings.warn(
        "Run again with all features, the model does not give its own prediction, so that contributions may be wrong. "
        "Something reaches the prediction beside the features: an input that an encoder changes in place, an "
        "attribute that an encoder sets. Give the part after the encoders as head=.",
        stacklevel=2,
    )


def _check_alike(statistics: Statistics, earlier: Statistics) -> None:
    shape, before = tuple(statistics[-1].shape[1:]), tuple(earlier[-1].shape[1:])
    if shape != before:
        raise ValueError(
            f"The outputs of all batches should have one shape. Got {shape} after {before}. "
            "Pad them, or reduce them in a profit of your own."
        )
