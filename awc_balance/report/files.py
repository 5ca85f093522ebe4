"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file so that it is, at any moment, the old one or the new one.

    Args:
        path: The file; its folder is made if need be.
        content: Text, which is written in UTF-8, or bytes.

    Returns:
        The path of the file.

    Raises:
        OSError: If it cannot be written, say because the disk is full. An old file is as it was then.
    """
    target = Path(path).resolve()  # a link stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:80]}.{uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="xmlcharrefreplace"))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return Path(path)
