"""How often verdicts on sets with a known answer are right: `python -m tests.diagnose.confusion regression 10`.

With `alone` as a third argument every modality is also trained alone.
"""

import sys
from collections import Counter, defaultdict

import torch

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


def judged(family, name, seed, *, alone=False):
    """The verdict on a model that is trained on a set."""
    model, training, held_out = family(name, seed)
    calibration = Calibration(model, model.encoders)
    on_training, on_held_out = calibration.evaluate(training, costs=False), calibration.evaluate(held_out)
    known = train_alone(model, model.encoders, training, held_out) if alone and on_held_out.costs else None
    return verdict(on_training, on_held_out, known)


def main(family, seeds, *, alone):
    """Print every verdict, then the table."""
    torch.set_num_threads(1)
    make, right = FAMILIES[family]
    table = defaultdict(Counter)
    for seed in range(seeds):
        for name, answers in right.items():
            found = judged(make, name, seed, alone=alone)
            fits = (found.kind, set(found.modalities)) in answers
            said = f"{found.kind}: {', '.join(sorted(found.modalities))}"
            table[name][
                f"{said} ({'right' if fits else 'cannot tell' if found.kind == 'cannot tell' else 'wrong'})"
            ] += 1
            print(seed, name, "|", said, "|", *found.sentences()[1:], flush=True)  # noqa: T201
    for name, counts in table.items():
        print(f"{name:12}", "; ".join(f"{count} {said}" for said, count in counts.most_common()))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), alone="alone" in sys.argv[3:])
