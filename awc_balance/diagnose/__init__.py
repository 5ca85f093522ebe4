"""What contributions say about a trained model, in verdicts and in plain words; and the command that prints them."""

from awc_balance.diagnose.diagnosis import Advice, Diagnosis, Finding, Role, diagnose
from awc_balance.diagnose.measured import Measured
from awc_balance.diagnose.words import sentences

__all__ = ["Advice", "Diagnosis", "Finding", "Measured", "Role", "diagnose", "sentences"]
