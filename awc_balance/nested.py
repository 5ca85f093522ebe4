"""Walking over nested tuples, lists, dicts, named tuples and dataclasses of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

# torch's own walk. The name is private, but torch.func and torch.export stand on it, and it has not changed since
# torch 2.0.
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["copied", "leaves_of", "map_tensors", "with_same_tensors"]


def map_tensors(
    function: Callable[[Tensor], Tensor],
    value: Any,  # noqa: ANN401
    other: Callable[[Any], Any] = lambda leaf: leaf,
) -> Any:  # noqa: ANN401
    """The same structure with `function` of every tensor in it, and `other` of everything else."""

    def convert(leaf: Any) -> Any:  # noqa: ANN401
        if isinstance(leaf, Tensor):
            return function(leaf)
        parts = _parts(leaf)
        if not parts:
            return other(leaf)
        changed = copy.copy(leaf)
        for name, part in parts.items():
            new = map_tensors(function, part, other)
            if isinstance(leaf, MutableMapping):
                changed[name] = new
            else:
                object.__setattr__(changed, name, new)  # a dataclass may be frozen
        return changed

    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (tuple, list):  # the most common ones, at a fraction of the cost
        return type(value)([map_tensors(function, item, other) for item in value])
    return tree_map(convert, value)


def leaves_of(value: Any) -> list[Any]:  # noqa: ANN401
    """All that is in a structure and has no structure of its own."""
    if isinstance(value, Tensor):
        return [value]
    if type(value) in (tuple, list):
        return [leaf for item in value for leaf in leaves_of(item)]
    found = []
    for leaf in tree_leaves(value):
        parts = _parts(leaf)
        found += [inner for part in parts.values() for inner in leaves_of(part)] if parts else [leaf]
    return found


def copied(value: Any) -> Any:  # noqa: ANN401
    """The same structure with detached copies of the tensors in it, and deep copies of everything else."""
    return map_tensors(lambda tensor: tensor.detach().clone(), value, _deep_copy)


def with_same_tensors(value: Any) -> Any:  # noqa: ANN401
    """The same structure with the very same tensors in it, and deep copies of everything else."""
    return map_tensors(lambda tensor: tensor, value, _deep_copy)


def _deep_copy(leaf: Any) -> Any:  # noqa: ANN401
    try:
        return copy.deepcopy(leaf)
    except Exception:
        return leaf


def _parts(leaf: Any) -> dict[Any, Any]:  # noqa: ANN401
    """What is inside a dataclass, or a mapping of a kind that torch's walk does not know."""
    if isinstance(leaf, MutableMapping):
        return dict(leaf)
    if is_dataclass(leaf) and not isinstance(leaf, type):
        return {field.name: getattr(leaf, field.name) for field in fields(leaf)}
    return {}
