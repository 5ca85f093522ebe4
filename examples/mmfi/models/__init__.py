"""Encoders, fusions and presets of the MM-Fi experiment, in plain PyTorch."""

from examples.mmfi.models.fusion import ALL_FUSIONS, DECISION, FUSIONS, X_FI
from examples.mmfi.models.model import HPE_LI, METAFI, MODALITIES, WIFI_ENCODERS, ModelConfig, PoseModel, pose_head
from examples.mmfi.models.presets import PRESETS, build_model

__all__ = [
    "ALL_FUSIONS",
    "DECISION",
    "FUSIONS",
    "HPE_LI",
    "METAFI",
    "MODALITIES",
    "PRESETS",
    "WIFI_ENCODERS",
    "X_FI",
    "ModelConfig",
    "PoseModel",
    "build_model",
    "pose_head",
]
