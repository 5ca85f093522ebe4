"""Walking over nested tuples, lists, dicts, named tuples and dataclasses of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

# torch's own walk. The name is private, but torch.func and torch.export stand on it, and it has not changed since
# torch 2.0.
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = ["copied", "leaves_of", "map_tensors", "rebuilt", "tree_flatten", "tree_unflatten"]


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:  # noqa: ANN401
    """The same structure with `function` of every tensor in it."""

    def convert(leaf: Any) -> Any:  # noqa: ANN401
        if isinstance(leaf, Tensor):
            return function(leaf)
        parts = _parts(leaf)
        if not parts:
            return leaf
        changed = copy.copy(leaf)
        for name, part in parts.items():
            new = map_tensors(function, part)
            if isinstance(leaf, dict):
                changed[name] = new
            else:
                object.__setattr__(changed, name, new)  # a dataclass may be frozen
        return changed

    return tree_map(convert, value)


def leaves_of(value: Any) -> list[Any]:  # noqa: ANN401
    """All that is in a structure and has no structure of its own."""
    found = []
    for leaf in tree_leaves(value):
        parts = _parts(leaf)
        found += [inner for part in parts.values() for inner in leaves_of(part)] if parts else [leaf]
    return found


def copied(value: Any) -> Any:  # noqa: ANN401
    """The same structure with detached copies of the tensors in it."""
    return map_tensors(lambda tensor: tensor.detach().clone(), value)


def rebuilt(value: Any) -> Any:  # noqa: ANN401
    """The same structure in new containers, with the same tensors in it."""
    return map_tensors(lambda tensor: tensor, value)


def _parts(leaf: Any) -> dict[Any, Any]:  # noqa: ANN401
    """What is inside a dataclass, or a dict of a kind that torch's walk does not know."""
    if isinstance(leaf, dict):
        return dict(leaf)
    if is_dataclass(leaf) and not isinstance(leaf, type):
        return {field.name: getattr(leaf, field.name) for field in fields(leaf)}
    return {}
