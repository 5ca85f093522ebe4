"""What the runs say together: summary, table, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples import figures
from examples.figures import Poses
from examples.mars.data import MODALITIES
from examples.mars.training import PLAIN
from examples.report import (
    CONTRIBUTION_COLUMNS,
    Results,
    cells,
    contribution_rows,
    contributions,
    kind,
    named,
    text_table,
)

BONES = (
    (0, 1), (1, 20), (20, 2), (2, 3),
    (20, 4), (4, 5), (5, 6), (6, 7), (20, 8), (8, 9), (9, 10), (10, 11),
    (0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
)  # fmt: skip
"""Pairs of Kinect joints."""


def summarize(results: Results) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every kind of run, and the difference to plain training by seed."""
    names = dict.fromkeys(result["run"]["name"] for result in results)
    return {
        "runs": {name: kind(results, name, PLAIN) for name in names},
        **contributions(named(results, PLAIN), MODALITIES),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as text."""
    rows = [[name, *cells(row)] for name, row in summary["runs"].items()]
    errors = text_table(["test error, mm", "MPJPE", "PA-MPJPE", "against plain", "seeds"], rows)
    carried = text_table([f"{PLAIN}: contribution by", *CONTRIBUTION_COLUMNS], contribution_rows(summary))
    return f"{errors}\n\n{carried}"


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the figures that the finished runs allow."""
    plain = named(results, PLAIN)
    files = [figures.errors(results, "MARS: error on the test files", folder / "errors.png")]
    if plain:
        about = "MARS, plain training of all three"
        files += [
            figures.contributions(plain, f"{about}: contributions on held-out frames", folder / "contributions.png"),
            figures.spreads(plain, f"{about}: how much each modality moves the prediction", folder / "spreads.png"),
            figures.skeletons(_poses(plain[0]), BONES, f"{about}: four test frames", folder / "poses.png"),
        ]
    return files


def _poses(result: dict[str, Any]) -> list[Poses]:
    """True and predicted poses in metres; the recording has x to the right, y to the front, z up, as figures want."""
    return [
        Poses("Kinect", np.array(result["poses"]["true"]) / 1000),
        Poses("radar", np.array(result["poses"]["predicted"]) / 1000),
    ]
