"""Calibration slopes of a model's modalities, measured on batches: `Calibration`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from awc_balance.batches import STEP_REMEDY, Progress, Step, default_step, iterate
from awc_balance.calibration.fit import Fit
from awc_balance.calibration.logistic import LogisticFit
from awc_balance.calibration.parts import MOST_SHARED, Parts, Split, by_coalition, by_modality, split_prediction
from awc_balance.calibration.refit import Refit
from awc_balance.calibration.slopes import Slopes, slopes_of
from awc_balance.calibration.squared import SquaredFit
from awc_balance.checks import check_callable, check_choice
from awc_balance.contributions.features import Feature, Features
from awc_balance.contributions.runs import BatchRun, Measured, Runner, run_batch
from awc_balance.contributions.shapley import refuse_too_many
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.preserve import measuring
from awc_balance.processes import Processes, ProcessGroup
from awc_balance.replicas import share_model
from awc_balance.sharded import refuse_sharded
from awc_balance.wording import listed

CalibrationLoss: TypeAlias = Literal["auto", "squared", "cross_entropy", "binary_cross_entropy"]


class Calibration:
    """Whether each modality's part of the prediction is trusted as it deserves.

    The prediction is split into one part per modality, q_m, the Shapley value of the function from a coalition to its
    prediction (encoders run once, absent features are zeros), so that f = f(empty) + sum_m q_m. On some samples the
    factors g_m are found at which the loss of f(empty) + sum_m g_m q_m is smallest. The slope of a modality is g_m
    over the one factor that is best for the whole prediction. Where a modality fits noise, its part is larger than
    held-out samples bear out, and its slope there is below 1, though it is 1 on the samples trained on. The factor is
    the calibration slope of statistics (Cox 1958, "Two further applications of a model for binary regression",
    Biometrika 45; van Houwelingen and le Cessie 1990, "Predictive value of statistical models", Statistics in
    Medicine 9), here by modality.

    Slopes have no unit: they are the same for losses in metres and in millimetres. The model is measured in
    evaluation mode and left exactly as it was.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality, 1 to 16 of them; see `ShapleyContribution`.
        loss: "squared": squared error, with a free constant in every output; "cross_entropy" of logits
            `[batch, classes, ...]`; "binary_cross_entropy" of logits. "auto": cross-entropy where targets are
            integers, squared error otherwise. It need not be the loss that is trained with.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch. The default takes a pair
            (inputs, target) and calls `model(inputs)`.
        head: See `ShapleyContribution`.
        process_group: Which processes measure together; see `ShapleyContribution`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If encoders share parameters or are not part of the model, there are too many, or a loss is
            unknown.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> calibration = Calibration(model, {"a": model["a"], "b": model["b"]}, step=step)
        >>> slopes = calibration.evaluate([(torch.randn(8, 3), torch.randn(8, 2), torch.randn(8, 1))])
        >>> sorted(slopes)
        ['a', 'b']
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        loss: CalibrationLoss = "auto",
        *,
        step: Step | None = None,
        head: Callable[[dict[str, Feature]], Tensor] | None = None,
        process_group: ProcessGroup = "auto",
    ) -> None:
        """See the class."""
        self.processes = Processes(model, process_group)
        model = check_model(model)
        encoders = check_encoders(encoders, model)
        refuse_too_many(len(encoders))
        check_choice("loss", loss, get_args(CalibrationLoss))
        self._loss = loss
        step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
        head = None if head is None else check_callable("head", head, "Pass a function of the features.")
        self.measured = Measured(model, encoders, step, head)
        Features(encoders)  # refuses encoders inside one another

    def evaluate(self, loader: Iterable[Any], *, costs: bool = True, progress: Progress | None = None) -> Slopes:
        """The slopes over a loader.

        Args:
            loader: The batches; samples that follow one another are left out together for the intervals.
            costs: Whether to find what is lost without each modality as well, and what it could tell beyond what is
                predicted. That takes at most 6 modalities, 40 samples, and predictions of up to 1024 numbers a sample
                that are not maps of classes; it stays empty elsewhere.
            progress: A wrapper that shows progress, such as `tqdm.tqdm`.

        Raises:
            RuntimeError: If an encoder does not run.
            TypeError: If the prediction is not a tensor, or a feature holds none.
            ValueError: If the loader is empty, prediction and target do not fit, or one is not finite.
        """
        model, encoders, step, head = self.measured
        costs = costs and len(encoders) <= MOST_SHARED
        split = (by_coalition if costs else by_modality)(len(encoders))
        refit = Refit() if costs else None
        refuse_sharded(model, "Calibration slopes", "Measure a copy that is whole.")
        with measuring(model, head, step, loader=loader), torch.no_grad():
            share_model(model, self.processes)
            fit = self.processes.attempt(lambda: self._fit(loader, split, refit, progress)).over(self.processes)
        worth = None if refit is None else refit.over(self.processes).worth(fit, split.owners, list(encoders))
        return slopes_of(fit, split.owners, list(encoders), worth)

    __call__ = evaluate

    def _fit(self, loader: Iterable[Any], split: Split, refit: Refit | None, progress: Progress | None) -> Fit:
        samples = self._samples(loader, split, progress, features=refit is not None)
        fit = _first_fit(self._loss, next(samples), refit)
        for sampled in samples:
            _add(sampled, fit, refit)
        return fit

    def _samples(
        self, loader: Iterable[Any], split: Split, progress: Progress | None, *, features: bool
    ) -> Iterator[Sampled]:
        """What is known of every batch; of one at least, for `iterate` refuses an empty loader."""
        runner = Runner(together=True)
        for number, batch in enumerate(iterate(loader, progress)):

            def measure(run: BatchRun, number: int = number) -> tuple[Sampled, Tensor]:
                parts = split_prediction(run, runner, split, number)
                finite = bool(parts.base.isfinite().all() and parts.parts.isfinite().all())
                rows = tuple(run.rows().values()) if features or not finite else ()
                return Sampled(parts, run.target, rows, finite), parts.whole.to(run.prediction.dtype)

            sampled = run_batch(self.measured, batch, measure)
            _check(sampled, self.measured.encoders, number)
            yield sampled


