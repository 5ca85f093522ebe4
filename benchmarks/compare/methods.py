"""The methods that are compared: what each is built with, and the strengths that are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

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
    linear_heads,
)
from benchmarks.compare.task import Task

PLAIN = "plain"


@dataclass(frozen=True)
class Setup:
    """The model, its task and data; a method may use all but the test batches."""

    model: nn.Module
    task: Task
    batches: Iterable[Any]
    held_out: Iterable[Any]
    test: Iterable[Any]
    epochs: int
    seed: int

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """The arguments that every balancer begins with."""
        return self.model, self.model.encoders, self.task.criterion

    def heads(self) -> dict[str, nn.Module]:
        """A fresh head for every modality."""
        return linear_heads(self.model, self.parts[1], next(iter(self.batches)))

    def share(self, part: float) -> int:
        """A part of the epochs, at least one."""
        return max(1, round(part * self.epochs))


@dataclass(frozen=True)
class Method:
    """A way to train all modalities.

    Attributes:
        strength: What is searched; empty where there is nothing to search.
        values: The strengths that are tried, from weak to strong.
        build: From a setup and a strength to the balancer.
        decays: Whether the strength is the optimizer's weight decay.
    """

    strength: str
    values: tuple[float, ...]
    build: Callable[[Setup, float], Balancer]
    decays: bool = False


def plain(setup: Setup, _: float) -> Balancer:
    """Joint training."""
    return Plain(*setup.parts)


def ogm_ge(setup: Setup, alpha: float) -> Balancer:
    """In the first half of the epochs, as in the paper."""
    return OGMGE(*setup.parts, alpha=alpha, seed=setup.seed, window=setup.share(0.5))


def agm(setup: Setup, alpha: float) -> Balancer:
    """In all epochs, as in the paper."""
    return AGM(*setup.parts, alpha=alpha)


def g_blending(setup: Setup, share: float) -> Balancer:
    """Weights measured again after every such share of the epochs; the paper takes 10 epochs, or once."""
    return GBlending(*setup.parts, setup.heads(), held_out=setup.held_out, super_epoch=setup.share(share))


def modality_resampling(setup: Setup, alpha: float) -> Balancer:
    """After a tenth of the epochs."""
    profit = "accuracy" if setup.task.classes else "pearson"
    return ModalityResampling(*setup.parts, profit, alpha=alpha, warmup=setup.share(0.1), seed=setup.seed)


def sample_resampling(setup: Setup, alpha: float) -> Balancer:
    """After a tenth of the epochs."""
    return SampleResampling(*setup.parts, alpha=alpha, warmup=setup.share(0.1), seed=setup.seed)


def mmpareto(setup: Setup, gamma: float) -> Balancer:
    """With linear heads, in all epochs, as in the paper."""
    return MMPareto(*setup.parts, setup.heads(), gamma=gamma)


def inforeg(setup: Setup, beta: float) -> Balancer:
    """With its own window, as in the paper, looking back over a fifth of the epochs."""
    return InfoReg(*setup.parts, beta=beta, memory=setup.share(0.2))


def awc(setup: Setup, alpha: float, superior: float = 2.0, inferior: float = 1.0) -> Balancer:
    """In the first 40 % of the epochs, superior modalities held back twice as hard, measured on all data: the paper's.

    Fisher diagonals are scaled, so that one strength means the same in any unit of the loss.
    """
    return AWC(
        *setup.parts,
        window=setup.share(0.4),
        contributions=setup.task.profit,
        alpha_superior=superior * alpha,
        alpha_inferior=inferior * alpha,
        scale="root_mean",
        batches=None,
    )


def awc_inferior(setup: Setup, alpha: float) -> Balancer:
    """The same, but only inferior modalities are held back."""
    return awc(setup, alpha, superior=0.0)


def awc_paper(setup: Setup, factor: float) -> Balancer:
    """The paper's setting and times some factor, which belongs to a loss in metres."""
    return AWC(
        *setup.parts,
        window=setup.share(0.4),
        contributions=setup.task.profit,
        alpha_superior=20_000 * factor,
        alpha_inferior=10_000 * factor,
        batches=None,
    )


def awc_rule(setup: Setup, _: float) -> Balancer:
    """The rule that looks at calibration slopes; there is nothing to choose."""
    return AWC(*setup.parts, contributions=setup.task.profit, rule="calibration", held_out=setup.held_out)


METHODS: dict[str, Method] = {
    PLAIN: Method("", (0.0,), plain),
    # The control: does a method do more than the search for one more number of plain training does?
    "weight decay": Method("weight decay", (3e-4, 1e-3, 3e-3), plain, decays=True),
    "OGM-GE": Method("alpha", (0.1, 0.3, 0.8), ogm_ge),
    "AGM": Method("alpha", (0.5, 1.5, 4.0), agm),
    "G-Blending": Method("super-epoch, share", (0.1, 0.2, 0.5), g_blending),
    "modality resampling": Method("alpha", (0.5, 1.0, 2.0), modality_resampling),
    "sample resampling": Method("alpha", (0.5, 1.0, 2.0), sample_resampling),
    "MMPareto": Method("gamma", (1.0, 1.5, 3.0), mmpareto),
    "InfoReg": Method("beta", (0.03, 0.2, 0.95), inforeg),
    "AWC": Method("alpha", (1.0, 30.0, 1000.0), awc),
    "AWC, inferior only": Method("alpha", (1.0, 30.0, 1000.0), awc_inferior),
    "AWC, paper's alphas": Method("times", (0.1, 1.0, 10.0), awc_paper),
    "AWC, calibration rule": Method("", (0.0,), awc_rule),
}
"""Equally many strengths of each that has any, and so the same search."""
