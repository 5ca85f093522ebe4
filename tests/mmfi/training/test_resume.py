"""Resuming equals not having stopped, whatever it was that stopped the run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from examples.mmfi import checkpoint
from examples.mmfi.__main__ import main
from examples.mmfi.learner import Learner
from examples.mmfi.settings import Resources
from examples.mmfi.training import train
from tests.mmfi.raw_tree import REPOSITORY
from tests.mmfi.training.runs import awc, same_tensors, settings_for, without_times


class StoppedError(Exception):
    pass


def resources(folder, steps=None):
    return Resources(device="cpu", checkpoints=str(folder), checkpoint_steps=steps, weights=str(folder))


def weights(folder):
    (file,) = folder.glob("*.weights.pt")
    return checkpoint.load(file, {})


# Dropout in the attention fusion makes random state count; so does the window, which closes on the way.
VARIANTS = [{}, {**awc(), "fusion": "attention", "accumulation": 2}]


@pytest.fixture(scope="module", params=VARIANTS, ids=["plain", "awc"])
def uninterrupted(request, simulated, tmp_path_factory):
    settings, folder = settings_for(simulated[1], **request.param), tmp_path_factory.mktemp("whole")
    return settings, train(settings, lambda: None, resources(folder)), weights(folder)


def test_weights_say_that_they_are_of_simulated_data(uninterrupted, tmp_path):
    settings = uninterrupted[0]
    train(settings, lambda: None, resources(tmp_path))
    (file,) = tmp_path.glob("*.weights.pt")
    assert torch.load(file, weights_only=True)["run"]["simulated"] is True


@pytest.mark.parametrize("last", range(1, 9))
def test_a_run_stopped_after_any_step_goes_on_as_if_it_had_not(uninterrupted, tmp_path, monkeypatch, last):
    settings, result, best = uninterrupted
    update, steps = Learner.update, []

    def stop(learner, parts):
        if len(steps) == last:
            raise StoppedError
        steps.append(1)
        return update(learner, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", stop)
        with pytest.raises(StoppedError):
            train(settings, lambda: None, resources(tmp_path, steps=2))
    ticks = []
    resumed = train(settings, lambda: ticks.append(1), resources(tmp_path, steps=2))
    assert without_times(resumed) == without_times(result)
    assert same_tensors(weights(tmp_path), best)
    assert len(ticks) == 3


def test_steps_before_a_checkpoint_are_not_done_again(uninterrupted, tmp_path, monkeypatch):
    settings = uninterrupted[0]
    steps, update = [], Learner.update

    def count(learner, parts):
        steps.append(1)
        if len(steps) == 6:  # the third of the second epoch, which is checkpointed after its second
            raise StoppedError
        return update(learner, parts)

    monkeypatch.setattr(Learner, "update", count)
    with pytest.raises(StoppedError):
        train(settings, lambda: None, resources(tmp_path, steps=2))
    steps.clear()
    steps.extend([1] * 6)
    train(settings, lambda: None, resources(tmp_path, steps=2))
    assert len(steps) == 6 + 4


def arguments(packed, out):
    options = "--split S2 --modalities rgb wifi --preset tiny --epochs 12 --batch-size 16 --held-out 0.2 --workers 0"
    awc = "--awc --window 8 --fusion attention --checkpoint-steps 1 --device cpu"
    return ["train", str(packed), "--out", str(out), *options.split(), *awc.split()]


def finished(packed, out):
    assert main(arguments(packed, out)) == 0
    (file,) = out.glob("*.json")
    return without_times(json.loads(file.read_text()))


def test_a_killed_process_goes_on_to_the_same_result(simulated, tmp_path):
    packed, out = simulated[1], tmp_path / "killed"
    command = [sys.executable, "-m", "examples.mmfi", *arguments(packed, out)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 40
        while progress_of(out) < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, "the run should be going on when it is killed"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert 2 <= progress_of(out) < 12
    assert finished(packed, out) == finished(packed, tmp_path / "whole")
    assert same_tensors(weights(out), weights(tmp_path / "whole"))


def progress_of(out: Path) -> int:
    """Finished epochs of the checkpoint in a folder; -1 if there is none."""
    found = [file for file in out.glob("*.pt") if ".weights" not in file.name]
    return checkpoint.load(found[0], {})["epoch"] if found else -1


def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "run.pt"
    checkpoint.save(path, {"name": "x"}, {"epoch": 1})

    def fail(content, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"name": "x"}, {"epoch": 2})
    assert checkpoint.load(path, {"name": "x"}) == {"epoch": 1}


def test_there_is_nothing_to_load_at_first(tmp_path):
    assert checkpoint.load(tmp_path / "run.pt", {}) is None
