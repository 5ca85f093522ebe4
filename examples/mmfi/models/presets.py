"""Named widths: `paper`, with the published totals; `small`, for two CPU cores; `tiny`, to try things in seconds."""

from __future__ import annotations

from collections.abc import Collection

from examples.mmfi.models.fusion import FusionConfig
from examples.mmfi.models.hpe_li import HPELiConfig
from examples.mmfi.models.metafi import MetaFiConfig
from examples.mmfi.models.model import METAFI, MODALITIES, ModelConfig, PoseModel
from examples.mmfi.models.point_transformer import PointTransformerConfig
from examples.mmfi.models.videopose import VideoPoseConfig
from examples.mmfi.models.x_fi import XFiConfig

SMALL = ModelConfig(
    features=64,
    rgb=VideoPoseConfig(channels=128, hidden=64),
    lidar=PointTransformerConfig(columns=3, widths=(16, 32, 64), neighbours=(8, 8, 8), hidden=64),
    mmwave=PointTransformerConfig(columns=5, widths=(16, 32, 64), neighbours=(8, 8, 8), hidden=64),
    wifi=MetaFiConfig(image=(68, 16), widths=(8, 16, 32, 64), blocks=(1, 1, 1, 1)),
    hpe_li=HPELiConfig(widths=(16, 32)),
    fusion=FusionConfig(
        hidden=(128, 64, 64),
        layers=2,
        heads=4,
        feedforward=128,
        x_fi=XFiConfig(tokens=4, width=64, rounds=2, heads=4, feedforward=128),
    ),
)

TINY = ModelConfig(
    features=8,
    rgb=VideoPoseConfig(channels=8, hidden=8),
    lidar=PointTransformerConfig(columns=3, widths=(8, 16), neighbours=(4, 4), hidden=8),
    mmwave=PointTransformerConfig(columns=5, widths=(8, 16), neighbours=(4, 4), hidden=8),
    wifi=MetaFiConfig(image=(34, 8), widths=(4, 8), blocks=(1, 1)),
    hpe_li=HPELiConfig(widths=(4, 8)),
    fusion=FusionConfig(
        hidden=(16, 8, 8),
        layers=1,
        heads=2,
        feedforward=16,
        x_fi=XFiConfig(tokens=2, width=8, rounds=1, heads=2, feedforward=16),
    ),
)

PRESETS = {"paper": ModelConfig(), "small": SMALL, "tiny": TINY}


def build_model(
    modalities: Collection[str] = MODALITIES,
    fusion: str = "concat",
    preset: str = "paper",
    wifi_encoder: str = METAFI,
) -> PoseModel:
    """Build the model of a preset.

    Example:
        >>> model = build_model(["rgb", "lidar"], fusion="mlp", preset="small")
        >>> list(model.encoders)
        ['rgb', 'lidar']

    Args:
        modalities: Some of `MODALITIES`.
        fusion: "concat", "mlp" or "attention", `FUSIONS` of the AWC paper; "decision", of the MM-Fi baseline;
            "x-fi", of X-Fi.
        preset: One of `PRESETS`: "paper", "small" or "tiny".
        wifi_encoder: "metafi", or "hpe-li", the light one of HPE-Li.

    Raises:
        ValueError: If a name is unknown, or there is no modality.
    """
    if preset not in PRESETS:
        raise ValueError(f"`preset` should be one of {list(PRESETS)}. Got {preset!r}.")
    return PoseModel(modalities, fusion, PRESETS[preset], wifi_encoder)
