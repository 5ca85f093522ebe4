"""What a training run is (`Settings`) and what it runs on (`Resources`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from examples.mmfi.conventions import MODALITIES
from examples.mmfi.models import ALL_FUSIONS, DECISION, PRESETS, WIFI_ENCODERS
from examples.mmfi.protocols import PROTOCOLS, SPLITS

PRECISIONS = ("float32", "bfloat16", "float16")
PLAIN, AWC, MODALITY_LEVEL = "plain", "AWC", "Modality-level"
METHODS = (
    PLAIN, AWC, "G-Blending", "OGM-GE", "AGM", MODALITY_LEVEL, "Sample-level", "MMPareto", "InfoReg",
)  # fmt: skip
"""Balancing methods, by the names in the paper's Table 1 where it has them; see `examples.mmfi.methods`."""
PAPER_AWC = {"alpha_superior": 20_000.0, "alpha_inferior": 10_000.0, "window": 20}  # paper, best pair and window


@dataclass(frozen=True)
class Settings:
    """A training run, by plain values that JSON can hold; the defaults are the paper's unless said otherwise.

    Attributes:
        name: Of the run, in tables.
        data: Folder that `pack` wrote.
        seed: Of the initial weights, the order of frames, the choice of points and the held-out clips.
        protocol: `P1`, `P2` or `P3`.
        split: `S1`, `S2` or `S3`.
        modalities: The inputs, in any order.
        fusion: One of `models.ALL_FUSIONS`.
        wifi_encoder: One of `models.WIFI_ENCODERS`.
        preset: One of `models.PRESETS`.
        method: Balancing method, one of `METHODS`.
        method_options: Arguments of its class in `awc_balance.balancers`, such as `PAPER_AWC`.
        method_frames: Training frames, drawn anew every epoch, that the method measures on at the start of an
            epoch, if it does, in whole batches; None for all.
        epochs: Passes over the training frames.
        batch_size: Frames of an optimizer step, over all processes and parts.
        accumulation: Parts that a process reads its share of a batch in, to save memory.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        drop_every: Epochs after which the learning rate drops to a tenth.
        held_out: Share of the training clips set aside to choose the epoch by.
        precision: Of the arithmetic of the model: `float32`, or autocast to `bfloat16` or `float16`.
        lidar_points: Points that a LiDAR frame is sampled to; None pads to the largest frame of the batch.
        mmwave_points: The same for radar.
        every: Of each clip the first frame and every so manieth after it are used; 1 for all.
        measured_frames: Held-out frames that contributions are measured on after every epoch, and test frames
            that the spread of predictions is measured on.

    Raises:
        ValueError: If a value is none that a run can have.
    """

    name: str
    data: str
    seed: int = 0
    protocol: str = "P1"
    split: str = "S1"
    modalities: tuple[str, ...] = MODALITIES
    fusion: str = "concat"
    preset: str = "paper"
    wifi_encoder: str = "metafi"
    method: str = PLAIN
    method_options: dict[str, Any] = field(default_factory=dict)
    method_frames: int | None = None
    epochs: int = 50
    batch_size: int = 192
    accumulation: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    drop_every: int = 30
    held_out: float = 0.1  # ours: the paper does not say how it chose
    precision: str = "float32"  # ours: the paper does not say
    lidar_points: int | None = 512  # ours: users sample 256 to 1 024
    mmwave_points: int | None = 128  # ours: users sample 64 to 128
    every: int = 1
    measured_frames: int = 2048  # ours

    def __post_init__(self) -> None:
        """Check every value that would otherwise fail late, or not at all."""
        object.__setattr__(self, "modalities", tuple(self.modalities))  # JSON gives a list
        _check_names("modalities", self.modalities, MODALITIES)
        for name, known in _CHOICES.items():
            _check_names(name, (getattr(self, name),), known)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` should be 1 or more. Got `{value}`. Pass a whole number.")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"`accumulation` should divide `batch_size`. Got `{self.accumulation}` and `{self.batch_size}`. "
                "Pass for example 4 for 192."
            )
        self._check_method()

    def _check_method(self) -> None:
        if self.method == PLAIN and self.method_options:
            raise ValueError(
                f"`method_options` should be of a balancing method. Got {self.method_options} for plain training. "
                f"Choose one of {', '.join(METHODS[1:])}, or leave them out."
            )
        if self.method != PLAIN and self.fusion == DECISION:
            raise ValueError(
                f"`method` should be {PLAIN} with the fusion {DECISION}, which trains every modality for itself. "
                f"Got `{self.method}`. Choose another fusion."
            )


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it belongs to the run, whose result should not depend on it.

    Attributes:
        device: `cpu`, `cuda`, ...; None for a GPU if there is one.
        workers: Processes that gather batches ahead; 0 gathers in the training process.
        checkpoints: Folder for checkpoints, from which an interrupted run continues; None for none.
        checkpoint_steps: Optimizer steps between checkpoints; None for one after every epoch.
        weights: Folder for the weights of the best epoch; None to discard them.
        tensorboard: Folder for TensorBoard scalars; None for none.
        progress: Show a progress bar.
    """

    device: str | None = None
    workers: int = 0
    checkpoints: str | None = None
    checkpoint_steps: int | None = None
    weights: str | None = None
    tensorboard: str | None = None
    progress: bool = False


_CHOICES: Mapping[str, Collection[str]] = {
    "protocol": PROTOCOLS,
    "split": SPLITS,
    "fusion": ALL_FUSIONS,
    "wifi_encoder": WIFI_ENCODERS,
    "method": METHODS,
    "preset": PRESETS,
    "precision": PRECISIONS,
}
_COUNTS = (
    "epochs", "batch_size", "accumulation", "drop_every", "lidar_points", "mmwave_points", "every",
    "measured_frames", "method_frames",
)  # fmt: skip


def _check_names(argument: str, given: tuple[str, ...], known: Collection[str]) -> None:
    if not given or len(set(given)) < len(given) or any(name not in known for name in given):
        raise ValueError(f"`{argument}` should be of {', '.join(known)}. Got `{', '.join(given)}`.")
