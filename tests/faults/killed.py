"""Train in processes that are killed and go on from their last checkpoint; run by `test_killed.py`.

One interpreter imports torch once and forks before it computes anything, so that a run costs no start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

import sklearn.cluster  # noqa: F401 - and the next one: once here, not in every process
import torch
import torch._dynamo
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer
from tests.balancers.methods import METHODS, easy, optimizer_of
from tests.models import Concat, build

EPOCHS, EVERY = 3, 3
"""Epochs of 4 batches, and steps from one checkpoint to the next, so that many lie in the middle of an epoch."""

KILLS = 2
"""How often a run is killed before it may end."""


class Clock:
    """Counts what happens in a process, and kills it without a word at a given count."""

    def __init__(self, last=None):
        self.now, self.last = 0, last

    def tick(self):
        self.now += 1
        if self.now == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Noisy(Concat):
    """With batch statistics and dropout, which a resumed run has to find again."""

    clock = Clock()

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, inputs):
        self.clock.tick()
        return super().forward(inputs)


class Regularized:
    """`AWCRegularizer` in the loop of the balancers, by its term of the loss."""

    def __init__(self, model, criterion):
        self.awc = AWCRegularizer(model, model.encoders, criterion, alpha_superior=50.0, alpha_inferior=20.0, window=2)
        self.model, self.criterion = model, criterion
        self.start_epoch, self.state_dict = self.awc.start_epoch, self.awc.state_dict
        self.load_state_dict, self.parameters = self.awc.load_state_dict, self.awc.parameters

    def loss(self, batch):
        return self.criterion(self.model(batch[0]), batch[1]) + self.awc()

    def adjust_gradients_(self):
        pass


def built(name, clock):
    Noisy.clock = clock
    model = build(Noisy).train()
    if name == "AWCRegularizer":
        return model, Regularized(model, mse_loss)
    return model, METHODS[name](model, model.encoders, mse_loss)


class Loader(list):
    clock = None

    def __iter__(self):
        for batch in super().__iter__():
            self.clock.tick()
            yield batch


def train(name, folder, clock):
    """From the last checkpoint, if there is one, to the end."""
    model, balancer = built(name, clock)
    loader = Loader(easy(model, mse_loss))
    loader.clock = clock
    optimizer = optimizer_of(model, balancer, "Adam")
    parts, done = {"model": model, "balancer": balancer, "optimizer": optimizer}, 0
    torch.manual_seed(1)  # dropout
    if (folder / "last.pt").exists():
        saved = torch.load(folder / "last.pt")
        for part, state in saved["states"].items():
            parts[part].load_state_dict(state)
        torch.set_rng_state(saved["random"])
        done = saved["done"]
    for step in range(done, EPOCHS * len(loader)):
        if step % len(loader) == 0:
            balancer.start_epoch(loader)
        balancer.loss(loader[step % len(loader)]).backward()
        balancer.adjust_gradients_()
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
        if step % EVERY == EVERY - 1:
            states = {part: thing.state_dict() for part, thing in parts.items()}
            save({"states": states, "random": torch.get_rng_state(), "done": step + 1}, folder, clock)
    torch.save([model.state_dict(), balancer.state_dict()], folder / "end.pt")
    (folder / "events").write_text(str(clock.now))


def save(content, folder, clock):
    """In two parts, with a chance to be killed after each."""
    torch.save(content, folder / "draft.pt")
    whole = (folder / "draft.pt").read_bytes()
    with (folder / "draft.pt").open("wb") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        clock.tick()
        file.write(whole[len(whole) // 2 :])
    clock.tick()
    (folder / "draft.pt").replace(folder / "last.pt")
    clock.tick()


def in_a_process(name, folder, last=None):
    """How the process ended: 0, or minus the signal that killed it."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(name, folder, Clock(last))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder, names):
    torch.set_num_threads(1)
    found = {}
    for name in names:
        whole = folder / f"{name} whole"
        codes = [in_a_process(name, whole)]
        events = int((whole / "events").read_text())
        draw = random.Random(name)
        broken = folder / f"{name} broken"
        lasts = [draw.randint(1, events // 2) for _ in range(KILLS)]
        codes += [in_a_process(name, broken, last) for last in lasts] + [in_a_process(name, broken)]
        found[name] = {"codes": codes, "events": events, "killed at": lasts}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
