"""Noticing that modules no longer hold what they held: `Watch`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_

from torch import nn

_traits = attrgetter("requires_grad", "dtype", "device", "shape")


class Watch:
    """The parameters and submodules of some modules as they were, without hooks, and cheap enough for every step.

    Args:
        modules: Seen with all that is inside them.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4))
        >>> watch = Watch([model])
        >>> watch.unchanged()
        True
        >>> model.half() and watch.unchanged()
        False
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Remember them."""
        self._modules = list(dict.fromkeys(inside for module in modules for inside in module.modules()))
        self._members = self._present()
        self._parameters = [member for member in self._members if isinstance(member, nn.Parameter)]
        self._traits = list(map(_traits, self._parameters))

    def unchanged(self) -> bool:
        """Whether all of them are the same objects, as trainable as they were, of one dtype, device and shape."""
        present = self._present()
        return (
            len(present) == len(self._members)
            and all(map(is_, present, self._members))
            and list(map(_traits, self._parameters)) == self._traits
        )

    def _present(self) -> list[object]:
        registers = ((module._modules, module._parameters) for module in self._modules)
        return list(chain.from_iterable(register.values() for pair in registers for register in pair))
