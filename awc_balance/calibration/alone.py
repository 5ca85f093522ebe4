"""What features add that were learned on one modality alone: `train_alone`, and `measure_alone` of trained ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awc_balance.batches import (
    STEP_REMEDY,
    Progress,
    Step,
    default_step,
    iterate,
    predict,
    refuse_iterator,
    refuse_same,
)
from awc_balance.calibration.calibration import Calibration, CalibrationLoss
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.refit import LEAST_SAMPLES, MOST_NUMBERS
from awc_balance.checks import check_callable, check_choice, check_count
from awc_balance.contributions.features import Features
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.preserve import RandomState, uncompiled
from awc_balance.sharded import refuse_sharded

OptimizerOf: TypeAlias = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer of parameters."""

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}


def train_alone(
    model: nn.Module,
    encoders: Encoders,
    training: Iterable[Any],
    held_out: Iterable[Any],
    *,
    modalities: Iterable[str] | None = None,
    criterion: Callable[[Any, Any], Tensor] | None = None,
    loss: CalibrationLoss = "auto",
    epochs: int = 50,
    optimizer: OptimizerOf = torch.optim.Adam,
    step: Step | None = None,
    progress: Progress | None = None,
) -> dict[str, Estimate]:
    """Train a copy of the model on each modality alone, and measure what that would add: for `verdict(..., alone=...)`.

    A modality that is learned slowly while another carries the prediction is starved: it could tell more than it was
    made to tell (Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022). In the
    trained model it may look like noise. So it is trained once without the others, whose features are zeros meanwhile,
    as where they are absent from a coalition. That costs so many epochs of training for each.

    Copies go on from the parameters that the model has, and frozen ones stay frozen. The model itself, its gradients
    and the random state stay as they are.

    Args:
        model: The trained model.
        encoders: The part of the model that belongs to each modality.
        training: Training batches, which are read once per epoch.
        held_out: Batches that no model is trained on: those that `verdict` gets slopes of. 40 samples or more.
        modalities: Of whom, one after the other; None: of all. Those in doubt will do.
        criterion: `criterion(prediction, target)`, the loss that is trained with; None: that of `loss`, squared errors
            over the mean square of the first targets, so that small units do not make gradients vanish.
        loss: See `Calibration`.
        epochs: Of each training. The last one is measured, not the best, which held-out data would have to choose.
        optimizer: From a list of parameters to an optimizer; by default Adam as it is.
        step: See `Calibration`.
        progress: A wrapper that shows progress over epochs, such as `tqdm.tqdm`.

    Returns:
        By modality, the share by which the squared error that the model leaves on held-out data would fall with
        features that were learned on that modality alone, beside all of its own: 0.3 is 30 %. For classes errors are
        those of probabilities. What a copy has not learned in so many epochs adds nothing.

    Raises:
        RuntimeError: If the model cannot be copied.
        TypeError: If an argument is of the wrong kind.
        ValueError: If a modality is unknown, a loader is empty or can be read only once, there are too few held-out
            samples or nothing to train, or the loss of a training is not finite.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     a, b, target = batch
        ...     return model["head"](model["a"](a) + model["b"](b)), target
        >>> encoders = {"a": model["a"], "b": model["b"]}
        >>> training, held_out = ([[torch.randn(50, 3), torch.randn(50, 2), torch.randn(50, 1)]] for _ in range(2))
        >>> alone = train_alone(model, encoders, training, held_out, epochs=2, step=step)
        >>> list(alone)
        ['a', 'b']
    """
    model = check_model(model)
    encoders = check_encoders(encoders, model)
    wanted = _check_modalities(modalities, encoders)
    check_count("epochs", epochs, 1)
    check_choice("loss", loss, get_args(CalibrationLoss))
    check_callable("optimizer", optimizer, "Pass a function of a list of parameters, such as torch.optim.Adam.")
    if criterion is not None:
        check_callable("criterion", criterion, "Pass the loss function of your training.")
    step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
    refuse_iterator("training", training)
    refuse_iterator("held_out", held_out)
    refuse_same(held_out, training)
    refuse_sharded(model, "Training on one modality alone", "Pass a copy that is whole.")
    train = _Training(training, criterion or _Criterion(loss), epochs, optimizer, step, progress)
    found: dict[str, Estimate] = {}
    for modality in wanted:
        state = RandomState(training)
        try:
            with uncompiled(), torch.inference_mode(False), torch.enable_grad():
                apart, of_apart = _copied(model, encoders)
                with Features(of_apart).only({modality}):
                    pair = apart, of_apart[modality]
                    if not found:  # what cannot be measured fails before the work
                        _added(model, encoders, modality, pair, held_out, loss, step)
                    apart.train()
                    train(apart, modality)
                    found[modality] = _added(model, encoders, modality, pair, held_out, loss, step)
        finally:
            state.restore()
    return found


