"""Append-only tables of fixed-size records, memory-mapped for reading and committed entry by entry.

A store is a folder with one flat file per table and `index.json`, which says how many records of each file
count. An entry is added by appending its records and then replacing the index in one step: whatever a killed
writer left behind the committed records is cut off by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from awc_balance.report.files import write_whole
from examples.mmfi.arrays import Array

Json = dict[str, Any]

INDEX = "index.json"
_FORMAT = 3


class Table(NamedTuple):
    """Kind of one record: its numpy dtype and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class StoreWriter:
    """Adds entries to a store, new or begun earlier; a context manager that closes the files.

    Attributes:
        entries: Committed entries by key.
        lengths: Committed records by table.
    """

    def __init__(self, folder: Path, tables: Mapping[str, Table], header: Json) -> None:
        """Open or create a store.

        Args:
            folder: New, empty, or a store with the same tables and header.
            tables: Record kinds by table name.
            header: What readers need to know, JSON data.

        Raises:
            ValueError: The folder holds other things, or a store with other tables or another header.
        """
        self._folder = folder
        self._tables = dict(tables)
        self._header: Json = json.loads(json.dumps(header))
        self.entries: dict[str, Json] = {}
        self.lengths = dict.fromkeys(tables, 0)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / INDEX).exists():
            self._resume()
        elif others := sorted(path.name for path in folder.iterdir() if path.name != f"{INDEX}.tmp"):
            raise ValueError(
                f"The output should be a new folder or one packed earlier. `{folder}` holds "
                f"{', '.join(others[:5])} but no index. Name another folder."
            )
        else:
            self._commit()
        self._files: dict[str, BinaryIO] = {name: _table_path(folder, name).open("ab") for name in tables}
        for name, file in self._files.items():
            file.truncate(self._committed_bytes(name))

    def append(self, key: str, entry: Json, arrays: Mapping[str, Array]) -> None:
        """Add the records of one entry to every table and commit; an entry of the same key is replaced.

        Args:
            key: Name of the entry.
            entry: JSON data about it; a digest of the records is added as `digest`.
            arrays: `(records, *shape)` by table name, one for every table.

        Raises:
            OSError: Another process writes to the same store.
        """
        lengths, digest = dict(self.lengths), hashlib.blake2b(digest_size=16)
        for name, table in self._tables.items():
            records = np.ascontiguousarray(arrays[name], dtype=table.dtype).reshape(-1, *table.shape)
            lengths[name] += len(records)
            file = self._files[name]
            content = records.tobytes()
            digest.update(content)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if file.tell() != lengths[name] * table.record_bytes:
                raise OSError(
                    f"One process at a time should write to a store. `{self._folder}` is being written to by "
                    "another one. Stop it, then run again."
                )
        self.entries[key] = entry | {"digest": digest.hexdigest()}
        self.lengths = lengths
        self._commit()

    def __enter__(self) -> StoreWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; what was not committed does not count."""
        for file in self._files.values():
            file.close()

    def _resume(self) -> None:
        index = read_index(self._folder)
        tables = {name: Table(entry["dtype"], tuple(entry["shape"])) for name, entry in index["tables"].items()}
        if tables != self._tables or index["header"] != self._header:
            raise ValueError(
                f"`{self._folder}` should be continued as it was begun. Changed: "
                f"{', '.join(_differences(index['header'], self._header)) or 'the tables'}. "
                "Repeat the earlier options, or name a new folder."
            )
        self.entries = index["entries"]
        self.lengths = {name: entry["length"] for name, entry in index["tables"].items()}
        for name in tables:
            _check_size(_table_path(self._folder, name), self._committed_bytes(name))

    def _committed_bytes(self, name: str) -> int:
        return self.lengths[name] * self._tables[name].record_bytes

    def _commit(self) -> None:
        tables = {name: {**table._asdict(), "length": self.lengths[name]} for name, table in self._tables.items()}
        index = {"format": _FORMAT, "header": self._header, "tables": tables, "entries": self.entries}
        write_json(self._folder / INDEX, index)


def read_index(folder: Path) -> Json:
    """Read the index of a store: `header`, `tables` and `entries`.

    Raises:
        ValueError: The folder is no store, or one of another format.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"`{folder}` should be a packed folder. Looked for `{path}`. "
            "Make one with `python -m examples.mmfi pack ROOT OUT`."
        )
    try:
        index: Json = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise _damaged_index(path, "It does not read") from error
    if index.get("format") != _FORMAT:
        raise ValueError(f"`{path}` should be of format {_FORMAT}. Got `{index.get('format')}`. Pack the data again.")
    for name in ("header", "tables", "entries"):
        if not isinstance(index.get(name), dict):
            raise _damaged_index(path, f"It has no `{name}`")
    return index


def map_tables(folder: Path, index: Json) -> dict[str, Array]:
    """Memory-map the committed records of every table, read-only, `(records, *shape)` by table name.

    Raises:
        ValueError: A file is shorter than the index says.
    """
    tables = {}
    for name, entry in index["tables"].items():
        table = Table(entry["dtype"], tuple(entry["shape"]))
        shape = (entry["length"], *table.shape)
        _check_size(_table_path(folder, name), entry["length"] * table.record_bytes)
        if entry["length"] == 0:  # an empty file cannot be mapped
            tables[name] = np.empty(shape, table.dtype)
        else:
            path = _table_path(folder, name)
            tables[name] = np.asarray(np.memmap(path, dtype=table.dtype, mode="r", shape=shape))
    return tables


def write_json(path: Path, data: Json) -> None:
    """Write JSON so that the file is, at any moment, either the old one or the new one."""
    write_whole(path, json.dumps(data, indent=1))


def _damaged_index(path: Path, fault: str) -> ValueError:
    return ValueError(
        f"`{path}` should be the index of a packed folder. {fault}. Pack the data again, into an empty folder."
    )


def _table_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.exists() else 0
    if size < expected:
        raise ValueError(
            f"`{path}` should have at least {expected} bytes. Got {size}: it was copied incompletely or cut. "
            "Copy it again, or pack the data into a new folder."
        )


def _differences(old: object, new: object, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _differences(old.get(key), new.get(key), key)]
    return [] if old == new else [f"{name} from {old} to {new}"]
