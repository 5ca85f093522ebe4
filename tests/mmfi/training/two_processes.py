"""What each of two processes does in `test_processes.py`; started with the packed copy and a folder to write to."""

import json
import sys
from pathlib import Path

import torch

from examples.mmfi import processes
from examples.mmfi.batches import method_batches, training_batches
from examples.mmfi.data import open_data
from examples.mmfi.evaluation import Evaluation
from examples.mmfi.learner import Learner
from examples.mmfi.settings import Resources
from examples.mmfi.training import train
from tests.mmfi.training.runs import awc, settings_for, without_batch_statistics, without_times

CPU = torch.device("cpu")
METHODS = {
    "AWC": awc(),
    "AGM": {"method": "AGM", "epochs": 2},
    "MMPareto": {"method": "MMPareto", "epochs": 2},
    "G-Blending": {"method": "G-Blending", "method_options": {"super_epoch": 1}, "epochs": 2},
}
"""One that pulls, one with numbers of its own in every process, two with heads, one that reads held-out clips."""
STRONG = awc(alpha_superior=2e7, alpha_inferior=1e7)


def steps_of_an_epoch(packed: Path, out: Path) -> None:
    """An epoch of AWC without batch statistics, whose outcome no number of processes should change."""
    settings = settings_for(packed, **STRONG, accumulation=2)
    data, rank, count = open_data(settings), processes.rank(), processes.count()
    learner = Learner(settings, CPU)
    without_batch_statistics(learner.model)
    learner.start_epoch(method_batches(data.train, settings, CPU))
    for parts in training_batches(data.train, settings, CPU):
        learner.update(parts)
    state = {"model": learner.model.state_dict(), "balancer": learner.balancer.state_dict()}
    torch.save(state, out / f"state{rank}of{count}.pt")
    held_out = Evaluation(data.held_out, settings, CPU)
    measures = {kind: getattr(held_out, kind)(learner.model) for kind in ("errors", "contributions", "spread")}
    (out / f"measures{rank}of{count}.json").write_text(json.dumps(measures))


def whole_run(packed: Path, out: Path, method: dict[str, object]) -> list[object]:
    """A run with batch statistics, and the same interrupted and resumed."""
    settings = settings_for(packed, **method)
    whole = train(settings, lambda: None, Resources(device="cpu"))

    def stop() -> None:
        raise KeyboardInterrupt

    resources = Resources(device="cpu", checkpoints=str(out))
    try:
        train(settings, stop, resources)
    except KeyboardInterrupt:
        resumed = train(settings, lambda: None, resources)
    return [without_times(whole), without_times(resumed)]


if __name__ == "__main__":
    with processes.joined(CPU):
        steps_of_an_epoch(Path(sys.argv[1]), Path(sys.argv[2]))
        runs = {name: whole_run(Path(sys.argv[1]), Path(sys.argv[2]), method) for name, method in METHODS.items()}
        Path(sys.argv[2], f"run{processes.rank()}.json").write_text(json.dumps(runs))