class Sampled(NamedTuple):
    """What is known of a batch."""

    parts: Parts
    target: Any
    features: tuple[Tensor, ...]
    """By modality, one row per sample; empty if they are not wanted and all predictions are finite."""
    finite: bool
    """Whether predictions are, those of coalitions too."""


def _first_fit(loss: CalibrationLoss, sampled: Sampled, refit: Refit | None) -> Fit:
    """The fit of the first batch, whose target says what kind of loss there is where that is open."""
    squared = loss == "squared" or (loss == "auto" and sampled.target.is_floating_point())
    fit = SquaredFit() if squared else LogisticFit(classes=loss != "binary_cross_entropy")
    _add(sampled, fit, refit)
    return fit


def _add(sampled: Sampled, fit: Fit, refit: Refit | None) -> None:
    fit.add(sampled.parts, sampled.target)
    if refit is not None:
        refit.add(sampled.parts, sampled.target, sampled.features, fit.kind)


def _check(sampled: Sampled, modalities: Iterable[str], number: int) -> None:
    """Refuse what no factor can be found for."""
    target = sampled.target
    if not isinstance(target, Tensor):
        raise TypeError(
            f"A target should be a tensor. Got {type(target).__name__}. Let `step` return the one of the prediction."
        )
    if sampled.finite and target.isfinite().all():
        return
    bad = [m for m, rows in zip(modalities, sampled.features, strict=False) if not rows.isfinite().all()]
    what = f"the features of {listed(bad)}" if bad else "the target" if sampled.finite else "the prediction"
    raise ValueError(
        f"Predictions and targets should be finite. In batch {number} one is nan or infinite: {what}. "
        "Look for the cause in the inputs, the target or the parameters."
    )
