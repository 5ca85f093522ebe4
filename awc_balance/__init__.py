"""Balance multi-modal training in PyTorch.

`ShapleyContribution` says which modality carries a model's prediction, `FisherDiagonal` how much each parameter of its
encoders matters to the loss, and `AWCRegularizer` stands on both: it holds encoders back during an early learning
window (AWC, arXiv 2501.05264), in three lines of a training loop of your own. `awc_balance.balancers` holds the other
published methods, all behind one interface.
"""

from awc_balance.calibration import Calibration, Slopes
from awc_balance.contributions import CompetitionStrength, Contributions, ShapleyContribution, shapley_values
from awc_balance.fisher import FisherDiagonal
from awc_balance.grouping import kmeans_groups
from awc_balance.regularizer import AWCRegularizer

__all__ = [
    "AWCRegularizer",
    "Calibration",
    "CompetitionStrength",
    "Contributions",
    "FisherDiagonal",
    "ShapleyContribution",
    "Slopes",
    "kmeans_groups",
    "shapley_values",
]

__version__ = "0.1.0"
