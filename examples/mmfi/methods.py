"""The balancing methods of a run: what they are built with, and the options of Table 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from awc_balance.balancers import (
    AGM,
    AWC,
    OGMGE,
    Balancer,
    GBlending,
    InfoReg,
    MMPareto,
    ModalityResampling,
    Plain,
    SampleResampling,
)
from examples.measures import Step
from examples.mmfi.dataset import Batch
from examples.mmfi.models import PoseModel, pose_head
from examples.mmfi.settings import PAPER_AWC, Settings
from examples.pose_metrics import mpjpe

BALANCERS: Mapping[str, type[Balancer]] = {
    "plain": Plain,
    "AWC": AWC,
    "G-Blending": GBlending,
    "OGM-GE": OGMGE,
    "AGM": AGM,
    "Modality-level": ModalityResampling,
    "Sample-level": SampleResampling,
    "MMPareto": MMPareto,
    "InfoReg": InfoReg,
}
"""By the names of `settings.METHODS`."""
_HEADED = ("G-Blending", "MMPareto")


def build_balancer(
    settings: Settings, trained: nn.Module, model: PoseModel, step: Step, held_out: Iterable[Batch]
) -> Balancer:
    """The method of a run, with heads of its own if it needs some.

    Args:
        settings: The run.
        trained: The model as it is trained, perhaps in a wrapper.
        model: The model itself.
        step: How to read a batch.
        held_out: Batches of training clips that are set aside, for G-Blending. The same clips choose the epoch, by
            the error of the whole model; the paper does not say whether it kept the two apart.

    Raises:
        ValueError: If the method has no such option, or not of such a value.
    """
    kind, needed, options = BALANCERS[settings.method], _needed(settings.method, model), dict(settings.method_options)
    if settings.method == "G-Blending" and "weights" not in options:
        needed["held_out"] = held_out
    try:
        return kind(trained, model.encoders, pose_loss, step=step, **{**needed, **options})
    except TypeError as error:
        raise ValueError(
            f"`method_options` should be options of {kind.__name__}. Got {options}: {error}. See its docstring."
        ) from error


def pose_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """MPJPE of poses `[batch, 17, 3]`; of several predictions of them, `[count, batch, 17, 3]`, the sum of theirs."""
    loss = mpjpe(prediction, target)
    return loss * len(prediction) if prediction.ndim > target.ndim else loss


def table_options(method: str, epochs: int) -> dict[str, Any]:
    """The options of a method in Table 1: its own paper's, with windows as large a part of the run as there.

    The paper of AWC does not say how it set the others. None of these was chosen by its result.

    >>> table_options("OGM-GE", 50), table_options("G-Blending", 10)
    ({'alpha': 0.1, 'window': 25}, {'super_epoch': 2})
    """
    return _TABLE_OPTIONS[method](epochs)


def part(epochs: int, share: float) -> int:
    """A share of the epochs, at least one.

    >>> part(50, 0.4), part(1, 0.4)
    (20, 1)
    """
    return max(1, round(share * epochs))


_TABLE_OPTIONS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "plain": lambda _: {},
    "AWC": lambda epochs: {**PAPER_AWC, "window": part(epochs, 20 / 50)},  # the best of Figure 6
    "G-Blending": lambda epochs: {"super_epoch": part(epochs, 10 / 50)},  # arXiv 1905.12681: every 10 epochs, of 45
    "OGM-GE": lambda epochs: {"alpha": 0.1, "window": part(epochs, 50 / 100)},  # arXiv 2203.15332, on VGGSound
    "AGM": lambda _: {"alpha": 1.5},  # arXiv 2308.07686, on CREMA-D; in all epochs
    "Modality-level": lambda epochs: {"alpha": 1.0, "warmup": part(epochs, 5 / 50)},  # arXiv 2309.06255: 5 epochs
    "Sample-level": lambda epochs: {"alpha": 1.0, "warmup": part(epochs, 5 / 50)},  # the same
    "MMPareto": lambda _: {"gamma": 1.5},  # arXiv 2405.17730; in all epochs
    "InfoReg": lambda epochs: {"beta": 0.95, "memory": part(epochs, 10 / 50)},  # CVPR 2025: the larger of two betas
}


def _needed(method: str, model: PoseModel) -> dict[str, Any]:
    """What a method cannot do without, beside the model and the loss."""
    if method in _HEADED:
        return {"heads": {modality: pose_head(model.features).to(_parameter(model)) for modality in model.encoders}}
    if method == "AWC":
        return {"batches": None}  # as in the paper, or as many as `method_frames` says
    return {"profit": "pearson"} if method == "Modality-level" else {}


def _parameter(model: nn.Module) -> Tensor:
    return next(model.parameters())
