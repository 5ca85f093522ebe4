"""Fisher diagonals: the mean squared gradient of every encoder parameter."""

from awc_balance.fisher.diagonal import Diagonal, FisherDiagonal, Form, trace

__all__ = ["Diagonal", "FisherDiagonal", "Form", "trace"]
