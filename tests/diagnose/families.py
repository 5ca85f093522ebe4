"""Sets with a known answer, by family, and the verdict on a model that is trained on one of them."""

from awc_balance import Calibration
from awc_balance.calibration import train_alone
from awc_balance.diagnose import verdict
from tests.diagnose import mixed, sets

FAMILIES = {
    "regression": (sets.regression, sets.RIGHT),
    "classes": (sets.classes, sets.RIGHT_OF_CLASSES),
    "attentive": (mixed.attentive, mixed.RIGHT),
    "normed": (mixed.normed, mixed.RIGHT),
}
"""By name, what makes (model, training batches, held-out batches) of a set and a seed, and the right answers by set."""


def judged(family, name, seed, *, alone=False):
    """The verdict on a model that is trained on a set; with `alone` every modality is also trained alone."""
    return verdicts(family(name, seed), alone=alone)[-1]


def verdicts(trained, *, alone=True):
    """The verdict without `train_alone`, and, where the set is large enough and it is wanted, that with it."""
    model, training, held_out, _ = trained
    calibration = Calibration(model, model.encoders)
    slopes = calibration.evaluate(training, costs=False), calibration.evaluate(held_out)
    found = [verdict(*slopes)]
    if alone and slopes[1].costs:
        found.append(verdict(*slopes, train_alone(model, model.encoders, training, held_out)))
    return found
