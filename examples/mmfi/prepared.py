"""A packed copy from whatever the user has: one that is packed, or the original files, which are packed first."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.mmfi.conventions import Conventions
from examples.mmfi.pack import pack
from examples.mmfi.settings import Settings
from examples.mmfi.store import INDEX, read_index


def packed_copy(data: Path, beside: Path) -> Path:
    """The packed copy of some data; original files are packed, or packed on, into a folder beside the results.

    Args:
        data: A packed copy or the root of the original files.
        beside: The folder of the results.

    Raises:
        ValueError: If it is neither.
    """
    if (data / INDEX).is_file():
        return data.resolve()
    root = data.resolve()
    # Two roots of one name are not to be mixed.
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    out = beside.resolve().parent / f"{root.name}-packed-{digest}"
    if not (out / INDEX).is_file():
        print(f"{data} is not packed yet: packing into {out}")
    pack(root, out, Conventions(), workers=min(4, os.cpu_count() or 1), progress=True)
    return out


def fingerprint(packed: Path) -> str:
    """What a packed copy holds as a short text: it changes with any clip, not when the folder is moved.

    Raises:
        ValueError: If the folder is no packed copy.
    """
    return hashlib.sha256(json.dumps(read_index(packed), sort_keys=True).encode()).hexdigest()[:16]


def describe(run: Settings) -> dict[str, Any]:
    """What a run is known by: its settings, and what the data holds in place of where it lies."""
    return asdict(run) | {"data": fingerprint(Path(run.data))}
