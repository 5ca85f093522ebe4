"""Table 2: what contributions add to a training step, for two to four modalities and three fusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from examples.machine import hardware
from examples.mmfi.conventions import MODALITIES
from examples.mmfi.models import FUSIONS
from examples.mmfi.packed import PackedClips
from examples.mmfi.prepared import describe as describe_settings
from examples.mmfi.reproduce.published import COSTS, OVERHEADS
from examples.mmfi.reproduce.tables import SIMULATED, titled
from examples.mmfi.settings import Settings
from examples.mmfi.timing import overhead, step_parts
from examples.report import Results, text_table

_PARTS = ("forward", "backward", "coalitions", "correlation", "score")
_NOTE = (
    "Median milliseconds of a step; overhead: coalitions, correlation and score in per cent of forward and backward. "
    "The ratio, not the time, is comparable between machines; published: two RTX 3090, batch 192."
)


@dataclass(frozen=True)
class Timing:
    """A model to be timed on some hardware."""

    name: str
    settings: Settings
    hardware: str
    seed: int = 0
    epochs: int = 1


def timings(common: Settings, device: torch.device) -> list[Timing]:
    """The nine models of Table 2: the first two, three and four modalities under every fusion."""
    return [
        Timing(f"step time {count} modalities {fusion}", _changed(common, fusion, count), hardware(device))
        for fusion in FUSIONS
        for count in COSTS
    ]


def measure(timing: Timing, tick: Callable[[], object]) -> dict[str, Any]:
    """Time one of them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = step_parts(timing.settings, device)
    tick()
    return {
        "run": asdict(timing),
        "simulated": PackedClips(Path(timing.settings.data)).simulated,
        "milliseconds": parts,
        "overhead_percent": overhead(parts),
    }


def describe(timing: Timing) -> dict[str, Any]:
    """What a timing is known by: the model, the batch, the hardware, and what the data holds."""
    return asdict(timing) | {"settings": describe_settings(timing.settings)}


def summarize(results: Results) -> dict[str, Any]:
    """The table as data, the paper's numbers beside ours."""
    simulated = any(result["simulated"] for result in results)
    return {
        "title": titled("Table 2: cost of contributions per step", simulated),
        "simulated": simulated,
        "hardware": results[0]["run"]["hardware"],
        "notes": [*([SIMULATED] if simulated else []), _NOTE],
        "rows": [_row(result) for result in results],
    }


def as_text(table: dict[str, Any], grid: Callable[[Sequence[str], Sequence[Sequence[str]]], str] = text_table) -> str:
    """The table for the terminal, or as another grid draws it."""
    columns = ["fusion, modalities", *_PARTS, "overhead", "published overhead", "published forward / backward"]
    rows = [
        [
            f"{row['fusion']}, {row['modalities']}",
            *(f"{row['milliseconds'][part]:.2f}" for part in _PARTS),
            f"{row['overhead_percent']:.2f} %",
            f"{row['published_overhead_percent']:.2f} %",
            "{forward:g} / {backward:g}".format(**row["published"]) if row["published"] else "",
        ]
        for row in table["rows"]
    ]
    heading = [f"{table['title']}, batch {table['rows'][0]['batch_size']}, {table['hardware']}", *table["notes"]]
    return "\n".join(heading) + "\n\n" + grid(columns, rows)


def _changed(common: Settings, fusion: str, count: int) -> Settings:
    return replace(common, fusion=fusion, modalities=MODALITIES[:count])


def _row(result: dict[str, Any]) -> dict[str, Any]:
    settings = result["run"]["settings"]
    fusion, count = settings["fusion"], len(settings["modalities"])
    published = COSTS[count]._asdict() if fusion == "concat" else None
    return {
        "fusion": fusion,
        "modalities": count,
        "batch_size": settings["batch_size"],
        "milliseconds": result["milliseconds"],
        "overhead_percent": result["overhead_percent"],
        "published_overhead_percent": OVERHEADS[fusion][count],
        "published": published,
    }
