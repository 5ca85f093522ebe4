"""The data sets of the comparison, by name. A new one is one file and one row here."""

from benchmarks.compare.tasks import mars, mfeat, mmfi_simulated

TASKS = {
    "mars": mars.task,
    "mfeat_regression": mfeat.regression,
    "mfeat_classification": mfeat.classification,
    "mmfi_simulated": mmfi_simulated.task,
}
