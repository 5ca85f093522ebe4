"""Printing and writing a table, and what it says about the paper's findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from awc_balance.report.files import write_whole
from examples.mmfi.reproduce import findings, plans, tables
from examples.mmfi.reproduce.plans import Plan
from examples.mmfi.settings import Settings
from examples.report import Results, named
from examples.sweep import write_json


def report(
    plan: Plan, results: Results, common: Settings, protocols: Sequence[str], stem: Path, *, judged: bool = False
) -> list[Path]:
    """Print the table of a plan, as far as its runs are finished, and write it as JSON and markdown.

    Args:
        plan: What the runs are for.
        results: Of the runs that are finished.
        common: The settings that the plan's rows change.
        protocols: The blocks of the table.
        stem: The files to write, without their ending.
        judged: Say which of the paper's findings appear, where all runs for that are finished.

    Returns:
        The files.
    """
    table = tables.summarize(plan, results, common, protocols)
    text, markdown = tables.as_text(table), tables.as_markdown(table)
    for protocol in protocols if judged else ():
        mine = of_protocol(results, protocol)
        if _complete(plan, mine, common, protocol):
            found = findings.findings(mine)
            table.setdefault("findings", {})[protocol] = [finding._asdict() for finding in found]
            said = findings.as_text(found, simulated=table["simulated"], learned=findings.have_learned(mine))
            text, markdown = f"{text}\n\n{said}", f"{markdown}\n```\n{said}\n```\n"
    files = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    write_json(files[0], table | {"common": vars(common)})
    write_whole(files[1], markdown)
    print(text, end="\n\n")
    return files


def of_protocol(results: Results, protocol: str) -> Results:
    """The results of runs in a protocol."""
    return [result for result in results if result["run"]["protocol"] == protocol]


def _complete(plan: Plan, results: Results, common: Settings, protocol: str) -> bool:
    """Whether there is a result of every row that has runs."""
    changes = [row.change for row in plan.rows if row.change is not None]
    return all(named(results, plans.settings_of(change, common, protocol).name) for change in changes)
