"""The calls by which a forward pass uses parameters, and where the samples lie in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn

from awc_balance.fisher.calls import Call, Calls, Unit
from awc_balance.fisher.gradients import Key
from awc_balance.fisher.layouts import Layout, find_layout
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.operation import Operation


class Site(NamedTuple):
    """A call of a forward pass: what it was, and the shape of its output."""

    identity: tuple[Operation, tuple[tuple[str, Unit], ...]]
    shapes: tuple[torch.Size, ...]
    """Of the parameters."""
    out: torch.Size

    @property
    def units(self) -> tuple[Unit, ...]:
        """The parameters."""
        return tuple(unit for _, unit in self.identity[1])


@dataclass(frozen=True)
class Plan:
    """The calls that a forward pass has to make, and where the samples lie in them."""

    sites: tuple[Site, ...]
    layouts: tuple[Layout | None, ...]
    """None where a rule does not apply."""
    samples: int
    """For which the shapes of the sites hold."""
    unused: frozenset[Key] = frozenset()
    """Parameters that no call has, and that the loss did not depend on."""

    @cached_property
    def covered(self) -> set[Key]:
        """The parameters all of whose calls have a layout, together with all parameters of these calls."""
        lost = {unit.key for site, layout in self._pairs if layout is None for unit in site.units}
        parts: dict[Key, set[Unit]] = {}
        for unit in self._units:
            parts.setdefault(unit.key, set()).add(unit)
        lost |= {key for key, units in parts.items() if any(one.overlaps(other) for one in units for other in units)}
        return self._without(lost) | self.unused

    @cached_property
    def uses(self) -> dict[Unit, int]:
        """How often each parameter takes part in a call with a layout."""
        return dict(Counter(unit for site, layout in self._pairs if layout is not None for unit in site.units))

    def keep(self, keys: set[Key]) -> Plan:
        """The same for these parameters only, as far as those of a call are among them."""
        covered = self._without({unit.key for unit in self._units} - keys)
        layouts = (layout if {unit.key for unit in site.units} <= covered else None for site, layout in self._pairs)
        return replace(self, layouts=tuple(layouts))

    def choose(self, straight: set[Key], interleaved: set[Key]) -> Plan:
        """The same for some parameters as it is, and for others with the other order of rows."""
        other = self.interleaved().layouts
        layouts = (
            turned if {unit.key for unit in site.units} <= interleaved else layout
            for (site, layout), turned in zip(self._pairs, other, strict=True)
        )
        return replace(self, layouts=tuple(layouts)).keep(straight | interleaved)

    def interleaved(self) -> Plan:
        """The same with the other order of rows."""
        layouts = (None if layout is None else layout._replace(interleaved=True) for layout in self.layouts)
        return replace(self, layouts=tuple(layouts))

    def several_rows(self) -> set[Key]:
        """Parameters whose calls have an order of rows to be told."""
        return {unit.key for site, layout in self._pairs if layout and layout.rows > 1 for unit in site.units}

    @property
    def _pairs(self) -> list[tuple[Site, Layout | None]]:
        return list(zip(self.sites, self.layouts, strict=True))

    @property
    def _units(self) -> list[Unit]:
        return [unit for site in self.sites for unit in site.units]

    def _without(self, lost: set[Key]) -> set[Key]:
        while True:
            spread = {u.key for site in self.sites if any(v.key in lost for v in site.units) for u in site.units} | lost
            if spread == lost:
                return {unit.key for unit in self._units} - lost
            lost = spread


def record(objective: Objective, parameters: Mapping[Key, nn.Parameter], batch: Any) -> tuple[Site, ...]:  # noqa: ANN401
    """The calls of a forward pass."""
    sites: list[Site] = []

    def handle(call: Call) -> Any:  # noqa: ANN401
        out = call.run()
        shapes = tuple(call.arguments[slot].shape for slot in call.units)
        sites.append(Site(call.identity, shapes, out.shape))
        return out

    with Calls(parameters, handle):
        objective.predict(batch)
    return tuple(sites)


def plan_for(
    fewer: tuple[Site, ...], more: tuple[Site, ...], counts: tuple[int, int], unreached: Set[Key] = frozenset()
) -> Plan:
    """What two passes with different numbers of samples say about where the samples lie."""
    if [site.identity for site in fewer] != [site.identity for site in more]:
        return Plan((), (), counts[1])
    layouts = []
    for small, large in zip(fewer, more, strict=True):
        layout = find_layout(small.out, large.out, counts)
        operation = large.identity[0]
        if layout and not all(operation.accepts(layout.axis, large.out, shape) for shape in large.shapes):
            layout = None
        layouts.append(layout)
    called = {unit.key for site in more for unit in site.units}
    plan = Plan(more, tuple(layouts), counts[1], frozenset(unreached - called))
    return plan.keep(plan.covered)
