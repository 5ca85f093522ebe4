"""Checkpoints: written whole or not at all, and read with care."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]

_FORMAT = 1


def save(path: Path, run: Mapping[str, Any], state: State) -> None:
    """Write a checkpoint so that the file is, at any moment, the old one or the new one.

    Args:
        path: The file; its folder is made if need be.
        run: What the run is known by, which `load` compares.
        state: Tensors and plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            torch.save({"format": _FORMAT, "run": dict(run), "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path, run: Mapping[str, Any]) -> State | None:
    """Read a checkpoint, on the CPU; None if there is no such file.

    Raises:
        ValueError: The file is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = content["format"] == _FORMAT
    except Exception as error:  # torch raises a dozen unrelated kinds on damaged content
        raise ValueError(f"`{path}` should be a checkpoint. It does not read. Delete it to start anew.") from error
    if not known:
        raise ValueError(f"`{path}` should be of format {_FORMAT}. Got `{content['format']}`. Delete it to start anew.")
    others = [
        f"{name} = {content['run'].get(name)!r} in place of {value!r}"
        for name, value in run.items()
        if content["run"].get(name) != value
    ]
    if others:
        raise ValueError(
            f"`{path}` should be a checkpoint of this run. It was written with {', '.join(others)}. "
            "Repeat those settings, or choose another folder."
        )
    state: State = content["state"]
    return state


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The random state of torch in this process."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
