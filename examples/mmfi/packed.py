"""A packed copy of MM-Fi, as `pack` writes it, opened for reading."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import Conventions
from examples.mmfi.layout import ClipId
from examples.mmfi.store import map_tables, read_index


class ClipRows(NamedTuple):
    """Rows of a clip in a packed copy: frame n is row `first + n - 1`."""

    first: int
    frames: int


class PackedClips:
    """A packed copy, memory-mapped. Cheap to send to another process, which maps the same files.

    Attributes:
        folder: Where it lies.
        clips: The rows of every clip, by name.
        modalities: The packed modalities.
        simulated: Whether the clips were made by `simulate`.
        conventions: Those it was packed with.
        tables: Memory-mapped arrays by name, see `clip_reader.packed_tables`.
    """

    def __init__(self, folder: Path) -> None:
        """Open what `pack` wrote.

        Raises:
            ValueError: The folder is no packed copy, a file of it was cut, or its index is damaged.
        """
        index = read_index(folder)
        self.folder = folder
        self.modalities: tuple[str, ...] = tuple(index["header"]["modalities"])
        self.simulated = bool(index["header"]["simulated"])
        self.conventions = Conventions.from_json(index["header"]["conventions"])
        self.clips = {
            ClipId.parse(name): ClipRows(entry["first"], entry["frames"])
            for name, entry in sorted(index["entries"].items())
        }
        self.tables = map_tables(folder, index)
        rows = len(self.tables["present"])
        for name, (first, frames) in self.clips.items():
            if first < 0 or frames < 0 or first + frames > rows:
                raise ValueError(
                    f"Every clip of `{folder}` should lie within its {rows} rows. `{name}` has rows {first} to "
                    f"{first + frames}: the index is damaged. Pack again into a new folder."
                )

    def __reduce__(self) -> tuple[type[PackedClips], tuple[Path]]:
        """Send the folder, not the data."""
        return type(self), (self.folder,)

    def present(self, modality: str) -> Array:
        """Whether each row holds a frame of the modality, `[rows]` bool."""
        column: Array = self.tables["present"][:, self.modalities.index(modality)]
        return column
