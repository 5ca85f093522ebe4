"""One training run: a model of some modalities, trained plainly or balanced, and what it gave."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from examples.machine import hardware, versions
from examples.mmfi import checkpoint, processes
from examples.mmfi.batches import PartedBatches, Parts, method_batches, training_batches
from examples.mmfi.data import RunData, open_data
from examples.mmfi.evaluation import Evaluation
from examples.mmfi.laps import Laps
from examples.mmfi.learner import Learner, Progress
from examples.mmfi.prepared import describe
from examples.mmfi.scalars import Scalars
from examples.mmfi.settings import Resources, Settings
from examples.sweep import file_stem

Row = dict[str, Any]


def train(settings: Settings, tick: Callable[[], None], resources: Resources | None = None) -> dict[str, Any]:
    """Train, keep the epoch that is best on the held-out clips, and test it.

    Under `torchrun` all processes train one model together and return the same.

    Args:
        settings: The run.
        tick: Called after every epoch, also for those that a checkpoint holds.
        resources: What the run may use; None for the defaults.

    Returns:
        Plain values that JSON can hold: `run`; `simulated`; `frames`, see `RunData`; errors in mm of the chosen
        (`test`) and the last epoch (`test_last_epoch`); `spread_mm` and `poses` of test frames; `epochs`, a row each,
        with the mean loss in metres, what the method adds to it included, and of all its predictions together for
        decision-level fusion; `awc`, its history; `parameters`, `versions`, `hardware` and times.

    Raises:
        ValueError: If settings, data and resources do not fit together, the checkpoint cannot be used, or the
            loss is no longer finite.
    """
    resources = resources or Resources()
    device = processes.choose_device(resources.device)
    with processes.joined(device), Scalars(_scalars_folder(settings, resources)) as scalars:
        trainer = Trainer(settings, open_data(settings), device, resources)
        trainer.introduce()
        trainer.resume()
        for number, row in enumerate(trainer.rows, 1):
            scalars.add(row, number)
            tick()
        while trainer.epoch < settings.epochs:
            scalars.add(trainer.run_epoch(), trainer.epoch)
            tick()
        return trainer.finish()


class Trainer:
    """A run between its checkpoints: `run_epoch` until `epoch` is the last one, then `finish`.

    Attributes:
        learner: The model and what changes it.
        epoch: Finished epochs.
        step: Steps done in the epoch that is under way.
        rows: What was measured after every epoch.
    """

    def __init__(self, settings: Settings, data: RunData, device: torch.device, resources: Resources) -> None:
        """Build everything at its start."""
        self._settings, self._data, self._device, self._resources = settings, data, device, resources
        self._batches = training_batches(data.train, settings, device, resources.workers)
        self._method_batches = method_batches(data.train, settings, device, resources.workers)
        self._held_out = Evaluation(data.held_out, settings, device)
        self._test = Evaluation(data.test, settings, device)
        self.learner = Learner(settings, device, self._held_out.measured)
        self._described = describe(settings) | {"simulated": data.simulated}
        self._path = resources.checkpoints and Path(resources.checkpoints, f"{_stem(settings)}.pt")
        self.epoch, self.step = 0, 0
        self.rows: list[Row] = []
        self._best: dict[str, Tensor] = {}
        self._loss = torch.zeros((), device=device)
        self._laps = Laps()

    def introduce(self) -> None:
        """Say how many frames there are, if progress is wanted."""
        if self._shown:
            frames = self._data.frames
            used = {name: part["used"] for name, part in frames.items()}
            left_out = sum(part["left_out"] for part in frames.values())
            lacking = f"; {left_out} left out, which lack a modality" if left_out else ""
            text = "{train} frames to train on, {held_out} held out, {test} to test".format(**used)
            tqdm.write(f"{text}{lacking}")

    def run_epoch(self) -> Row:
        """Train for an epoch, or for what is left of it, and measure; returns the new row."""
        self._data.train.set_epoch(self.epoch)
        self._batches.order.begin(self.epoch, self.step)
        self._method_batches.order.begin(self.epoch)
        self._laps.start()
        if self.step == 0:
            self.learner.start_epoch(Shown(self._method_batches, self._bar(self._settings.method)))
            self._laps.end("method")
        self._end_epoch(self._run_steps())
        self.save()
        return self.rows[-1]

    def finish(self) -> dict[str, Any]:
        """Test, keep the weights if they are wanted, and give the result of `train`."""
        model = self.learner.model
        last = self._test.errors(model)
        model.load_state_dict(self._best)
        result = {
            "run": asdict(self._settings),
            "simulated": self._data.simulated,
            "frames": self._data.frames,
            "test": self._test.errors(model),
            "test_last_epoch": last,
            "spread_mm": self._test.spread(model),
            "poses": self._test.poses(model),
            "epochs": self.rows,
            "awc": self.learner.awc_history,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "versions": versions(),
            "hardware": hardware(self._device, processes.count()),
            "seconds": self._laps.seconds,
            "seconds_per_step": self._laps.seconds["steps"] / (self._batches.order.steps * self._settings.epochs),
        }
        if processes.rank() == 0:
            self._clean_up()
        return result

    def save(self) -> None:
        """Write a checkpoint, if there is a place for it."""
        if not self._path:
            return
        random = processes.gathered(checkpoint.random_state(self._device))
        own = processes.gathered(self.learner.own_state())
        if processes.rank() == 0:
            place = {"epoch": self.epoch, "step": self.step, "rows": self.rows, "seconds": self._laps.seconds}
            tensors = {"learner": self.learner.state_dict(), "best": self._best, "loss": self._loss}
            checkpoint.save(self._path, self._described, place | tensors | {"random": random, "own": own})
        self._laps.end("checkpoints")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            ValueError: If it is damaged, or of another run or number of processes.
        """
        state = checkpoint.load(self._path, self._described) if self._path else None
        if state is None:
            return
        if len(state["random"]) != processes.count():
            raise ValueError(
                f"A run should continue in as many processes as it began in. Got {processes.count()} in place of "
                f"{len(state['random'])}. Start that many, or delete `{self._path}`."
            )
        self.learner.load_state_dict(state["learner"])
        self.learner.set_own_state(state["own"][processes.rank()])
        self.epoch, self.step, self.rows = state["epoch"], state["step"], state["rows"]
        self._best, self._laps.seconds = state["best"], state["seconds"]
        self._loss.copy_(state["loss"])
        checkpoint.set_random_state(state["random"][processes.rank()], self._device)

    def _run_steps(self) -> float:
        """The steps that are left of the epoch; returns the mean loss of all of it.

        Raises:
            ValueError: If that is not finite.
        """
        steps, every = self._batches.order.steps, self._resources.checkpoint_steps
        for parts in self._bar(f"epoch {self.epoch + 1}/{self._settings.epochs}")(self._batches):
            self._loss += self.learner.update(parts)
            self.step += 1
            if every and self.step % every == 0 and self.step < steps:
                self._laps.end("steps")
                self.save()
        loss = processes.summed(self._loss).item() / (processes.count() * steps)
        self._laps.end("steps")
        if not math.isfinite(loss):
            raise ValueError(
                f"The loss should stay finite. Its mean in epoch {self.epoch + 1} is {loss}. Lower `learning_rate`, "
                "or use another `precision`."
            )
        return loss

    def _end_epoch(self, loss: float) -> None:
        self.learner.end_epoch()
        model = self.learner.model
        error = self._held_out.errors(model)["mpjpe_mm"]
        self.rows.append({"loss": loss, "held_out_mm": error, **self._held_out.contributions(model)})
        if error <= min(row["held_out_mm"] for row in self.rows):
            self._best = copy.deepcopy(model.state_dict())
        self.epoch, self.step = self.epoch + 1, 0
        self._loss.zero_()
        self._laps.end("measures")
        if self._shown:
            tqdm.write(f"epoch {self.epoch}: training loss {1000 * loss:.1f} mm, held-out clips {error:.1f} mm")

    def _clean_up(self) -> None:
        """Keep the best weights if they are wanted; the checkpoint of a finished run is of no more use."""
        if self._resources.weights:
            path = Path(self._resources.weights, f"{_stem(self._settings)}.weights.pt")
            checkpoint.save(path, self._described, self._best)
        if self._path:
            self._path.unlink(missing_ok=True)

    @property
    def _shown(self) -> bool:
        return self._resources.progress and processes.rank() == 0

    def _bar(self, name: str) -> Progress:
        return partial(tqdm, desc=name, unit="batch", leave=False, disable=not self._shown)


class Shown:
    """Batches that show their progress whenever they are read."""

    def __init__(self, batches: PartedBatches, progress: Progress) -> None:
        """Show the progress through `batches`."""
        self._batches, self._progress = batches, progress

    def __iter__(self) -> Iterator[Parts]:
        """Give the batches."""
        return iter(self._progress(self._batches))


def _scalars_folder(settings: Settings, resources: Resources) -> Path | None:
    wanted = resources.tensorboard and processes.rank() == 0
    return Path(resources.tensorboard or "", _stem(settings)) if wanted else None


def _stem(settings: Settings) -> str:
    return file_stem(settings, describe(settings))
