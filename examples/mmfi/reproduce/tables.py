"""Tables of errors beside the published ones, mean and standard deviation over seeds, as data and as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from examples.mmfi.reproduce.plans import Plan, Row, settings_of
from examples.mmfi.reproduce.published import EPOCHS, SPLIT, Errors
from examples.mmfi.settings import PLAIN, Settings
from examples.report import (
    CONTRIBUTION_COLUMNS,
    Results,
    cells,
    contribution_rows,
    contributions,
    kind,
    markdown_table,
    named,
    text_table,
)

SIMULATED = "SIMULATED data: no result on MM-Fi, and not comparable with the published numbers."
_COLUMNS = ["MPJPE", "PA-MPJPE", "difference", "seeds"]

Grid = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def is_simulated(results: Results) -> bool:
    """Whether any of the results comes from simulated data."""
    return any(result["simulated"] for result in results)


def is_balanced(result: dict[str, Any]) -> bool:
    """Whether a run was trained with a balancing method."""
    return bool(result["run"]["method"] != PLAIN)


def titled(title: str, simulated: bool) -> str:
    """A title that says whether the data was simulated.

    >>> titled("Table 3: modalities", simulated=True)
    'Table 3: modalities (simulated data)'
    """
    return f"{title} (simulated data)" if simulated else title


def summarize(plan: Plan, results: Results, common: Settings, protocols: Sequence[str]) -> dict[str, Any]:
    """A table as data: per protocol the rows in order, each with its errors here and as published.

    Args:
        plan: The table.
        results: Of the runs that are finished.
        common: The settings that the rows change.
        protocols: The blocks.
    """
    simulated = is_simulated(results)
    return {
        "title": titled(plan.title, simulated),
        "simulated": simulated,
        "notes": [*([SIMULATED] if simulated else []), *([plan.note] if plan.note else []), about(common)],
        "protocols": {
            protocol: [_summary(row, results, common, protocol) for row in plan.rows] for protocol in protocols
        },
        "carriers": {protocol: _carriers(results, common, protocol) for protocol in protocols if plan.carriers},
    }


def about(common: Settings) -> str:
    """In words what the runs have in common and where that is not the paper's."""
    paper = Settings("", "")
    changed = [
        f"{name} {getattr(common, name)} (paper: {getattr(paper, name)})"
        for name in ("epochs", "batch_size", "learning_rate", "weight_decay", "drop_every", "every")
        if getattr(common, name) != getattr(paper, name)
    ]
    shorter = [f"windows in proportion to {EPOCHS} epochs"] if common.epochs != EPOCHS else []
    return "; ".join([f"Preset {common.preset}, split {common.split}", *changed, *shorter]) + "."


def as_text(table: dict[str, Any]) -> str:
    """A table for the terminal."""
    return _render(table, text_table, "")


def as_markdown(table: dict[str, Any]) -> str:
    """A table as markdown."""
    return _render(table, markdown_table, "## ") + "\n"


def _summary(row: Row, results: Results, common: Settings, protocol: str) -> dict[str, Any]:
    published = row.published.get(protocol) if common.split == SPLIT else None
    summary: dict[str, Any] = {"label": row.label, "published": published and published._asdict(), "absent": row.absent}
    if row.change is None:
        return summary
    name = settings_of(row.change, common, protocol).name
    baseline = None if row.baseline is None else settings_of(row.baseline, common, protocol).name
    here = kind(results, name, baseline)
    if not here["seeds"]:
        return summary | {"run": name, "absent": "not finished"}
    return summary | {"run": name, **here}


def _carriers(results: Results, common: Settings, protocol: str) -> dict[str, Any]:
    plain = settings_of({}, common, protocol)
    return contributions(named(results, plain.name), plain.modalities)


def _render(table: dict[str, Any], grid: Grid, heading: str) -> str:
    blocks = [heading + table["title"], *table["notes"]]
    for protocol, rows in table["protocols"].items():
        columns, lines = [f"{protocol}, mm", *_COLUMNS], [_line(row) for row in rows]
        if any(row["published"] for row in rows):
            columns.append("published, real data" if table["simulated"] else "published")
            lines = [[*line, _published(row["published"])] for line, row in zip(lines, rows, strict=True)]
        blocks.append(grid(columns, lines))
        if protocol in table["carriers"]:
            carriers = [f"{protocol}, plain: contribution by", *CONTRIBUTION_COLUMNS]
            blocks += ["", grid(carriers, contribution_rows(table["carriers"][protocol]))]
    # Markdown joins lines of one paragraph, and wants a table to follow an empty line.
    return "\n\n".join(blocks) if heading else "\n".join(blocks)


def _line(row: dict[str, Any]) -> list[str]:
    here = cells(row) if "seeds" in row else [f"({row['absent']})", "", "", ""]
    return [row["label"], *here]


def _published(errors: dict[str, float | None] | None) -> str:
    if errors is None:
        return ""
    values = Errors(**errors)  # type: ignore[arg-type]
    return f"{values.mpjpe:.2f}" + ("" if values.pa_mpjpe is None else f" / {values.pa_mpjpe:.2f}")
