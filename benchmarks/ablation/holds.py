"""Ways to hold encoders back, as balancers: a pull with or without Fisher weights, smaller steps, none at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from awc_balance import AWCRegularizer
from awc_balance.balancers import Balancer
from awc_balance.batches import default_step
from awc_balance.calibration.elasticity import elasticities
from awc_balance.calibration.pull import pull_to_zero
from awc_balance.encoders import parameters_by_modality
from awc_balance.state import buffer_name
from benchmarks.compare.methods import Setup

Weights: TypeAlias = Literal["fisher", "plain", "sized"]

SMALLEST = 1e-3
"""Encoders whose parameters are smaller than this, root mean square, count as of this size."""


class Hold(Balancer):
    """Hold back some modalities, chosen at each epoch's start as AWC does: its window, its contributions, its groups.

    Args:
        setup: The model and its task.
        whom: "superior", "inferior", "both", or a modality.
        strength: Of those held back, as `AWCRegularizer` has it; the others have 0.
        window: In epochs.
        **options: Further ones of `AWCRegularizer`.
    """

    def __init__(self, setup: Setup, whom: str, strength: float, window: int, **options: Any) -> None:  # noqa: ANN401
        """See the class."""
        model, encoders, criterion = setup.parts
        super().__init__(model, encoders, criterion, window=window)
        options |= _alphas(whom, strength, self.modalities)
        self.regularizer = AWCRegularizer(
            model, encoders, criterion, window=window, contributions=setup.task.profit, **options
        )
        self.epochs_held = dict.fromkeys(self.modalities, 0)

    @property
    def held(self) -> list[str]:
        """Who is held back in the present epoch."""
        return [modality for modality, alpha in self.regularizer.alphas.items() if alpha > 0 and self.active]

    def start_epoch(self, loader: Iterable[Any]) -> None:
        """Begin an epoch: choose whom to hold back, while the window is open."""
        self._refuse_forgotten()
        self._measure(loader)
        super().start_epoch(loader)
        for modality in self.held:
            self.epochs_held[modality] += 1

    def attach(self, optimizer: Optimizer) -> None:
        """Work on the steps of an optimizer, where gradients are not enough."""

    def _measure(self, loader: Iterable[Any]) -> None:
        """Without a pull there is no need of Fisher diagonals, which cost a pass."""
        named = parameters_by_modality(self._encoders)
        none = {m: {n: torch.zeros_like(p) for n, p in own.items()} for m, own in named.items()}
        self.regularizer.start_epoch(loader, fisher=none)

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        return self._plain(batch)

    def _held_parameters(self) -> list[nn.Parameter]:
        named = parameters_by_modality(self._encoders)
        return [parameter for modality in self.held for parameter in named[modality].values()]


class Pull(Hold):
    """Add strength * sum_i w_i (theta_i - anchor_i)^2.

    "fisher": w is the Fisher diagonal, divided by the root of its mean over all encoders. "plain": w = g / (2 r), with
    g the root mean square of the encoder's gradients of four batches and r that of its parameters, both at the epoch's
    start. So at strength 1 the gradient of the pull is as large as that of a batch when the parameters are as far from
    the anchor as they are large. "sized": the same of what sets the size of the features, as in the calibration rule.
    Either way the unit of the loss does not matter.

    Args:
        setup: The model and its task.
        whom: See `Hold`.
        strength: Of the pull.
        window: In epochs.
        anchor: "epoch", the parameters at the epoch's start; "init", the present ones; or "zero".
        weights: Which w.
    """

    def __init__(self, setup: Setup, whom: str, strength: float, window: int, anchor: str, *, weights: Weights) -> None:
        """See the class."""
        super().__init__(setup, whom, strength, window, scale="root_mean" if weights == "fisher" else "raw")
        self._setup, self._weights = setup, weights
        self._anchors = _anchors(self.regularizer, anchor)

    def _measure(self, loader: Iterable[Any]) -> None:
        regularizer = self.regularizer
        regularizer.start_epoch(loader)
        if not regularizer.active:
            return
        state = regularizer.state_dict()
        regularizer.load_state_dict({**state, **self._anchors, **self._in_place_of_fisher(state)})

    def _in_place_of_fisher(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._weights == "fisher":
            return {}
        if self._weights == "plain":
            return _even_weights(self._encoders, state)
        return _sized_weights(self._setup, self._encoders, state)

    def _adjust(self) -> None:
        self.regularizer.add_gradient_()


class Slow(Hold):
    """Make a part of every step: parameters are put back to before + factor * (after - before).

    A factor on gradients would be cancelled by Adam. Call `attach` with the optimizer.

    Args:
        setup: The model and its task.
        whom: See `Hold`.
        factor: From 0, which is no step, to 1, a whole one.
        window: In epochs.
    """

    def __init__(self, setup: Setup, whom: str, factor: float, window: int) -> None:
        """See the class."""
        super().__init__(setup, whom, 1.0, window)
        self.factor = factor
        self._before: list[Tensor] = []

    def attach(self, optimizer: Optimizer) -> None:
        """Change the steps of this optimizer."""
        optimizer.register_step_pre_hook(self._note)
        optimizer.register_step_post_hook(self._put_back)

    def _note(self, *_: object) -> None:
        self._before = [parameter.detach().clone() for parameter in self._held_parameters()]

    def _put_back(self, *_: object) -> None:
        with torch.no_grad():
            for parameter, before in zip(self._held_parameters(), self._before, strict=True):
                parameter.copy_(torch.lerp(before, parameter, self.factor))  # exact at both ends


class Freeze(Hold):
    """Take no step: the optimizer does not see these parameters."""

    def __init__(self, setup: Setup, whom: str, window: int) -> None:
        """See the class."""
        super().__init__(setup, whom, 1.0, window)

    def _adjust(self) -> None:
        for parameter in self._held_parameters():
            parameter.grad = None


def _alphas(whom: str, strength: float, modalities: list[str]) -> dict[str, Any]:
    """The options of `AWCRegularizer` that hold back a group, all, or one."""
    if whom in ("superior", "inferior"):
        return {f"alpha_{group}": strength * (group == whom) for group in ("superior", "inferior")}
    return {"alphas": {modality: strength * (whom in ("both", modality)) for modality in modalities}}


def _anchors(regularizer: AWCRegularizer, anchor: str) -> dict[str, Tensor]:
    """What anchors are replaced by; a new regularizer has those of the initial parameters."""
    if anchor == "epoch":
        return {}
    initial = {key: value for key, value in regularizer.state_dict().items() if key.startswith("anchor/")}
    return {key: value.clone() if anchor == "init" else torch.zeros_like(value) for key, value in initial.items()}


def _even_weights(encoders: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weight for all parameters of an encoder, in place of Fisher diagonals of batches."""
    found: dict[str, Tensor] = {}
    for modality, named in parameters_by_modality(encoders).items():
        keys = [buffer_name("fisher", modality, name) for name in named]
        gradient = sqrt(torch.cat([state[key].flatten() for key in keys]).mean().item())
        size = _root_mean_square(named.values())
        found |= {key: torch.full_like(state[key], gradient / (2 * max(size, SMALLEST))) for key in keys}
    return found


def _sized_weights(setup: Setup, encoders: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the calibration rule."""
    diagonal = {
        modality: {name: state[buffer_name("fisher", modality, name)] for name in named}
        for modality, named in parameters_by_modality(encoders).items()
    }
    with torch.random.fork_rng(devices=[]):  # a loader draws a number wherever it is read
        batch = next(iter(setup.batches))
    weights = pull_to_zero(encoders, diagonal, elasticities(setup.model, encoders, default_step, batch))
    return {buffer_name("fisher", m, name): weight for m, named in weights.items() for name, weight in named.items()}


def _root_mean_square(parameters: Iterable[nn.Parameter]) -> float:
    return sqrt(torch.cat([parameter.detach().flatten() for parameter in parameters]).square().mean().item())
