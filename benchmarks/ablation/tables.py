"""The summary as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.ablation.conditions import CORE, GROUPS, USUAL, WINDOWS, middle
from benchmarks.ablation.predictors import EXCESSES, QUANTITIES, claimed, core_rows, points, ranks
from benchmarks.ablation.probe import SHARES
from benchmarks.compare.output import bold
from benchmarks.compare.summary import paired_interval
from examples.report import cell as mean_pm_sd
from examples.report import markdown_table

Summary = dict[str, Any]
BRIEF = {
    ("plain", "zero"): "pull to zero",
    ("fisher", "epoch"): "Fisher pull to the epoch's start",
    ("plain", "epoch"): "plain pull to the epoch's start",
    ("slow", ""): "a tenth of the step",
    ("freeze", ""): "frozen",
    ("sized", "zero"): "sized pull to zero",
}
"""Ways at their middle strength."""
WAYS = {"plain": "plain pull to zero, all epochs", "fisher": "Fisher pull to the epoch's start, 40 % of them"}
SHORT = {"plain": "pull to zero", "fisher": "Fisher pull"}


class Way(NamedTuple):
    """A way to hold back, at its middle strength."""

    how: str
    anchor: str
    window: float

    def is_way_of(self, row: dict[str, Any]) -> bool:
        """Whether a row was trained in this way."""
        strength = middle(self.how, self.anchor)
        return (row["how"], row["anchor"], row["window"], row["strength"]) == (*self, strength)


def markdown(summary: Summary) -> str:
    """Groups by cell, modalities by cell, what tells regimes apart, and of every cell what more was run there."""
    parts = [
        "## Groups",
        groups(summary),
        "## One modality alone",
        alone(summary),
        "## What tells",
        telling(summary),
        claims(summary),
        "## Excess by epoch",
        by_epoch(summary),
        "## Every way",
        every_way(summary),
        "## Every window",
        every_window(summary),
    ]
    for name, cell in summary.items():
        for table in (by_strength(cell), by_window(cell)):
            if table:
                parts += [f"## {name}", table]
    return "\n\n".join(parts)


def groups(summary: Summary) -> str:
    """Change of the test error in percent when superior or inferior modalities are held back."""
    columns = ["cell", "test error", "superior are mostly"]
    columns += [f"{words}: {what}" for words in SHORT.values() for what in (*GROUPS[:2], "superior minus inferior")]
    rows = []
    for name, cell in summary.items():
        changes = []
        for how in WAYS:
            changes += [_percent(core_rows(cell, how), group) for group in GROUPS[:2]] + [bold(direction(cell, how))]
        rows.append([name, f"{mean_pm_sd(cell['plain']['test'])} {cell['unit']}", _superior(cell), *changes])
    return markdown_table(columns, rows)


def alone(summary: Summary) -> str:
    """The same when one modality alone is, beside what was seen of it in plain training at the best epoch."""
    columns = ["cell", "modality", "contribution: training, held out", "slope: training, held out", "excess"]
    rows = []
    for name, cell in summary.items():
        for modality in cell["modalities"]:
            seen = cell["seen"][-1][modality]
            pairs = [
                ", ".join(f"{seen[f'{key}_{part}']['mean']:.2f}" for part in ("train", "held_out"))
                for key in ("contributions", "slopes")
            ]
            changes = [_percent(core_rows(cell, how), modality) for how in WAYS]
            rows.append([name, modality, *pairs, mean_pm_sd(seen["excess"], 2), *changes])
    return markdown_table([*columns, *SHORT.values()], rows)


def telling(summary: Summary) -> str:
    """How well each quantity of plain training ranks cells and modalities by what holding them back gains."""
    found = {how: points(summary, how) for how in WAYS}
    ranked = {how: ranks(of_how) for how, of_how in found.items()}
    cells = {how: len({point["cell"] for point in of_how}) for how, of_how in found.items()}
    columns = ["quantity"]
    columns += [
        f"{words}: {what}"
        for words in SHORT.values()
        for what in ("rank correlation", "within cells", "names the best")
    ]
    rows = []
    for key in QUANTITIES:
        row = [key]
        for how in WAYS:
            *correlations, best = ranked[how][key].values()
            row += ["" if rho is None else f"{rho:+.2f}" for rho in correlations] + [f"{best} of {cells[how]}"]
        rows.append(row)
    return markdown_table(columns, rows)


def claims(summary: Summary) -> str:
    """How often holding back a modality alone helped or harmed, by the sign of its excess."""
    rows = []
    for key, words in EXCESSES.items():
        counted = [claimed(points(summary, how), key) for how in SHORT]
        rows += [
            [f"{words} {said}", *(str(n) for counts in counted for n in counts[said].values())] for said in counted[0]
        ]
    columns = [f"{words}: {what}" for words in SHORT.values() for what in ("helps", "unclear", "harms")]
    return markdown_table(["by 95 % intervals over seeds", *columns], rows)


def by_epoch(summary: Summary) -> str:
    """The excess of every modality's slope along plain training, by how much of it is done, and at the best epoch."""
    looks = max((len(cell["seen"]) for cell in summary.values()), default=0)
    whole = {name: cell for name, cell in summary.items() if len(cell["seen"]) == looks}
    columns = [f"{100 * share:g} %" for share in SHARES] if looks == len(SHARES) + 1 else [""] * (looks - 1)
    rows: list[list[str]] = []
    for name, cell in whole.items():
        rows += [
            [name, modality, *(f"{look[modality]['excess']['mean']:+.2f}" for look in cell["seen"])]
            for modality in cell["modalities"]
        ]
    return markdown_table(["cell", "modality", *columns, "best"], rows)


