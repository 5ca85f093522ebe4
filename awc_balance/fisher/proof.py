"""When the rules of layers may be relied on: proven on the first samples, and again when a forward pass changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.fisher.gradients import Gradients, Key
from awc_balance.fisher.layer_rules import Found, Plan, Unplanned, plan_for, record, squares
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.vectorised import Rebuild, Samples, Vectorised, agreeing, one_by_one
from awc_balance.precision import squared

PROBED = 3
"""Samples on which the rules are compared with autograd; two and three tell where samples lie in a tensor."""

Kind: TypeAlias = tuple[tuple[torch.Size, torch.dtype], ...]
"""Shapes and dtypes of a single sample."""


class LayerRules:
    """Sums of squared per-sample gradients from whole batches, for the parameters for which that is proven.

    What has to hold, and how it is known:

    - *Every use of a parameter is seen.* The calls that are seen get it detached; if autograd still finds it in the
      graph of the loss, there was another use. Known in every batch, without rounding.
    - *The calls are those that were checked*, with the same shapes. Compared in every batch.
    - *The samples lie where they are thought to.* From the shapes of two and of three samples, and from equality with
      autograd's gradients of single samples.
    - *Samples do not influence each other*, by batch statistics or by decisions on the data. The loss of a sample has
      to be the same alone and in its batch, and a program that looks at its data has to pass `torch.func`.

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
        self._proven: dict[Kind, tuple[Plan, int]] = {}

    def measure(self, samples: Samples, rebuild: Rebuild) -> Found | None:
        """The sums over the samples of a batch, of the parameters that the rules cover; None if there are none."""
        kind = tuple((leaf.shape[1:], leaf.dtype) for leaf in samples)
        for _ in range(2):
            alone: Tensor | None = None
            if kind not in self._proven:
                if len(samples[0]) < PROBED or not self._parameters:
                    return None
                alone = self._prove(kind, samples, rebuild)
            plan, looks = self._proven[kind]
            if not plan.covered:
                return None
            try:
                found = self._squares(plan, samples, rebuild)
            except Unplanned:
                found = None
            except Exception:  # the slower ways raise it again if it is an error of the model's
                self._give_up(kind)
                return None
            if found is not None and found.looks == looks:
                if alone is None or _same(alone, found.losses[:PROBED], found.rounding):
                    return found
                self._give_up(kind)
                return None
            del self._proven[kind]  # what was proven is of another forward pass
        self._give_up(kind)
        return None

    def _give_up(self, kind: Kind) -> None:
        self._proven[kind] = Plan((), (), 0), 0

    def _squares(self, plan: Plan, samples: Samples, rebuild: Rebuild) -> Found:
        batch = rebuild([leaf.clone() for leaf in samples])  # the model may change its inputs in place
        return squares(self._objective, self._parameters, plan, batch, len(samples[0]))

    def _prove(self, kind: Kind, samples: Samples, rebuild: Rebuild) -> Tensor:
        """Find out what holds for batches of this kind; the losses of the first samples by themselves."""
        self._give_up(kind)
        probe = [leaf[:PROBED].clone() for leaf in samples]
        gradients, losses, _ = one_by_one(self._objective, self._parameters, probe, rebuild)
        exact = {key: squared(gradient).sum(0) for key, gradient in gradients.items()}
        try:
            sites = [
                record(self._objective, self._parameters, rebuild([leaf[:count].clone() for leaf in samples]))
                for count in (PROBED - 1, PROBED)
            ]
            plan = plan_for(sites[0], sites[1], (PROBED - 1, PROBED))
            if plan.covered:
                self._proven[kind] = self._compare(plan, probe, rebuild, exact, losses)
        except Exception:
            self._give_up(kind)
        return losses

    def _compare(
        self, plan: Plan, probe: Samples, rebuild: Rebuild, exact: Gradients, losses: Tensor
    ) -> tuple[Plan, int]:
        """The part of a plan that gives what autograd gives, and how often the program looks at its data."""
        found = self._squares(plan, probe, rebuild)
        rounding = max(found.rounding, *(torch.finfo(parameter.dtype).eps for parameter in self._parameters.values()))
        if not _same(losses, found.losses, rounding) or (found.looks and not self._can_vectorise(probe, rebuild)):
            return plan.keep(set()), 0
        straight = agreeing(_roots(exact), _roots(found.squares), rounding)
        several = plan.several_rows()
        if not several:
            return plan.keep(straight), found.looks
        other = plan.interleaved()
        alternating = agreeing(_roots(exact), _roots(self._squares(other, probe, rebuild).squares), rounding) & several
        undecided = straight & alternating  # such as gradients that are all zero
        return plan.choose(straight - undecided, alternating - undecided), found.looks

    def _can_vectorise(self, probe: Samples, rebuild: Rebuild) -> bool:
        return Vectorised(self._objective, self._parameters, None).can_vectorise(probe, rebuild)


def _roots(values: Gradients) -> Gradients:
    """Root sums of squares, which are compared like gradients."""
    return {key: value.sqrt() for key, value in values.items()}


def _same(alone: Tensor, together: Tensor, rounding: float) -> bool:
    """Whether samples have the same loss by themselves and in a batch."""
    if not bool(alone.isfinite().all()):
        return True  # refused anyhow
    allowed = rounding**0.5 * alone.abs() + 10 * rounding * alone.abs().max()
    return bool(((alone - together).abs() <= allowed).all())
