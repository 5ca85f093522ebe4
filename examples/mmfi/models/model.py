"""The multi-modal model: an encoder per modality, a fusion, a pose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from examples.mmfi.models.fusion import FusionConfig, build_fusion
from examples.mmfi.models.hpe_li import HPELi, HPELiConfig
from examples.mmfi.models.layers import FullPrecisionLinear
from examples.mmfi.models.metafi import MetaFi, MetaFiConfig
from examples.mmfi.models.point_transformer import PointTransformer, PointTransformerConfig
from examples.mmfi.models.videopose import VideoPose, VideoPoseConfig

MODALITIES = ("rgb", "lidar", "mmwave", "wifi")
JOINTS = 17  # Human3.6M
METAFI, HPE_LI = "metafi", "hpe-li"
WIFI_ENCODERS = (METAFI, HPE_LI)


@dataclass(frozen=True)
class ModelConfig:
    """Widths of a `PoseModel`; the defaults are the `paper` preset's.

    Attributes:
        features: Width of each modality's feature.
        rgb: Widths of the encoder of 2D keypoints.
        lidar: Widths of the encoder of LiDAR points.
        mmwave: Widths of the encoder of radar points.
        wifi: Widths of the encoder of channel state information.
        hpe_li: Widths of the light one.
        fusion: Widths of the fusions.
    """

    features: int = 256  # solved from the published totals
    rgb: VideoPoseConfig = field(default_factory=VideoPoseConfig)
    lidar: PointTransformerConfig = field(default_factory=PointTransformerConfig)
    mmwave: PointTransformerConfig = field(default_factory=lambda: PointTransformerConfig(columns=5))
    wifi: MetaFiConfig = field(default_factory=MetaFiConfig)
    hpe_li: HPELiConfig = field(default_factory=HPELiConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)


class PoseModel(nn.Module):
    """Sensor readings of some modalities to a 3D pose.

    Attributes:
        encoders: One encoder per modality, by name; a feature `[batch, features]` each.
        fusion: What turns the features, `[batch, modalities, features]`, into a pose.
        features: Width of each modality's feature.
    """

    def __init__(
        self, modalities: Collection[str], fusion: str, config: ModelConfig, wifi_encoder: str = METAFI
    ) -> None:
        """Build a model.

        Args:
            modalities: Some of `MODALITIES`; the order does not matter.
            fusion: One of `ALL_FUSIONS`.
            config: The widths.
            wifi_encoder: One of `WIFI_ENCODERS`.

        Raises:
            ValueError: If there is no modality, or an unknown modality, fusion or encoder.
        """
        super().__init__()
        _check_modalities(modalities)
        # One order whatever the caller's, so that a checkpoint's columns keep their meaning.
        names = [name for name in MODALITIES if name in modalities]
        build = _encoder_builders(config, wifi_encoder)
        self.features = config.features
        self.encoders = nn.ModuleDict({name: build[name]() for name in names})
        self.fusion = build_fusion(fusion, config.fusion, len(names), config.features, 3 * JOINTS)

    def forward(self, inputs: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> Tensor:
        """Predict poses.

        Args:
            inputs: Of each modality, what its encoder takes: `rgb` `[batch, window, 17, 2]`; `lidar` and
                `mmwave` a pair of points `[batch, points, 3 or 5]` and mask `[batch, points]`; `wifi`
                `[batch, antennas, subcarriers, packets]`. Modalities that the model does not have are
                not read.

        Returns:
            Absolute joint positions, `[batch, 17, 3]`, in the unit of the training targets. Under autocast,
            too, in the precision of the weights. From decision-level fusion in training, several such predictions,
            `[modalities + 1, batch, 17, 3]`.

        Raises:
            ValueError: If a modality of the model is missing.
        """
        coordinates: Tensor = self.fusion(self.encode(inputs))
        return coordinates.reshape(*coordinates.shape[:-1], JOINTS, 3)

    def encode(self, inputs: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> Tensor:
        """Features of all modalities, `[batch, modalities, features]`, from what `forward` takes."""
        missing = [name for name in self.encoders if name not in inputs]
        if missing:
            raise ValueError(
                f"`inputs` should have every modality of the model, {list(self.encoders)}. Got no {missing}. "
                "Build a model without them, or zero their features to see it without them."
            )
        return torch.stack([_encode(encoder, inputs[name]) for name, encoder in self.encoders.items()], dim=1)


def _encode(encoder: nn.Module, reading: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    feature: Tensor = encoder(reading) if isinstance(reading, Tensor) else encoder(*reading)
    return feature


def pose_head(features: int) -> nn.Module:
    """A linear layer from a feature `[batch, features]` to a pose `[batch, 17, 3]`, in the precision of its weights."""
    return nn.Sequential(FullPrecisionLinear(features, 3 * JOINTS), nn.Unflatten(1, (JOINTS, 3)))


def _encoder_builders(config: ModelConfig, wifi_encoder: str) -> dict[str, Callable[[], nn.Module]]:
    if wifi_encoder not in WIFI_ENCODERS:
        raise ValueError(f"`wifi_encoder` should be one of {list(WIFI_ENCODERS)}. Got {wifi_encoder!r}.")
    light = wifi_encoder == HPE_LI
    return {
        "rgb": lambda: VideoPose(config.rgb, config.features),
        "lidar": lambda: PointTransformer(config.lidar, config.features),
        "mmwave": lambda: PointTransformer(config.mmwave, config.features),
        "wifi": lambda: HPELi(config.hpe_li, config.features) if light else MetaFi(config.wifi, config.features),
    }


def _check_modalities(modalities: Collection[str]) -> None:
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown or not modalities or isinstance(modalities, str):
        raise ValueError(
            f"`modalities` should name at least one of {list(MODALITIES)}. Got {modalities!r}. "
            'Pass a list such as ["rgb", "wifi"].'
        )
