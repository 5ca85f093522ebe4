"""What each of two processes does in `test_processes.py`; started with the packed copy and a folder to write to."""

import json
import sys
from pathlib import Path

import torch

from examples.mmfi import processes
from examples.mmfi.batches import awc_batches, training_batches
from examples.mmfi.data import open_data
from examples.mmfi.learner import Learner
from examples.mmfi.settings import Resources
from examples.mmfi.training import train
from tests.mmfi.training.runs import AWC, settings_for, without_batch_statistics, without_times

CPU = torch.device("cpu")
STRONG = {**AWC, "alpha_superior": 2e7, "alpha_inferior": 1e7}


def steps_of_an_epoch(packed: Path, out: Path) -> None:
    """An epoch of AWC without batch statistics, whose outcome no number of processes should change."""
    settings = settings_for(packed, awc=STRONG, accumulation=2)
    data, rank, count = open_data(settings), processes.rank(), processes.count()
    learner = Learner(settings, CPU)
    without_batch_statistics(learner.model)
    learner.start_epoch(awc_batches(data.train, settings, CPU))
    for parts in training_batches(data.train, settings, CPU):
        learner.update(parts)
    state = {"model": learner.model.state_dict(), "awc": learner.awc.state_dict()}
    torch.save(state, out / f"state{rank}of{count}.pt")


def whole_run(packed: Path, out: Path) -> None:
    """A run with batch statistics, interrupted and resumed."""
    settings = settings_for(packed, awc=AWC)
    whole = train(settings, lambda: None, Resources(device="cpu"))

    def stop() -> None:
        raise KeyboardInterrupt

    resources = Resources(device="cpu", checkpoints=str(out))
    try:
        train(settings, stop, resources)
    except KeyboardInterrupt:
        resumed = train(settings, lambda: None, resources)
    rank = processes.rank()
    (out / f"run{rank}.json").write_text(json.dumps([without_times(whole), without_times(resumed)]))


if __name__ == "__main__":
    with processes.joined(CPU):
        steps_of_an_epoch(Path(sys.argv[1]), Path(sys.argv[2]))
        whole_run(Path(sys.argv[1]), Path(sys.argv[2]))
