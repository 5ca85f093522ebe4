"""The contributions of a set of modalities, with all that is known about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from awc_balance.by_modality import ByModality

Route: TypeAlias = Literal["additive", "together", "one by one"]


class Profits(Mapping[frozenset[str], float]):
    """The profit of every coalition that was measured, averaged over output coordinates.

    Args:
        modalities: Their names.
        codes: Of every coalition the number whose set bits are its members.
        profits: In the same order.
    """

    def __init__(self, modalities: Iterable[str], codes: Iterable[int], profits: Iterable[float]) -> None:
        """See the class."""
        self._bits = {modality: 1 << i for i, modality in enumerate(modalities)}
        self._by_code = dict(zip(codes, profits, strict=True))

    def __getitem__(self, coalition: AbstractSet[str]) -> float:
        """The profit of a coalition."""
        if not isinstance(coalition, AbstractSet):
            raise KeyError(coalition)
        return self._by_code[sum(self._bits[modality] for modality in coalition)]

    def __iter__(self) -> Iterator[frozenset[str]]:
        """Over the coalitions."""
        for code in self._by_code:
            yield frozenset(modality for modality, bit in self._bits.items() if code & bit)

    def __len__(self) -> int:
        """The number of coalitions."""
        return len(self._by_code)

    def __repr__(self) -> str:
        """As a dict."""
        return repr(dict(self))


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(ByModality):
    """Shapley values by modality: a `Mapping[str, float]` with the details behind each number."""

    values_by_modality: dict[str, float]
    """The contribution of each modality, averaged over output coordinates."""
    per_output: dict[str, Tensor]
    """The contribution by output coordinate, float64 on the CPU, in the shape of one output; `()` if there are none."""
    intervals: dict[str, tuple[float, float]] | None
    """95 % confidence interval over the data, and over the coalitions drawn; None for a single batch or unwanted."""
    errors: dict[str, float]
    """Standard error from taking a sample of the coalitions; 0 where all are measured."""
    profits: Mapping[frozenset[str], float]
    """The profit of every coalition, averaged over output coordinates; with a budget, of those that were drawn."""
    route: Route
    """"additive": from covariances of what each modality adds to the prediction; "together": coalitions stacked along
    the batch dimension; "one by one"."""

    @property
    def additive(self) -> bool:
        """Whether the prediction was found to be a sum of one part per modality, and that was used."""
        return self.route == "additive"
