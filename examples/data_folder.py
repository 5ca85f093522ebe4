"""Where a data set lies: an option, an environment variable, or a place near the project."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "AWC_BALANCE_DATA"
"""Environment variable that names the folder with one folder per data set: `mars`, `mfeat`, `mmfi`."""

_PROJECT = Path(__file__).resolve().parents[1]
_PLACES = (_PROJECT / "data", _PROJECT.parent / "shared" / "data")


def find(name: str, inside: str, option: str | Path | None = None) -> Path:
    """The folder of a data set.

    Args:
        name: Of the data set, and so of its folder in the places searched.
        inside: A file or folder that it has to hold.
        option: The user's own path, which is the only one looked at if it is given.

    Raises:
        FileNotFoundError: With all places looked at.
    """
    if option is not None:
        candidates = [Path(option)]
    elif VARIABLE in os.environ:
        candidates = [Path(os.environ[VARIABLE]) / name]
    else:
        candidates = [place / name for place in _PLACES]
    for candidate in candidates:
        if (candidate / inside).exists():
            return candidate
    looked = "\n  ".join(str(candidate / inside) for candidate in candidates)
    raise FileNotFoundError(
        f"The data set `{name}` should hold {inside}. Looked for\n  {looked}\n"
        f"Pass --data with its folder, or set {VARIABLE} to the folder that holds `{name}`."
    )
