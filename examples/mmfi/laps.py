"""Where the time goes."""

from __future__ import annotations

import time


class Laps:
    """Seconds by what they were spent on, measured from one lap to the next.

    Attributes:
        seconds: The sum of the laps of each kind.
    """

    def __init__(self) -> None:
        """Start now."""
        self.seconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begin a lap; what was since the last one is not counted."""
        self._since = time.perf_counter()

    def end(self, kind: str) -> None:
        """End a lap and begin the next."""
        now = time.perf_counter()
        self.seconds[kind] = self.seconds.get(kind, 0.0) + now - self._since
        self._since = now
