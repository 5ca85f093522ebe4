"""Numbers by modality, each with its interval: `ByModality`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class ByModality(Mapping[str, float]):
    """What was measured, by modality; subclasses are dataclasses with the details behind each number."""

    values_by_modality: dict[str, float]
    intervals: dict[str, tuple[float, float]] | None

    def __getitem__(self, modality: str) -> float:
        """The number of a modality."""
        return self.values_by_modality[modality]

    def __iter__(self) -> Iterator[str]:
        """Over the modalities."""
        return iter(self.values_by_modality)

    def __len__(self) -> int:
        """The number of modalities."""
        return len(self.values_by_modality)

    def __repr__(self) -> str:
        """One line, with intervals where there are any."""
        ends = {} if self.intervals is None else self.intervals
        brackets = {modality: f" [{low:.4g}, {high:.4g}]" for modality, (low, high) in ends.items()}
        parts = (f"{modality}: {value:.4g}{brackets.get(modality, '')}" for modality, value in self.items())
        return f"{type(self).__name__}({', '.join(parts)})"
