"""Contributions of modalities: exact Shapley values of a profit over coalitions."""

from awc_balance.contributions.contribution import ShapleyContribution
from awc_balance.contributions.profits import Profit
from awc_balance.contributions.result import Contributions
from awc_balance.contributions.shapley import coalitions, shapley_values

__all__ = ["Contributions", "Profit", "ShapleyContribution", "coalitions", "shapley_values"]