def every_way(summary: Summary) -> str:
    """Superior or inferior modalities held back, by cell, in every way: at middle strength, in the usual window."""
    ways = [Way(how, anchor, window) for how, anchor, window in (*USUAL, ("sized", "zero", 1.0))]
    return _by_group(summary, {BRIEF[one.how, one.anchor]: one for one in ways}, least=len(CORE) + 1)


def every_window(summary: Summary) -> str:
    """The same in every window, held back by the paper's pull and by freezing."""
    ways = {
        f"{BRIEF[how, anchor]}, {100 * window:g} %": Way(how, anchor, window)
        for how, anchor in (("fisher", "epoch"), ("freeze", ""))
        for window in WINDOWS
    }
    return _by_group(summary, ways, least=len(ways))


def _by_group(summary: Summary, ways: dict[str, Way], least: int) -> str:
    """Cells and groups by way, of cells in which at least so many of the ways were run."""
    rows = []
    for name, cell in summary.items():
        for group in GROUPS[:2]:
            changes = [_percent([row for row in cell["rows"] if one.is_way_of(row)], group) for one in ways.values()]
            if sum(map(bool, changes)) >= least:
                rows.append([name, group, *changes])
    return markdown_table(["cell", "held back", *ways], rows)


def by_strength(cell: dict[str, Any]) -> str:
    """Every way and strength in its usual window, by whom; empty where only the core was run."""
    done = {row["whom"] for row in cell["rows"]}
    columns = [whom for whom in (*GROUPS, *cell["modalities"]) if whom in done]
    rows = _rows(columns, [row for row in cell["rows"] if _is_usual(row)])
    return markdown_table(["held back", *columns], rows) if len(rows) > len(CORE) else ""


def by_window(cell: dict[str, Any]) -> str:
    """Windows and anchors at the middle strength; empty where they were not run."""
    other = [row for row in cell["rows"] if not _is_usual(row)]
    ways = {(row["how"], row["anchor"], row["strength"]) for row in other}
    shown = [row for row in cell["rows"] if (row["how"], row["anchor"], row["strength"]) in ways]
    rows = _rows(GROUPS[:2], sorted(shown, key=lambda row: (row["how"], row["anchor"], row["window"])))
    return markdown_table(["held back", *GROUPS[:2]], rows) if other else ""


def way(row: dict[str, Any]) -> str:
    """Everything but whom, in words.

    >>> way({"how": "plain", "anchor": "zero", "strength": 0.1, "window": 1.0})
    'plain pull to zero, 0.1, 100 % of the epochs'
    """
    towards = {"epoch": " pull to the epoch's start", "init": " pull to the start", "zero": " pull to zero", "": ""}
    name = {"fisher": "Fisher", "plain": "plain", "sized": "sized", "slow": "steps times", "freeze": "frozen"}[
        row["how"]
    ]
    strength = {"slow": f" {row['strength']:g}", "freeze": ""}.get(row["how"], f", {row['strength']:g}")
    return f"{name}{towards[row['anchor']]}{strength}, {100 * row['window']:g} % of the epochs"


def direction(cell: dict[str, Any], how: str) -> dict[str, float | None] | None:
    """Superior minus inferior held back, paired by seed, in percent of plain training: below 0 the paper is right."""
    tests = {row["whom"]: {s: kept["test"] for s, kept in row["by_seed"].items()} for row in core_rows(cell, how)}
    plain = {seed: kept["test"] for seed, kept in cell["plain"]["by_seed"].items()}
    one, other = (tests.get(group, {}) for group in GROUPS[:2])
    found = [100 * (one[s] - other[s]) / plain[s] for s in one if s in other and plain.get(s)]
    return paired_interval(found) if found else None


def _rows(columns: Sequence[str], shown: Sequence[dict[str, Any]]) -> list[list[str]]:
    ways = dict.fromkeys(map(way, shown))
    return [[w, *(_percent([row for row in shown if way(row) == w], whom) for whom in columns)] for w in ways]


def _is_usual(row: dict[str, Any]) -> bool:
    return (row["anchor"], row["window"]) in (("epoch", 0.4), ("zero", 1.0), ("", 0.4))


def _percent(rows: Sequence[dict[str, Any]], whom: str) -> str:
    found = next((row for row in rows if row["whom"] == whom), None)
    return "" if found is None else bold(found["percent"])


def _superior(cell: dict[str, Any]) -> str:
    """Who is in the superior group in at least half of the epochs in which it is held back."""
    row = next((row for row in core_rows(cell, "fisher") if row["whom"] == "superior"), None)
    if row is None:
        return ""
    most = max(row["epochs_held"].values())
    return ", ".join(m for m, epochs in row["epochs_held"].items() if most and epochs >= most / 2)
