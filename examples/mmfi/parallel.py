"""Work on many clips in several processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from examples.workers import start_worker

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Apply a function to items in processes and give the results in order, a few at a time.

    Only `2 * workers` results wait to be taken, however large the items are.

    Args:
        function: Picklable, as are the items and the results.
        items: What to apply it to.
        workers: Processes; with 1 the work is done in this one.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"`workers` should be 1 or more. Got `{workers}`. Pass 1 to work in this process.")
    if workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # safe whatever threads the caller has
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
