"""Which coalitions are measured, and how their profits become contributions: all coalitions, or a sample of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from awc_balance.contributions.shapley import refuse_too_many, shapley_values


class Design(ABC):
    """A set of coalitions, the empty one first and the grand one last."""

    members: Tensor
    """Boolean, `[coalitions, M]`."""
    codes: Sequence[int]
    """Of every coalition the number whose set bits are its members."""

    @abstractmethod
    def values(self, profits: Tensor) -> Tensor:
        """Shapley values `[M, ...]` from the profits of the coalitions, `[coalitions, ...]`; linear in them."""

    @abstractmethod
    def errors(self, profits: Tensor) -> Tensor:
        """The standard errors `[M]` that come from taking a sample of the coalitions, with profits `[coalitions]`."""


class AllCoalitions(Design):
    """All coalitions of up to 16 modalities: exact Shapley values.

    Args:
        modalities: M.

    Raises:
        ValueError: If there are more than 16.
    """

    def __init__(self, modalities: int) -> None:
        """See the class."""
        refuse_too_many(modalities)
        self.codes = range(2**modalities)
        self.members = (torch.arange(2**modalities).unsqueeze(1) >> torch.arange(modalities) & 1).bool()

    def values(self, profits: Tensor) -> Tensor:
        """Exact."""
        return shapley_values(profits)

    def errors(self, profits: Tensor) -> Tensor:
        """None."""
        return profits.new_zeros(self.members.shape[1])
