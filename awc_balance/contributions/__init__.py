"""Contributions of modalities: Shapley values of a profit over coalitions, exact or from a sample of them."""

from awc_balance.contributions.competition import CompetitionStrength, competition_strength
from awc_balance.contributions.contribution import ShapleyContribution
from awc_balance.contributions.profits import Profit
from awc_balance.contributions.result import Contributions
from awc_balance.contributions.sampling import SampledCoalitions
from awc_balance.contributions.shapley import coalitions, shapley_values

__all__ = [
    "CompetitionStrength",
    "Contributions",
    "Profit",
    "SampledCoalitions",
    "ShapleyContribution",
    "coalitions",
    "competition_strength",
    "shapley_values",
]
