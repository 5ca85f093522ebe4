"""How hard each modality is held back: from contributions to groups and alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from awc_balance.checks import check_alpha, check_callable, check_numbers
from awc_balance.grouping import Group, Grouping, check_groups

Rule: TypeAlias = Callable[[Mapping[str, float]], Mapping[str, float]]


class Strengths:
    """The alpha of every modality, by its group or by a rule of the user's own.

    Args:
        modalities: Their names.
        alpha_superior: For the modalities that the grouping calls superior.
        alpha_inferior: For the others.
        grouping: From contributions to groups.
        alphas: In place of groups: alphas by modality, or a function from contributions to those.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        alpha_superior: float,
        alpha_inferior: float,
        grouping: Grouping,
        alphas: Mapping[str, float] | Rule | None,
    ) -> None:
        """See the class."""
        self._modalities = list(modalities)
        self._of_group: dict[Group, float] = {
            "superior": check_alpha("alpha_superior", alpha_superior),
            "inferior": check_alpha("alpha_inferior", alpha_inferior),
        }
        self._grouping = check_callable("grouping", grouping, "Pass a function from contributions to groups.")
        self._own = alphas if alphas is None or callable(alphas) else self._checked(alphas)

    @property
    def fixed(self) -> bool:
        """Whether the alphas depend on nothing."""
        return self._own is not None and not callable(self._own)

    def decide(self, contributions: Mapping[str, float]) -> tuple[dict[str, Group], dict[str, float]]:
        """Groups, empty where a rule of the user's own does without, and alphas.

        Raises:
            TypeError: If the grouping or the rule gives anything but a mapping.
            ValueError: If it leaves out a modality, or gives an unknown group or an alpha below 0.
        """
        if self._own is None:
            groups = check_groups(self._grouping(contributions), self._modalities)
            return groups, {modality: self._of_group[group] for modality, group in groups.items()}
        return {}, self._checked(self._own(contributions) if callable(self._own) else self._own)

    def _checked(self, alphas: Mapping[str, float]) -> dict[str, float]:
        numbers = check_numbers("alphas", alphas, self._modalities)
        return {modality: check_alpha(f"alphas[{modality!r}]", alpha) for modality, alpha in numbers.items()}
