"""The contributions of a set of modalities, with all that is known about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(Mapping[str, float]):
    """Shapley values by modality: a `Mapping[str, float]` with the details behind each number."""

    values_by_modality: dict[str, float]
    """The contribution of each modality, averaged over output coordinates."""
    per_output: dict[str, Tensor]
    """The contribution by output coordinate, float64 on the CPU, in the shape of one output; `()` if there are none."""
    intervals: dict[str, tuple[float, float]] | None
    """95 % confidence interval over the data, by the jackknife over batches; None for a single batch."""
    profits: dict[frozenset[str], float]
    """The profit of every coalition, averaged over output coordinates."""

    def __getitem__(self, modality: str) -> float:
        """The contribution of a modality."""
        return self.values_by_modality[modality]

    def __iter__(self) -> Iterator[str]:
        """Over the modalities."""
        return iter(self.values_by_modality)

    def __len__(self) -> int:
        """The number of modalities."""
        return len(self.values_by_modality)

    def __repr__(self) -> str:
        """One line, with intervals where there are any."""
        parts = []
        for modality, value in self.items():
            interval = ""
            if self.intervals is not None:
                low, high = self.intervals[modality]
                interval = f" [{low:.4g}, {high:.4g}]"
            parts.append(f"{modality}: {value:.4g}{interval}")
        return f"Contributions({', '.join(parts)})"
