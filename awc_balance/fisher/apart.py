"""Whether a forward pass keeps samples apart, as far as that follows from the operations it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F

from awc_balance.fisher.operation import Operation
from awc_balance.fisher.operations import OPERATIONS


class Apart:
    """Follows the tensors of a forward pass whose first axis is that of the samples, each made from its own alone.

    What is not known to keep samples apart ends it: functions that are not in the tables below, arguments of any other
    origin, and tensors that have been written to meanwhile. Functions that torch does not report make tensors that are
    not known here.

    Args:
        inputs: Tensors `[samples, ...]`.
        constants: What does not depend on them: parameters and buffers.
    """

    def __init__(self, inputs: Iterable[Tensor], constants: Mapping[int, tuple[Tensor, int]]) -> None:
        """See the class."""
        self.kept = True
        """So far."""
        self._constants = constants
        self._known: dict[int, tuple[ref[Tensor], int]] = {}
        for tensor in inputs:
            self._know(tensor)

    def note(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a function that is about to be called with these arguments keeps samples apart."""
        if not self.kept or function in _ABOUT_THE_KIND:
            return self.kept
        if function in _BY_ELEMENT:
            self.kept = self._is_alone(args, kwargs)
        elif function in _BINARY:
            self.kept = len(args) == 2 and self._are_aligned(*args) and not _tensors(kwargs.values())
        elif function in _LAYERS:
            arguments = OPERATIONS[function].bind(args, kwargs)
            self.kept = self._is_layer(OPERATIONS[function], _LAYERS[function], arguments)
        elif function in _FLATTEN:
            start = kwargs.get("start_dim", args[1] if len(args) > 1 else 0)
            self.kept = self._is_alone(args, kwargs) and start > 0
        else:
            dropout = function is F.dropout and kwargs.get("training") is False
            self.kept = dropout and self._is_alone(args, kwargs)
        return self.kept

    def made(self, out: Any) -> None:  # noqa: ANN401
        """Take in what came of a function that keeps samples apart."""
        if isinstance(out, Tensor):
            self._know(out)

    def knows(self, value: Any) -> bool:  # noqa: ANN401
        """Whether this is a tensor of samples that were kept apart."""
        tensor, version = self._known.get(id(value), (_nothing, 0))
        known = tensor()
        return known is not None and known is value and known._version == version

    def _know(self, tensor: Tensor) -> None:
        self._known[id(tensor)] = ref(tensor), tensor._version

    def _is_constant(self, value: Any) -> bool:  # noqa: ANN401
        tensor, version = self._constants.get(id(value), (None, 0))
        return tensor is not None and value._version == version

    def _is_alone(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a known tensor comes first, and no other one after it."""
        return bool(args) and self.knows(args[0]) and not _tensors((*args[1:], *kwargs.values()))

    def _are_aligned(self, a: Any, b: Any) -> bool:  # noqa: ANN401
        """Whether broadcasting gives each sample of one operand its own of the other, or the same as to all others."""
        if self.knows(b) and not self.knows(a):
            a, b = b, a
        if not self.knows(a):
            return False
        if not isinstance(b, Tensor):
            return isinstance(b, int | float)
        return b.dim() == a.dim() if self.knows(b) else self._is_constant(b) and b.dim() < a.dim()

    def _is_layer(
        self, operation: Operation, holds: Callable[[Mapping[str, Any]], bool], arguments: Mapping[str, Any]
    ) -> bool:
        x = arguments.get("input")
        others = _tensors(value for name, value in arguments.items() if name != "input")
        constant = all(map(self._is_constant, others))
        return constant and self.knows(x) and operation.applies(arguments) and holds(arguments)


def constants_of(tensors: Iterable[Tensor]) -> dict[int, tuple[Tensor, int]]:
    """Tensors by identity, with their versions; they are kept, or an identity might come again."""
    return {id(tensor): (tensor, tensor._version) for tensor in tensors}


def _nothing() -> None:
    return None


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


_Function: TypeAlias = Callable[..., Any]

_ABOUT_THE_KIND: set[_Function] = {
    torch.device,
    torch.Tensor.dim,
    torch.Tensor.is_floating_point,
    *(getattr(torch.Tensor, name).__get__ for name in ("device", "dtype", "ndim", "requires_grad", "is_cuda")),
}
"""What tells the same of all batches, in particular not their number of samples."""

_BY_ELEMENT: set[_Function] = {
    *(F.relu, F.relu6, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.leaky_relu, F.hardtanh, F.hardswish),
    *(F.softplus, F.logsigmoid, F.tanh, F.sigmoid),
    *(getattr(torch, name) for name in ("relu", "tanh", "sigmoid", "exp", "sin", "cos", "square", "abs", "neg")),
    *(getattr(torch.Tensor, name) for name in ("relu", "tanh", "sigmoid", "exp", "sin", "cos", "square", "abs", "neg")),
    *(torch.Tensor.to, torch.Tensor.float, torch.Tensor.contiguous),
    # these go along the last axes, before which the first comes
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
}
"""Functions of one tensor that leave its first axis alone."""

_BINARY: set[_Function] = {
    getattr(owner, name) for owner in (torch, torch.Tensor) for name in ("add", "sub", "mul", "div")
}

_FLATTEN: set[_Function] = {torch.flatten, torch.Tensor.flatten}


def _always(arguments: Mapping[str, Any]) -> bool:  # noqa: ARG001
    return True


_LAYERS: dict[_Function, Callable[[Mapping[str, Any]], bool]] = {
    F.linear: lambda arguments: arguments["input"].dim() > 1,
    F.layer_norm: lambda arguments: arguments["input"].dim() > len(arguments["normalized_shape"]),
    **dict.fromkeys((F.batch_norm, F.group_norm, F.embedding), _always),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _always),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _always),
}
"""Functions of a tensor and of parameters, and under which condition they keep its first axis apart."""
