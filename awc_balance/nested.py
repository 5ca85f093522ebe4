"""Walking over nested tuples, lists, dicts and named tuples.

torch's own functions: their module's name is private, but torch.func and torch.export stand on them and they have not
changed since torch 2.0.
"""

from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = ["tree_flatten", "tree_leaves", "tree_map", "tree_unflatten"]
