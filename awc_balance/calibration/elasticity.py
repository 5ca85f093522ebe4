"""How far the size of an encoder's features hangs on the size of each of its parameters: `elasticities`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.batches import Step, check_prediction, default_step, device_of, predict, to_device
from awc_balance.contributions.features import Feature, Features, numbers_of
from awc_balance.encoders import parameters_by_modality
from awc_balance.nested import copied
from awc_balance.preserve import measuring

Elasticities: TypeAlias = dict[str, dict[str, Tensor]]
"""By modality and name of the parameter, a scalar each."""


def elasticities(model: nn.Module, encoders: Mapping[str, nn.Module], step: Step, batch: Any) -> Elasticities:  # noqa: ANN401
    """By modality and parameter, d log(spread of the features) / d log(size of the parameter), on one batch.

    The spread is the root of the sum of squares about the mean over samples. By Euler's theorem the elasticity is
    <d spread / d theta, theta> / spread, so that one backward pass gives all. It is 1 for the weights of a last linear
    layer, about 1 for each layer of a network of ReLUs, and 0 where a normalisation follows: if such weights shrink,
    features stay as they are, and only the steps that are taken become longer (van Laarhoven 2017, "L2 regularization
    versus batch and weight normalization").

    Encoders run in training mode, in which alone batch normalisation depends on the batch, and the rest of the model as
    it is measured elsewhere, in evaluation mode; all is left as it was.

    Args:
        model: Any module.
        encoders: By modality.
        step: How to read a batch.
        batch: Of at least two samples.
    """
    batch = copied(to_device(batch, device_of(model)) if step is default_step else batch)
    features = Features(encoders, keep_gradient=True)
    with measuring(model, step), torch.enable_grad():
        for module in (module for encoder in encoders.values() for module in encoder.modules()):
            module.training = True
        with features.recorded():
            samples = len(check_prediction(predict(step, model, batch)[0]))
        found = features.of(encoders)
        return {
            modality: _of_each(_spread(found[modality], samples), named)
            for modality, named in parameters_by_modality(encoders).items()
        }


def _spread(feature: Feature, samples: int) -> Tensor:
    """The sum of squares of a feature's numbers about their mean over the samples."""
    away = [x - x.mean(0) if x.dim() and len(x) == samples else x for x in numbers_of(feature)]
    return torch.stack([x.abs().double().square().sum() for x in away]).sum()


def _of_each(spread: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of every parameter; 0 for those that are frozen, and for all where there is no spread."""
    found = {name: torch.zeros((), dtype=torch.float64, device=p.device) for name, p in parameters.items()}
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    if spread.requires_grad and spread > 0:
        gradients = torch.autograd.grad(spread, list(trained.values()), retain_graph=True, allow_unused=True)
        for (name, parameter), gradient in zip(trained.items(), gradients, strict=True):
            if gradient is not None:
                found[name] = (gradient.conj() * parameter.detach()).real.double().sum() / (2 * spread.detach())
    return found
