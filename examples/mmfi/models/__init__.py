"""Encoders, fusions and presets of the MM-Fi experiment, in plain PyTorch."""

from examples.mmfi.models.fusion import FUSIONS
from examples.mmfi.models.model import MODALITIES, ModelConfig, PoseModel
from examples.mmfi.models.presets import PRESETS, build_model

__all__ = ["FUSIONS", "MODALITIES", "PRESETS", "ModelConfig", "PoseModel", "build_model"]
