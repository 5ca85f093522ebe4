"""Whether it helps to hold back what a verdict says overfits: `python -m tests.diagnose.followed normed 3`.

Every set is trained plainly and with the calibration rule, from the same random state, and tested on 3000 new samples.
"""

import sys

import torch

from tests.diagnose import mixed
from tests.diagnose.confusion import judged

FAMILIES = {
    "attentive": (mixed.attentive, mixed.noisy, torch.nn.functional.mse_loss),
    "normed": (mixed.normed, mixed.labelled, torch.nn.functional.cross_entropy),
}


def test_loss(family, name, seed, *, rule):
    """Of the last epoch."""
    make, target, loss = FAMILIES[family]
    model, _, _ = make(name, seed, rule=rule)
    torch.manual_seed(2000 + seed)
    inputs, scores = mixed.WORLDS[name].draw(3000)
    with torch.no_grad():
        return loss(model(inputs), target(scores)).item()


def main(family, seeds):
    """Print every change of the test loss beside the verdict on plain training."""
    torch.set_num_threads(1)
    for name in mixed.WORLDS:
        for seed in range(seeds):
            plain, ruled = (test_loss(family, name, seed, rule=rule) for rule in (False, True))
            found = judged(FAMILIES[family][0], name, seed)
            said = f"{found.kind}: {', '.join(sorted(found.modalities))}"
            print(f"{name:12} {seed} {plain:.3f} {ruled:.3f} {100 * (ruled / plain - 1):+.1f} % | {said}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
