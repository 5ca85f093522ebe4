"""How much of what a modality could tell is lost in joint training: `CompetitionStrength`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from awc_balance.batches import Progress, Step, check_prediction, default_step, device_of, iterate, predict, to_device
from awc_balance.checks import check_alpha, check_by_modality
from awc_balance.contributions.features import Features, pooled
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.preserve import measuring, same_random_state

ALPHA = 120.0
"""The ridge penalty of the public code of AGM."""


class CompetitionStrength:
    """How far a modality's features in the joint model are from carrying what the modality alone can tell.

    After "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", ICCV 2023, arXiv 2308.07686. A
    model trained on modality m alone is its mono-modal concept c_m. A ridge regression is fitted, on one half of the
    samples, from the features of m in the joint model to the predictions of c_m. Our definition of the strength is
    the error on the other half as a share of the variance of these predictions,

    d_m = sum |c_m - ridge(z_m)|^2 / sum |c_m - mean c_m|^2,

    so that 0 means no competition (all that the concept knows can be read off the joint features by a linear map),
    and 1 that nothing of it can. It may exceed 1. Features are pooled to one row per sample and, like predictions,
    standardised on the first half. Beware: the ridge penalty alone keeps d_m above 0 where samples are few.

    Args:
        model: The joint model.
        encoders: The part of the joint model that belongs to each modality.
        concepts: For every modality a model trained on it alone, which `step` can run on the same batches.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch, for the joint model and for the
            concepts. The default takes a pair (inputs, target) and calls `model(inputs)`.
        alpha: The ridge penalty; the default is the authors'.
        seed: Of the split in halves, which leaves the global random state alone.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a concept is missing, or encoders share parameters or are not part of the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> loader = [(torch.randn(64, 3), torch.randn(64, 1)) for _ in range(8)]
        >>> strength = CompetitionStrength(model, {"table": model[0]}, {"table": nn.Linear(3, 1)}, alpha=0.1)
        >>> round(strength.evaluate(loader)["table"], 2)  # four linear features hold all that three inputs can say
        0.0
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        concepts: Mapping[str, nn.Module],
        *,
        step: Step | None = None,
        alpha: float = ALPHA,
        seed: int = 0,
    ) -> None:
        """See the class."""
        self._model = check_model(model)
        self._encoders = check_encoders(encoders, self._model)
        concepts = dict(concepts.items()) if isinstance(concepts, nn.ModuleDict) else concepts
        check_by_modality("concepts", concepts, self._encoders)
        self._concepts = {modality: check_model(concepts[modality]) for modality in self._encoders}
        self._step = step or default_step
        self.alpha = check_alpha("alpha", alpha)
        self.seed = seed

    def evaluate(self, loader: Iterable[Any], *, progress: Progress | None = None) -> dict[str, float]:
        """The competition strength of every modality; the models run in evaluation mode and are left as they were.

        Args:
            loader: The batches.
            progress: A wrapper that shows progress, such as `tqdm.tqdm`.

        Raises:
            RuntimeError: If an encoder does not run.
            TypeError: If a prediction is not a tensor, or a feature holds none.
            ValueError: If the loader is empty, there are fewer than 4 samples, or a number is not finite.
        """
        features: dict[str, list[Tensor]] = {modality: [] for modality in self._encoders}
        outputs: dict[str, list[Tensor]] = {modality: [] for modality in self._encoders}
        with measuring(self._model, *self._concepts.values(), loader=loader), torch.no_grad():
            for batch in iterate(loader, progress):
                for modality, row in self._rows(batch).items():
                    features[modality].append(row)
                for modality, concept in self._concepts.items():
                    outputs[modality].append(self._predict(concept, batch).flatten(1))
        return {
            modality: competition_strength(
                torch.cat(features[modality]), torch.cat(outputs[modality]), alpha=self.alpha, seed=self.seed
            )
            for modality in self._encoders
        }

    __call__ = evaluate

    def _rows(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """The pooled features of the joint model."""
        features = Features(self._encoders)
        with features.recorded():
            samples = len(self._predict(self._model, batch))
        return {modality: pooled(feature, samples) for modality, feature in features.of(self._encoders).items()}

    def _predict(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        if self._step is default_step:
            batch = to_device(batch, device_of(model))
        return check_prediction(predict(self._step, model, batch)[0])


def competition_strength(features: Tensor, concept: Tensor, *, alpha: float = ALPHA, seed: int = 0) -> float:
    """The competition strength of one modality, as `CompetitionStrength` defines it.

    Args:
        features: Of the modality in the joint model, `[samples, width]`.
        concept: What a model trained on the modality alone predicts, `[samples, outputs]`.
        alpha: The ridge penalty.
        seed: Of the split in halves.

    Returns:
        At least 0, which means no competition; 0 too where the concept predicts a constant, which tells nothing.

    Raises:
        ValueError: If there are fewer than 4 samples, their numbers differ, or a number is not finite.

    Example:
        >>> features = torch.randn(400, 5)
        >>> competition_strength(features, features @ torch.randn(5, 2), alpha=0.0) < 1e-6
        True
    """
    with same_random_state():
        from sklearn.linear_model import Ridge  # here, because its import takes about as long as torch's

    z, c = (value.detach().double().flatten(1).cpu().numpy() for value in (features, concept))
    if len(z) != len(c) or len(z) < 4:
        raise ValueError(
            f"Competition strength needs 4 samples or more, as many features as predictions. Got {len(z)} and "
            f"{len(c)}. Measure over a whole loader."
        )
    if not (np.isfinite(z).all() and np.isfinite(c).all()):
        raise ValueError("Features and predictions should be finite. Got nan or infinity. Look for it in the inputs.")
    order = np.random.default_rng(seed).permutation(len(z))
    fit, test = order[: len(z) // 2], order[len(z) // 2 :]
    if alpha > len(fit):
        warnings.warn(
            f"The ridge penalty {alpha:g} outweighs the {len(fit)} samples it is fitted to, so that competition "
            "strength is near 1 whatever the features hold. Measure over more samples, or pass a smaller alpha.",
            UserWarning,
            stacklevel=2,
        )
    z, c = _standardised(z, fit), _standardised(c, fit)
    missed = c[test] - Ridge(alpha).fit(z[fit], c[fit]).predict(z[test]).reshape(c[test].shape)
    spread = float(np.square(c[test] - c[test].mean(0)).sum())
    return float(np.square(missed).sum()) / spread if spread else 0.0


def _standardised(values: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """With mean 0 and deviation 1 over the rows `fit`; constant columns become 0."""
    centred = values - values[fit].mean(0)
    deviation = values[fit].std(0)
    # Equal inputs can leave a matrix product with different last bits, row by row.
    constant = deviation <= np.abs(values[fit]).max(0) * np.finfo(np.float32).eps
    standardised: np.ndarray = np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))
    return standardised
