"""Many runs, in parallel processes, each kept in a file of its own as soon as it ends, and reused the next time."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from awc_balance.report.files import write_whole
from examples.workers import deaf, start_worker

Tick = Callable[[], None]


class Settings(Protocol):
    """The settings of a run: a dataclass with a name, a seed and a number of epochs."""

    @property
    def name(self) -> str:
        """In tables and file names."""

    @property
    def seed(self) -> int:
        """Of all randomness."""

    @property
    def epochs(self) -> int:
        """How often `tick` is called."""


def sweep(
    train: Callable[[Any, Tick], dict[str, Any]],
    runs: Sequence[Any],
    folder: Path,
    describe: Callable[[Any], dict[str, Any]],
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Do all runs and return the results of those that are finished, in order.

    Ctrl-C stops the sweep; finished runs keep their files, and are not done again.

    Args:
        train: `train(run, tick) -> result`, a module-level function that calls `tick` after every epoch.
        runs: The settings, with `name`, `seed` and `epochs`.
        folder: Where results go, one JSON file per run.
        describe: From settings to plain values. A run is known by these.
        workers: Processes with one thread each; None: one per core; 0: one run after the other in this process,
            with all its threads, for a GPU that a run fills.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = _files(runs, folder, describe)
    todo = [i for i, file in enumerate(files) if not file.exists()]
    jobs = [(runs[i], files[i]) for i in todo]
    if jobs and workers == 0:
        _work_here(train, jobs)
    elif jobs:
        _work(train, jobs, workers or os.cpu_count() or 1)
    return finished(runs, folder, describe)


def finished(runs: Sequence[Any], folder: Path, describe: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of those runs that a sweep has finished, in order.

    Args:
        runs: The settings.
        folder: Of the sweep.
        describe: That of the sweep.
    """
    return [read_result(file) for file in _files(runs, folder, describe) if file.exists()]


def _files(runs: Sequence[Any], folder: Path, describe: Callable[[Any], dict[str, Any]]) -> list[Path]:
    return [folder / f"{file_stem(run, describe(run))}.json" for run in runs]


def read_result(path: Path) -> dict[str, Any]:
    """Read the result of a finished run.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"`{path}` should be a result. It does not read. Delete it to do the run again.") from error
    return result


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def file_stem(run: Settings, description: dict[str, Any]) -> str:
    """The name of a run's files, without an ending: a run with other settings has another."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    return f"{file_words(run.name)}-seed{run.seed}-{digest}"


def file_words(name: str) -> str:
    """A name as a part of a file name.

    >>> file_words("mfeat, regression")
    'mfeat-regression'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _work_here(train: Callable[[Any, Tick], dict[str, Any]], jobs: list[tuple[Any, Path]]) -> None:
    with tqdm(total=sum(run.epochs for run, _ in jobs), unit="epoch") as bar:
        for number, (run, file) in enumerate(jobs):
            try:
                write_json(file, train(run, bar.update))
            except KeyboardInterrupt:
                _say_stopped(bar, len(jobs) - number, len(jobs))
                return
            _say_done(bar, run)


def _say_done(bar: Any, run: Settings) -> None:  # noqa: ANN401 - tqdm carries no types
    bar.write(f"done: {run.name}, seed {run.seed}", file=sys.stderr)


def _say_stopped(bar: Any, left: int, total: int) -> None:  # noqa: ANN401 - tqdm carries no types
    bar.write(f"stopped: {left} of {total} runs were not finished; run again to go on", file=sys.stderr)


def _work(train: Callable[[Any, Tick], dict[str, Any]], jobs: list[tuple[Any, Path]], workers: int) -> None:
    context = multiprocessing.get_context("spawn")  # forking a process that has run torch can hang
    done = context.Value("i", 0)
    total = sum(run.epochs for run, _ in jobs)
    with deaf():
        pool = context.Pool(min(workers, len(jobs)), _start, (done,))
    with pool, tqdm(total=total, unit="epoch", smoothing=0.05) as bar:
        waiting = [(pool.apply_async(_run, (train, run)), run, file) for run, file in jobs]
        try:
            while waiting:
                still = []
                for result, run, file in waiting:
                    if result.ready():
                        write_json(file, result.get())
                        _say_done(bar, run)
                    else:
                        still.append((result, run, file))
                waiting = still
                if waiting:
                    waiting[0][0].wait(0.5)
                bar.update(done.value - bar.n)
            pool.close()  # and let processes end by themselves, so that libraries in them can tidy up
            pool.join()
        except KeyboardInterrupt:
            pool.terminate()
            _say_stopped(bar, len(waiting), len(jobs))


_done: Synchronized[int]


def _start(done: Synchronized[int]) -> None:
    """In every worker: one thread."""
    global _done
    _done = done
    torch.set_num_threads(1)
    start_worker()


def _run(train: Callable[[Any, Tick], dict[str, Any]], run: Any) -> dict[str, Any]:  # noqa: ANN401
    return train(run, partial(_tick, _done))


def _tick(done: Synchronized[int]) -> None:
    with done.get_lock():
        done.value += 1
