"""Sums of squared per-sample gradients from one forward and backward pass of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from awc_balance.fisher.apart import Apart
from awc_balance.fisher.calls import Call, Calls, Unit
from awc_balance.fisher.gradients import Gradients, Key
from awc_balance.fisher.layouts import Layout
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.operation import Operation, Seen, sum_of_squares
from awc_balance.fisher.plan import Plan
from awc_balance.nested import leaves_of
from awc_balance.precision import at_least_float32

NEAR = 3
"""How many steps back in autograd's graph an earlier call is looked for."""


class Unplanned(Exception):  # noqa: N818 - not an error, but news
    """A forward pass made other calls than planned."""


class Found(NamedTuple):
    """What one pass gave."""

    squares: Gradients
    """Sums over samples, of the covered parameters that the pass used in the planned calls only."""
    losses: Tensor
    reached: set[Key]
    looks: int
    """How often the program looked at the content of a tensor."""
    rounding: float
    """The coarsest relative precision among gradients."""
    apart: bool
    """Whether no sample can have influenced another, as follows from the operations."""


def squares(
    objective: Objective,
    parameters: Mapping[Key, nn.Parameter],
    plan: Plan,
    batch: Any,  # noqa: ANN401
    samples: int,
    apart: Apart,
) -> Found:
    """The sums of squared per-sample gradients of the parameters that a plan covers.

    The planned calls see the parameters detached. So a use of a parameter by any other way, and only that, leaves a
    path in autograd's graph: such parameters are left out of what is found.

    Args:
        objective: The loss.
        parameters: What to differentiate by.
        plan: The calls to expect.
        batch: To predict from.
        samples: In it.
        apart: What follows whether samples are kept apart.

    Raises:
        Unplanned: If the pass makes other calls.
    """
    collector = _Collector(plan, samples)
    own = {key: parameter for key, parameter in parameters.items() if key in plan.covered}
    with collector, Calls(parameters, collector.handle, apart) as calls:
        prediction, target = objective.predict(batch)
    apart.kept &= all(apart.knows(leaf) for leaf in leaves_of((prediction, target)))
    collector.check_complete()
    losses = objective.losses(prediction, target, samples)
    stray: set[Key] = set()
    if losses.requires_grad:
        with _without_autocast(losses.device.type):
            wanted = [collector.root, *own.values()]
            _, *gradients = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
            collector.finish()
        stray = {key for key, gradient in zip(own, gradients, strict=True) if gradient is not None}
    values = collector.totals({key: parameter for key, parameter in own.items() if key not in stray})
    reached = collector.reached & set(values)
    return Found(values, losses.detach(), reached, calls.looks, collector.rounding, apart.kept)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class _Collector:
    """Takes inputs and output gradients from the planned calls of one pass, and adds up squares."""

    def __init__(self, plan: Plan, samples: int) -> None:
        self.root = torch.zeros((), requires_grad=True)
        self.reached: set[Key] = set()
        self._dtypes = {torch.float32}
        self._plan = plan
        self._samples = samples
        self._next = 0
        self._rooted: set[Any] = set()
        self._waiting: dict[Unit, list[tuple[Operation, str, Seen]]] = {}
        self._totals: dict[Unit, Tensor] = {}

    @property
    def rounding(self) -> float:
        """The coarsest relative precision so far."""
        return max(torch.finfo(dtype).eps for dtype in self._dtypes)

    def __enter__(self) -> None:
        """For a forward pass."""

    def __exit__(self, *_: object) -> None:
        """Let go of the graph, which refers to this in turn and would otherwise stay in memory."""
        self._rooted.clear()

    def handle(self, call: Call) -> Any:  # noqa: ANN401
        """The output of a call, from which the gradient will come back here."""
        if self._next == len(self._plan.sites) or call.identity != self._plan.sites[self._next].identity:
            raise Unplanned
        site, layout = self._plan.sites[self._next], self._plan.layouts[self._next]
        self._next += 1
        if layout is None:
            return call.run()
        out = self._output(call, layout)
        expected = layout.shape_of_one(site.out, self._plan.samples)
        if layout.shape_of_one(out.shape, self._samples) != expected:
            raise Unplanned
        return out

    def check_complete(self) -> None:
        """Whether all planned calls were made."""
        if self._next != len(self._plan.sites):
            raise Unplanned

    def finish(self) -> None:
        """Square what waits for calls on which the loss does not depend."""
        with torch.no_grad():
            for unit in list(self._waiting):
                self._square(unit)

    def totals(self, parameters: Mapping[Key, Tensor]) -> Gradients:
        """The sums of squares of some parameters; zeros where nothing came."""
        found: dict[Key, dict[Unit, Tensor]] = {key: {} for key in parameters}
        for unit, total in self._totals.items():
            if unit.key in found:
                found[unit.key][unit] = total
        return {key: _whole(parameter, found[key]) for key, parameter in parameters.items()}

    def _output(self, call: Call, layout: Layout) -> Tensor:
        operand = call.operand
        x = operand.detach() if isinstance(operand, Tensor) and call.operation.reads_input else None
        version = 0 if x is None else x._version

        def take(g: Tensor) -> None:
            nonlocal x
            if x is not None and x._version != version:
                raise RuntimeError("An input was changed in place after it was used.")
            self._take(call, layout, x, g)
            x = None  # it may be large

        if not isinstance(operand, Tensor) or not operand.requires_grad:
            source = _source(self.root, lambda: call.run_detached(operand), take)
            self._rooted.add(source.grad_fn)
            return source
        out: Tensor = call.run_detached(operand if self._is_rooted(operand) else _attach(self.root, operand))
        out.register_hook(take)
        self._rooted.add(out.grad_fn)
        return out

    def _is_rooted(self, operand: Tensor) -> bool:
        """Whether the operand is known to come from an earlier call, with few operations in between."""
        node: Any = operand.grad_fn
        for _ in range(NEAR):
            if node in self._rooted:
                return True
            if node is None or not node.next_functions:
                return False
            node = node.next_functions[0][0]
        return False

    def _take(self, call: Call, layout: Layout, x: Tensor | None, g: Tensor) -> None:
        arranged = layout.arrange(at_least_float32(g), self._samples)
        if x is not None:
            x = layout.arrange(x.expand(g.shape) if call.operation.broadcasts else x, self._samples)
        self._dtypes.add(g.dtype)
        shared: dict[str, Any] = {}
        for slot, unit in call.units.items():
            parameter = call.arguments[slot]
            seen = Seen(x, arranged, call.others, layout.axis, parameter.shape, shared)
            self._dtypes.add(parameter.dtype)
            self._waiting.setdefault(unit, []).append((call.operation, slot, seen))
            self.reached.add(unit.key)
            if len(self._waiting[unit]) == self._plan.uses[unit]:
                self._square(unit)

    def _square(self, unit: Unit) -> None:
        uses = self._waiting.pop(unit)
        operation, slot, seen = uses[0]
        self._totals[unit] = operation.squares(slot, seen) if len(uses) == 1 else sum_of_squares(uses)


def _whole(parameter: Tensor, found: Mapping[Unit, Tensor]) -> Tensor:
    """The squares of a parameter from those of its parts."""
    first = next(iter(found.values()), None)
    if first is not None and len(found) == 1 and first.shape == parameter.shape:
        return first
    dtype = torch.promote_types(parameter.dtype, torch.float32) if first is None else first.dtype
    result = torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)
    for unit, total in found.items():
        result[unit.rows if parameter.dim() else ...] = total
    return result


class _Attach(torch.autograd.Function):
    """The same values, and a path to the root, so that autograd walks through what follows."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, x: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401, ARG004
        return None, g


class _Source(torch.autograd.Function):
    """The output of a call whose operand needs no gradient; its own gradient goes to `take`."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, run: Callable[[], Tensor], take: Callable[[Tensor], None]) -> Tensor:  # noqa: ANN401, ARG004
        ctx.take = take
        return run()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, None]:  # noqa: ANN401
        ctx.take(g)
        return None, None, None


# `Function.apply` carries no annotations.
_attach: Callable[[Tensor, Tensor], Tensor] = _Attach.apply
_source: Callable[[Tensor, Callable[[], Tensor], Callable[[Tensor], None]], Tensor] = _Source.apply
