"""What the worker processes of the examples do at their start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def start_worker() -> None:
    """Leave Ctrl-C to the process that started this one, and end with it, also where it is killed.

    A worker that goes on alone would write to the files of the one that the user starts in its place.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment, as processes that are started meanwhile go on to do, from their first import."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
