"""The feature of a modality as one row per sample, which heads of single modalities take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from awc_balance.contributions.features import Feature, pooled

Pool: TypeAlias = Mapping[str, Callable[[Any], Tensor]]
"""By modality, from its feature to `[batch, width]`; modalities that are not named are pooled by the default."""


def row_of(encoder: nn.Module, feature: Feature, samples: int) -> Tensor:
    """The default pooling: `pooled`, of recurrent layers their outputs alone, whatever the size of the batch.

    The states of a recurrent layer, `[layers, batch, width]`, look like tokens where there are as many layers as
    samples, and so do outputs `[tokens, batch, width]` where there are as many tokens.
    """
    layer = encoder
    while isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[-1]
    if isinstance(layer, nn.RNNBase) and isinstance(feature, tuple) and _is_padded(feature[0]):
        feature = feature[0] if layer.batch_first else feature[0].transpose(0, 1)
    return pooled(feature, samples)


def row_by(pool: Callable[[Any], Tensor], modality: str, feature: Feature, samples: int) -> Tensor:
    """The row that the user's function makes of a feature.

    Raises:
        ValueError: If it is not `[samples, width]`.
    """
    row = pool(feature)
    if not isinstance(row, Tensor) or row.dim() != 2 or len(row) != samples:
        got = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
        raise ValueError(
            f"`pool` should make a row [{samples}, width] of a feature. Got {got} for `{modality}`. "
            "Pass a function such as lambda feature: feature.mean(2)."
        )
    return row


def check_pool(pool: Pool | None, modalities: Iterable[str]) -> Pool:
    """The functions by modality.

    Raises:
        TypeError: If it is not a mapping to functions.
        ValueError: If a modality is unknown.
    """
    if pool is None:
        return {}
    if not isinstance(pool, Mapping) or not all(callable(function) for function in pool.values()):
        raise TypeError(
            f"`pool` should be a mapping from modality to function. Got {pool!r}. "
            "Pass one such as {'imu': lambda feature: feature.mean(2)}."
        )
    known = list(modalities)
    unknown = [str(modality) for modality in pool if modality not in known]
    if unknown:
        raise ValueError(f"`pool` should name modalities, {', '.join(known)}. Got {', '.join(unknown)}. Rename them.")
    return dict(pool)


def _is_padded(outputs: Any) -> bool:  # noqa: ANN401
    return isinstance(outputs, Tensor) and outputs.dim() == 3
