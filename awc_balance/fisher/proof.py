"""When the rules of layers may be relied on: proven on the first samples, and again when a forward pass changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.fisher.apart import Apart, constants_of
from awc_balance.fisher.gradients import Gradients, Key, gradients
from awc_balance.fisher.layer_rules import Found, Unplanned, squares
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.plan import Plan, plan_for, record
from awc_balance.fisher.vectorised import Rebuild, Samples, Vectorised, agreeing

PROBED = 3
"""Samples on which the rules are compared with autograd; two and three tell where samples lie in a tensor."""

Kind: TypeAlias = tuple[tuple[torch.Size, torch.dtype], ...]
"""Shapes and dtypes of a single sample."""


class Proven(NamedTuple):
    """What holds for batches of one kind."""

    plan: Plan
    looks: int
    """How often the program looks at the content of a tensor in a forward pass."""


NOTHING = Proven(Plan((), (), 0), 0)


class LayerRules:
    """Sums of squared per-sample gradients from whole batches, for the parameters for which that is proven.

    What has to hold, and how it is known:

    - *Every use of a parameter is seen.* The calls that are seen get it detached; if autograd still finds it in the
      graph of the loss, there was another use. Known in every batch, without rounding.
    - *The calls are those that were checked*, with the same shapes. Compared in every batch.
    - *The samples lie where they are thought to.* From the shapes of two and of three samples, and from equality with
      autograd's gradients of single samples.
    - *Samples do not influence each other*, by batch statistics or by decisions on the data. The loss of a sample has
      to be the same alone and in its batch, and a program that looks at its data has to pass `torch.func`. Known for
      the first samples of the first batch of a kind. In every later batch it is known of all samples where each
      operation is one that keeps them apart, and else for one sample.

    Args:
        objective: The loss.
        parameters: The parameters to differentiate by.
    """

    def __init__(self, objective: Objective, parameters: Mapping[Key, nn.Parameter]) -> None:
        """See the class."""
        self._objective = objective
        plain = (torch.Tensor, nn.Parameter)
        self._parameters = {
            key: parameter
            for key, parameter in parameters.items()
            if type(parameter) in plain and parameter.layout == torch.strided and parameter.is_floating_point()
        }
        self._constants = constants_of((*objective.parameters(), *objective.buffers()))
        self._proven: dict[Kind, Proven] = {}
        self._batches = 0

    def measure(self, samples: Samples, rebuild: Rebuild) -> Found | None:
        """The sums over the samples of a batch, of the parameters that the rules cover; None if there are none."""
        kind = tuple((leaf.shape[1:], leaf.dtype) for leaf in samples)
        known = self._proven.get(kind)
        try:
            found = None if known is None else self._planned(known, samples, rebuild)
            if found is not None and not found.apart and not self._stands_alone(samples, rebuild, found):
                self._proven[kind] = NOTHING
                return None
            if found is not None or not self._may_prove(known, samples):
                return found
            # For the first time, or since the forward pass has changed.
            self._proven[kind], alone = self._prove(samples, rebuild)
            found = self._planned(self._proven[kind], samples, rebuild)
        except Exception:  # the slower ways raise it again if it is an error of the model's
            self._proven[kind] = NOTHING
            return None
        if found is None or not _same(alone, found.losses[:PROBED], found.rounding):
            self._proven[kind] = NOTHING
            return None
        return found

    @torch.no_grad()
    def _stands_alone(self, samples: Samples, rebuild: Rebuild, found: Found) -> bool:
        """Whether one of the samples, each time another, has the same loss by itself as in the batch."""
        self._batches += 1
        number = self._batches % len(samples[0])
        alone: Tensor = self._objective(rebuild([leaf[number, None].clone() for leaf in samples]))
        return _same(alone.reshape(1), found.losses[number, None], found.rounding)

    def _may_prove(self, known: Proven | None, samples: Samples) -> bool:
        hopeless = known is not None and not known.plan.covered
        return bool(self._parameters) and not hopeless and len(samples[0]) >= PROBED

    def _planned(self, known: Proven, samples: Samples, rebuild: Rebuild) -> Found | None:
        """What a plan gives; None if it covers nothing, or if the forward pass is not the one it is for."""
        if not known.plan.covered:
            return None
        try:
            found = self._squares(known.plan, samples, rebuild)
        except Unplanned:
            return None
        return found if found.looks == known.looks else None

    def _squares(self, plan: Plan, samples: Samples, rebuild: Rebuild) -> Found:
        copies = [leaf.clone() for leaf in samples]  # the model may change its inputs in place
        apart = Apart(copies, self._constants)
        return squares(self._objective, self._parameters, plan, rebuild(copies), len(samples[0]), apart)

    def _prove(self, samples: Samples, rebuild: Rebuild) -> tuple[Proven, Tensor]:
        """Find out what holds for batches like this one; and the losses of its first samples by themselves."""
        probe = [leaf[:PROBED] for leaf in samples]
        exact, alone, reached = self._one_by_one(probe, rebuild)
        fewer, more = (
            record(self._objective, self._parameters, rebuild([leaf[:count].clone() for leaf in probe]))
            for count in (PROBED - 1, PROBED)
        )
        plan = plan_for(fewer, more, (PROBED - 1, PROBED), self._parameters.keys() - reached)
        if not plan.covered:
            return NOTHING, alone
        found = self._squares(plan, probe, rebuild)
        if not _same(alone, found.losses, found.rounding) or (found.looks and not self._vectorises(probe, rebuild)):
            return NOTHING, alone
        right = _agreeing(exact, found)
        several = plan.several_rows()
        turned = _agreeing(exact, self._squares(plan.interleaved(), probe, rebuild)) & several if several else set()
        undecided = right & turned  # such as gradients that are all zero
        return Proven(plan.choose(right - undecided, turned - undecided), found.looks), alone

    def _one_by_one(self, samples: Samples, rebuild: Rebuild) -> tuple[Gradients, Tensor, set[Key]]:
        """Roots of sums of squared gradients by autograd, the losses, and the parameters that these depend on."""
        squares: Gradients = {}
        losses, reached = [], set[Key]()
        for i in range(len(samples[0])):
            loss = self._objective(rebuild([leaf[i, None].clone() for leaf in samples]))
            found, of_this = gradients(loss, self._parameters)
            for key in list(found):
                square = found.pop(key).square_()  # one gradient after the other, since all of them may be large
                squares[key] = squares[key].add_(square) if key in squares else square
            losses.append(loss.detach())
            reached |= of_this
        return {key: square.sqrt_() for key, square in squares.items()}, torch.stack(losses), reached

    def _vectorises(self, probe: Samples, rebuild: Rebuild) -> bool:
        clones = [leaf.clone() for leaf in probe]
        return Vectorised(self._objective, self._parameters, None).can_vectorise(clones, rebuild)


def _agreeing(exact: Gradients, found: Found) -> set[Key]:
    """The parameters whose root sums of squares agree, which are compared like gradients."""
    return agreeing(exact, {key: value.sqrt() for key, value in found.squares.items()}, found.rounding)


def _same(alone: Tensor, together: Tensor, rounding: float) -> bool:
    """Whether samples have the same loss by themselves and in a batch."""
    if not bool(alone.isfinite().all()):
        return True  # refused anyhow
    allowed = rounding**0.5 * alone.abs() + 10 * rounding * alone.abs().max()
    return bool(((alone - together).abs() <= allowed).all())
