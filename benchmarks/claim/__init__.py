"""The claim of the calibration rule, tested as a claim: `protocol.md` says what would count as failure."""