def measure_alone(
    model: nn.Module,
    encoders: Encoders,
    alone: Mapping[str, tuple[nn.Module, nn.Module]],
    held_out: Iterable[Any],
    *,
    loss: CalibrationLoss = "auto",
    step: Step | None = None,
) -> dict[str, Estimate]:
    """What models that you trained on one modality alone would add to a model: for `verdict(..., alone=...)`.

    Args:
        model: The trained model of all modalities.
        encoders: The part of it that belongs to each modality.
        alone: By modality, a model that was trained on it alone, and the encoder in that model.
        held_out: Batches that no model is trained on, 40 samples or more.
        loss: See `Calibration`.
        step: See `Calibration`; called with each of the models.

    Returns:
        As `train_alone`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a modality is unknown, a model is not one of its own, or the loader is empty or holds too few
            samples.

    Example:
        >>> model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> only_b = nn.ModuleDict({"b": nn.Linear(2, 4), "head": nn.Linear(4, 1)})
        >>> def step(model, batch):
        ...     inputs, target = batch
        ...     return model["head"](sum(model[m](x) for m, x in inputs.items() if m in model)), target
        >>> held_out = [({"a": torch.randn(50, 3), "b": torch.randn(50, 2)}, torch.randn(50, 1))]
        >>> encoders = {"a": model["a"], "b": model["b"]}
        >>> found = measure_alone(model, encoders, {"b": (only_b, only_b["b"])}, held_out, step=step)
        >>> found["b"].high < 1
        True
    """
    model = check_model(model)
    encoders = check_encoders(encoders, model)
    _check_modalities(alone, encoders)
    step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
    own = {id(parameter) for parameter in model.parameters()}
    for modality, pair in alone.items():
        if not isinstance(pair, tuple) or [isinstance(one, nn.Module) for one in pair] != [True, True]:
            raise TypeError(
                f"`alone` should hold pairs (model, encoder). Got {type(pair).__name__} for `{modality}`. Pass "
                f"{{{modality!r}: (model_of_one, model_of_one.encoder)}}."
            )
        if own & {id(parameter) for parameter in pair[0].parameters()}:
            raise ValueError(
                f"`alone` should hold models of their own. Got one for `{modality}` that shares parameters with the "
                "model. Pass one that was trained on this modality alone."
            )
    return {m: _added(model, encoders, m, pair, held_out, loss, step) for m, pair in alone.items()}


