"""By how much each modality's part of a prediction is trusted too much or too little: calibration slopes."""

from awc_balance.calibration.calibration import Calibration
from awc_balance.calibration.excess import Excess, excess
from awc_balance.calibration.slopes import Slopes

__all__ = ["Calibration", "Excess", "Slopes", "excess"]
