"""Values given on the command line as `name=value`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any


def assignments(option: str, given: Sequence[str], known: Collection[str] | None = None) -> dict[str, Any]:
    """Names and values, the latter as in JSON; a bare word is a string.

    >>> assignments("--option", ["alpha=0.5", "tensors=convolutions"])
    {'alpha': 0.5, 'tensors': 'convolutions'}

    Args:
        option: That they were given with.
        given: The words.
        known: The names that there are; None for any.

    Raises:
        ValueError: If a word is none, or its name is unknown.
    """
    parsed: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not equals or (known is not None and name not in known):
            names = "" if known is None else f" with a name of {', '.join(known)}"
            raise ValueError(f"`{option}` should be NAME=VALUE{names}. Got `{word}`.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
