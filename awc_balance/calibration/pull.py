"""The pull of the calibration rule, towards features of no size: `pull_to_zero`."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor, nn

from awc_balance.encoders import parameters_by_modality


def pull_to_zero(
    encoders: Mapping[str, nn.Module],
    diagonal: Mapping[str, Mapping[str, Tensor]],
    elasticities: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, dict[str, Tensor]]:
    """The weight of the pull of every parameter to zero, in place of a Fisher diagonal.

    A parameter theta_k is pulled by s_m e_k |theta_k|^2: as far as the size of the features hangs on its size, with
    e_k its elasticity, cut to 0 and 1. What a normalisation follows is left alone. s_m makes the pull at strength 1 as
    strong as the gradients g of batches, s_m^2 = sum_k e_k |g_k|^2 / (4 sum_k e_k |theta_k|^2), so that the training is
    the same in any unit of the loss.

    Args:
        encoders: By modality.
        diagonal: Mean squares of the gradients of batches, in the shape of the parameters.
        elasticities: See `calibration.elasticity`.
    """
    weights = {}
    for modality, named in parameters_by_modality(encoders).items():
        shares = {name: elasticities[modality][name].item() for name in named}
        shares = {name: min(1.0, max(0.0, share)) for name, share in shares.items()}
        gradient = sum(share * diagonal[modality][name].double().sum().item() for name, share in shares.items())
        size = sum(share * named[name].detach().abs().double().square().sum().item() for name, share in shares.items())
        strength = sqrt(gradient / size) / 2 if size > 0 else 0.0
        weights[modality] = {
            name: torch.full_like(parameter.detach().real, strength * shares[name]) for name, parameter in named.items()
        }
    return weights
