"""How often verdicts were right, where they were wrong, and what came of following them, as tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.compare.output import bold
from benchmarks.compare.summary import paired_interval
from examples.report import markdown_table

FORMS = {"alone": "With `train_alone`", "single": "Without"}
"""Of the verdict, with its heading."""
OUTCOMES = ("right", "cannot tell", "wrong")


def table(results: list[dict[str, Any]], form: str) -> str:
    """By set and family, right / cannot tell / wrong."""
    sets = list(dict.fromkeys(result["run"]["set"] for result in results))
    families = list(dict.fromkeys(result["run"]["family"] for result in results))
    rows = [[name, *(_counts(results, form, family, {name}) for family in families)] for name in sets]
    rows.append(["all", *(_counts(results, form, family, set(sets)) for family in families)])
    return markdown_table(["set", *families], rows)


def _counts(results: list[dict[str, Any]], form: str, family: str, sets: set[str]) -> str:
    mine = [r for r in results if r["run"]["family"] == family and r["run"]["set"] in sets]
    outcomes = Counter(result[form]["outcome"] for result in mine)
    return " / ".join(str(outcomes[outcome]) for outcome in OUTCOMES)


def wrong(results: list[dict[str, Any]], form: str) -> list[str]:
    """What was said where it was wrong, a line by family and set."""
    said: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        if result[form]["outcome"] == "wrong":
            key = result["run"]["family"], result["run"]["set"]
            said.setdefault(key, Counter())[result[form]["said"]] += 1
    return [
        f"- {family}, {name}: " + "; ".join(f"{count} x {what}" for what, count in counts.most_common())
        for (family, name), counts in said.items()
    ]


def followed(results: list[dict[str, Any]]) -> str:
    """By verdict, action, family, and whether it was right: change of the loss on new samples in per cent."""
    found: dict[tuple[str, str, str, str], list[float | None]] = {}
    for result in results:
        said = result["alone"]
        for action, change in result["followed"].items():
            key = said["kind"], action, result["run"]["family"], said["outcome"]
            found.setdefault(key, []).append(change)
    columns = ["verdict", "followed", "family", "it was", "models", "change, %", "worst", "best"]
    return markdown_table(columns, [[*key, *_changes(changes)] for key, changes in sorted(found.items())])


def _changes(every: list[float | None]) -> list[str]:
    changes = [change for change in every if change is not None]
    lost = len(every) - len(changes)
    count = f"{len(every)}" + (f", {lost} diverged" if lost else "")
    if not changes:
        return [count, "", "", ""]
    return [count, bold(paired_interval(changes)), f"{max(changes):+.1f}", f"{min(changes):+.1f}"]


def markdown(results: list[dict[str, Any]]) -> str:
    """Both forms, each with what was wrong; then what came of following the first."""
    parts = []
    for form, title in FORMS.items():
        parts += [f"{title}, right / cannot tell / wrong:", table(results, form)]
        parts += ["Wrong:\n\n" + "\n".join(lines)] if (lines := wrong(results, form)) else []
    return "\n\n".join([*parts, "Followed, those with `train_alone`:", followed(results)])