class _Training:
    """How a copy is trained."""

    def __init__(
        self,
        loader: Iterable[Any],
        criterion: Callable[[Any, Any], Tensor],
        epochs: int,
        optimizer: OptimizerOf,
        step: Step,
        progress: Progress | None,
    ) -> None:
        self._loader, self._criterion, self._epochs, self._step = loader, criterion, epochs, step
        self._optimizer, self._progress = optimizer, progress

    def __call__(self, model: nn.Module, modality: str) -> None:
        """Train all parameters that are not frozen."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("Some parameters should be trained. All of the model's are frozen. Unfreeze the head.")
        optimizer = self._optimizer(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"`optimizer` should make an optimizer. Got {type(optimizer).__name__}. Pass torch.optim.Adam, or "
                "lambda parameters: torch.optim.SGD(parameters, lr=0.1)."
            )
        for _ in iterate(range(self._epochs), self._progress):
            for batch in iterate(self._loader):
                optimizer.zero_grad()
                loss = self._criterion(*predict(self._step, model, batch))
                if loss.dim() or not loss.isfinite():
                    raise ValueError(
                        f"The loss should be one finite number. Trained on `{modality}` alone it is "
                        f"{loss.item() if not loss.dim() else tuple(loss.shape)}. Look at the criterion, or take "
                        "smaller steps, as by optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-4)."
                    )
                loss.backward()
                optimizer.step()


def _copied(model: nn.Module, encoders: dict[str, nn.Module]) -> tuple[nn.Module, dict[str, nn.Module]]:
    try:
        return copy.deepcopy((model, encoders))
    except Exception as error:  # of any kind: what a model holds is the user's
        raise RuntimeError(
            f"The model should be one that copy.deepcopy takes. It says: {error} Drop outputs that the model keeps as "
            "attributes; or train a model of one modality yourself, and pass it to measure_alone."
        ) from error


def _added(
    model: nn.Module,
    encoders: Mapping[str, nn.Module],
    modality: str,
    apart: tuple[nn.Module, nn.Module],
    held_out: Iterable[Any],
    loss: CalibrationLoss,
    step: Step,
) -> Estimate:
    """What the features of a model of one modality add to those of the model of all.

    That is what would be lost without them if they were one more modality of the model, of which the prediction makes
    no use.
    """

    def both(pair: nn.Module, batch: Any) -> tuple[Any, Any]:  # noqa: ANN401 - a batch can be anything
        of_all, of_one = pair.children()
        step(of_one, batch)
        return step(of_all, batch)

    whole, alone = "the model of all", f"{modality}, learned alone"
    parts = {whole: nn.ModuleList(encoders.values()), alone: apart[1]}
    pair = nn.ModuleList([model, apart[0]])
    found = Calibration(pair, parts, loss, step=both, process_group=None).evaluate(held_out)
    if not found.added:
        raise ValueError(
            f"`held_out` should hold {LEAST_SAMPLES} samples or more, with predictions of up to {MOST_NUMBERS} numbers "
            "each that are not maps of classes. Got fewer or larger ones. Pass more, or judge without `alone`."
        )
    return found.added[alone]


class _Criterion:
    """The loss of a name, of targets of any kind that `Calibration` takes.

    Squared errors are divided by the mean square of the first targets: where a unit makes gradients smaller than the
    constant in Adam's denominator nothing would be learned.
    """

    def __init__(self, loss: CalibrationLoss) -> None:
        self._loss = loss
        self._square: Tensor | None = None

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        kind = self._loss
        if kind == "auto":
            kind = "squared" if target.is_floating_point() else "cross_entropy"
        if kind != "squared":
            return _LOSSES[kind](prediction, target if kind == "cross_entropy" else target.to(prediction.dtype))
        target = target.to(prediction.dtype)
        if self._square is None:
            square = target.to(torch.promote_types(target.dtype, torch.float32)).square().mean()
            self._square = square if 0 < square < torch.inf else torch.ones_like(square)
        return F.mse_loss(prediction, target) / self._square


def _check_modalities(modalities: Iterable[str] | None, encoders: dict[str, nn.Module]) -> list[str]:
    if modalities is None:
        return list(encoders)
    wanted = [modalities] if isinstance(modalities, str) else list(modalities)
    unknown = [str(m) for m in wanted if m not in encoders]
    if unknown:
        raise ValueError(
            f"`modalities` should be some of {', '.join(encoders)}. Got {', '.join(unknown)}. Name some of them."
        )
    return wanted
