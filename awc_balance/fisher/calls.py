"""The calls of torch operations by which a forward pass uses parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from awc_balance.fisher.apart import Apart
from awc_balance.fisher.gradients import Key
from awc_balance.fisher.operation import Operation
from awc_balance.fisher.operations import OPERATIONS

_SPLITS = (torch.Tensor.split, torch.Tensor.chunk)

_LOOKS = {
    getattr(torch.Tensor, name)
    for name in ("__bool__", "__int__", "__float__", "__index__", "__array__", "item", "tolist", "numpy")
} | {torch.equal, torch.allclose, torch.is_nonzero}
"""What lets a program depend on the content of a tensor."""


class Unit(NamedTuple):
    """A parameter, or some of its rows: `nn.MultiheadAttention` keeps three matrices in one."""

    key: Key
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows as an index."""
        return slice(self.start, self.stop)

    def overlaps(self, other: Unit) -> bool:
        """Whether another unit has some of the same rows but not all."""
        return self != other and self.key == other.key and self.start < other.stop and other.start < self.stop


@dataclass(slots=True, eq=False)
class Call:
    """A call of an operation with parameters."""

    operation: Operation
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    """All of them by name."""
    units: dict[str, Unit]
    """What the parameters are, by the name of the argument."""
    operand: Any
    """The argument that holds the samples."""

    @property
    def others(self) -> dict[str, Any]:
        """The arguments that are neither parameters nor the input."""
        return {name: value for name, value in self.arguments.items() if name != "input" and name not in self.units}

    @property
    def identity(self) -> tuple[Operation, tuple[tuple[str, Unit], ...]]:
        """What tells calls apart in the order of a forward pass."""
        return self.operation, tuple(self.units.items())

    def run(self) -> Any:  # noqa: ANN401
        """As it was called."""
        return self.function(*self.args, **self.kwargs)

    def run_detached(self, operand: Any) -> Any:  # noqa: ANN401
        """With another operand, and parameters that autograd does not see."""
        swap = {id(self.operand): operand}
        for slot in self.units:
            swap[id(self.arguments[slot])] = self.arguments[slot].detach()
        args = [swap.get(id(value), value) for value in self.args]
        return self.function(*args, **{name: swap.get(id(value), value) for name, value in self.kwargs.items()})


class Calls(TorchFunctionMode):
    """Hands every call of a covered operation with one of the parameters to a function, which makes the output.

    Args:
        parameters: The parameters.
        handle: From a call to its output.
        apart: What follows whether samples are kept apart, if that is asked.
    """

    def __init__(
        self, parameters: Mapping[Key, Tensor], handle: Callable[[Call], Any], apart: Apart | None = None
    ) -> None:
        """See the class."""
        super().__init__()
        self._apart = apart
        self._units: dict[int, tuple[Unit, Tensor]] = {
            id(parameter): (Unit(key, 0, len(parameter) if parameter.dim() else 1), parameter)
            for key, parameter in parameters.items()
        }
        self._handle = handle
        self.looks = 0
        """How often the program looked at the content of a tensor."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Every function of torch that the program calls comes here."""
        kwargs = kwargs or {}
        if self._apart is None or not self._apart.note(func, args, kwargs):
            return self._called(func, args, kwargs)
        out = self._called(func, args, kwargs)
        self._apart.made(out)
        return out

    def _called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if func is F.multi_head_attention_forward:
            with self:
                return _attention(*args, **kwargs)
        self.looks += func in _LOOKS
        operation = OPERATIONS.get(func)
        if operation is not None:
            arguments = operation.bind(args, kwargs)
            units = {slot: unit for slot in operation.slots if (unit := self._unit(arguments.get(slot))) is not None}
            if units and operation.applies(arguments):
                operand = operation.operand(arguments, set(units))
                if _nothing_else(operand, arguments, units):
                    return self._handle(Call(operation, func, args, kwargs, arguments, units, operand))
        out = func(*args, **kwargs)
        if func in _SPLITS and (whole := self._unit(args[0])) is not None and _along_rows(*args[2:], **kwargs):
            self._follow(whole, out)
        return out

    def _unit(self, value: Any) -> Unit | None:  # noqa: ANN401
        unit, _ = self._units.get(id(value), (None, None))
        return unit

    def _follow(self, whole: Unit, pieces: Iterable[Tensor]) -> None:
        """Know the pieces of a parameter that was split along its rows; kept, or an id might come again."""
        start = whole.start
        for piece in pieces:
            self._units[id(piece)] = (Unit(whole.key, start, start + len(piece)), piece)
            start += len(piece)


def _along_rows(dim: int = 0, **others: Any) -> bool:  # noqa: ANN401
    return dim == 0 and not others


def _nothing_else(operand: Any, arguments: Mapping[str, Any], units: Mapping[str, Unit]) -> bool:  # noqa: ANN401
    """Whether no other argument but the operand needs a gradient, and the operand is no parameter."""
    for name, value in arguments.items():
        if name in units:
            if value is operand:
                return False
        elif value is not operand and isinstance(value, Tensor) and value.requires_grad:
            return False
    return True


# torch's own code of multi-head attention, with the calls inside it seen by the mode: as it stands it would hand itself
# over as a whole, again and again.
_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
_attention.__kwdefaults__ = F.multi_head_attention_forward.__kwdefaults__
