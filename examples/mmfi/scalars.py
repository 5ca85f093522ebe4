"""Scalars by epoch for TensorBoard, if it is installed and wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class Scalars:
    """Writes the row of every epoch, nested names joined by slashes; a context manager that closes the file."""

    def __init__(self, folder: Path | None) -> None:
        """Write to a folder; to nowhere with None.

        Raises:
            ValueError: If a folder is given, and TensorBoard is not installed.
        """
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"`tensorboard` needs the package of that name. It does not import: {error}. "
                "Run `pip install tensorboard`, or leave the option out."
            ) from error
        self._writer = SummaryWriter(str(folder))

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        """Add the numbers of a row."""
        if self._writer is not None:
            for name, value in _flat(row):
                self._writer.add_scalar(name, value, epoch)

    def __enter__(self) -> Scalars:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for name, value in row.items():
        numbers += _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(prefix + name, value)]
    return numbers
