"""By how much each modality's part of a prediction is trusted too much or too little, and the verdict that follows."""

from awc_balance.calibration.alone import measure_alone, train_alone
from awc_balance.calibration.calibration import Calibration
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.excess import Excess, excess
from awc_balance.calibration.judgement import Judgement, Verdict
from awc_balance.calibration.slopes import Slopes
from awc_balance.calibration.verdict import verdict

__all__ = [
    "Calibration",
    "Estimate",
    "Excess",
    "Judgement",
    "Slopes",
    "Verdict",
    "excess",
    "measure_alone",
    "train_alone",
    "verdict",
]
