"""What threads of one process have to share: a model that is measured, and settings that are one for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock, get_ident

from torch import nn

_LOCK = Lock()
_USED: dict[int, int] = {}
"""The thread that measures with a module, by the identity of the module."""


@contextmanager
def only_thread(model: nn.Module) -> Iterator[None]:
    """Keep other threads from measuring the model, or a part of it, meanwhile; the same thread may.

    Raises:
        RuntimeError: If another thread does already.
    """
    parts, me = {id(module) for module in model.modules()}, get_ident()
    with _LOCK:
        if any(_USED.get(part, me) != me for part in parts):
            raise RuntimeError(
                "A model should be measured by one thread at a time, since its encoders return recorded features "
                f"meanwhile. Got a {type(model).__name__} that another thread measures. Take turns, with a "
                "threading.Lock around start_epoch, estimate, evaluate, update and loss, or give each thread a copy."
            )
        new = parts - _USED.keys()
        _USED.update(dict.fromkeys(new, me))
    try:
        yield
    finally:
        with _LOCK:
            for part in new:
                del _USED[part]


class SharedSetting:
    """A setting of the whole process that several threads may want at once.

    The first one makes it, and the last one takes it back; were each to put back what it found, the setting could
    outlast all of them.

    Args:
        setting: A context manager that makes it.

    Example:
        >>> from contextlib import redirect_stdout
        >>> from io import StringIO
        >>> quiet = SharedSetting(lambda: redirect_stdout(StringIO()))
        >>> with quiet(), quiet():
        ...     print("unheard")
        >>> print("heard")
        heard
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[object]]) -> None:
        """See the class."""
        self._setting = setting
        self._lock = Lock()
        self._users = 0
        self._made = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The setting for as long as the context lasts."""
        with self._lock:
            if not self._users:
                self._made.enter_context(self._setting())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._made.close()
