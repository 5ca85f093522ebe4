"""What a result was made with: versions and hardware, without the name of the machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import awc_balance


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of the packages that results depend on."""
    packages = {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}
    own = {"python": platform.python_version(), "awc_balance": awc_balance.__version__, "torch": torch.__version__}
    return own | packages


def hardware(device: torch.device, processes: int = 1) -> str:
    """The accelerator or processor that computes, in words.

    Args:
        device: Where the model is.
        processes: How many such devices work together.
    """
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    return f"{processes} x {torch.get_num_threads()} threads of {processor_name()}"


def machine(device: torch.device) -> dict[str, Any]:
    """Versions and hardware of this process, for the record of a run."""
    return {"versions": versions(), "hardware": hardware(device)}


def machines(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The machines that runs were done on, each once: a sweep may be stopped on one and go on on another."""
    found: list[dict[str, Any]] = []
    for record in records:
        if record["machine"] not in found:
            found.append(record["machine"])
    return found


def processor_name() -> str:
    """The model of the processor, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
