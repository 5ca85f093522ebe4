"""What is known about a trained model's modalities, in a verdict and in plain words; and the command that prints it."""

from awc_balance.calibration import Judgement, Verdict, measure_alone, train_alone, verdict
from awc_balance.diagnose.diagnosis import Diagnosis, Finding, Role, diagnose
from awc_balance.diagnose.measured import Measured
from awc_balance.diagnose.words import sentences

__all__ = [
    "Diagnosis",
    "Finding",
    "Judgement",
    "Measured",
    "Role",
    "Verdict",
    "diagnose",
    "measure_alone",
    "sentences",
    "train_alone",
    "verdict",
]
