"""The page of a report, as one string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from torch import Tensor

from awc_balance.diagnose import Diagnosis, Finding, Measured, sentences
from awc_balance.diagnose.words import interval, number
from awc_balance.history import Row
from awc_balance.report import figures
from awc_balance.report.markup import Markup, element, join

_VERDICTS = {
    "leading": "good", "contributing": "good", "idle": "ask", "harmful": "bad",
    "yes": "bad", "no": "good",
    "worth trying": "bad", "test first": "ask", "no sign": "good", "cannot tell": "ask",
}  # fmt: skip

_READING = (
    "A contribution is the Shapley value of a modality: what it adds to the profit of the prediction, averaged over "
    "all orders in which modalities can join. Contributions sum to the profit of all modalities minus that of none. "
    "Shares count contributions by their size, whatever their sign.",
    "Intervals are 95 % intervals over the batches that were measured, as if batches were independent of each other. "
    "Frames of one recording are not: deal them out at random, or take whole recordings as batches. "
    "With many modalities, one interval in twenty misses by chance.",
    "Features of a trained model are zeroed here. A model trained without a modality may do better than that: "
    "what is worth trying should be trained, with several seeds, and compared with plain training.",
)


def page(
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    diagnosis: Diagnosis | None,
    measured: tuple[Measured | None, Measured | None],
    profit: str,
    diagonal: Mapping[str, Mapping[str, Tensor]] | None,
    window: int | None,
) -> str:
    """The whole document; see `report` for what the parts are."""
    drawn = [
        figures.contributions(measured, profit),
        figures.contributions_by_epoch(rows, profit, window),
        figures.penalty(rows, window),
        figures.fisher_by_modality(rows, window),
        figures.fisher_by_layer(diagonal),
    ]
    body = element(
        "main",
        element("h1", title),
        *(element("p", note, class_="quiet") for note in notes),
        _diagnosis(diagnosis),
        element("h2", "Figures") if any(drawn) else None,
        element("div", *drawn, class_="figures"),
        element("h2", "How to read this"),
        *(element("p", text) for text in _READING),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(title), element('body', body), lang='en')}\n"


def _head(title: str) -> Markup:
    css = files("awc_balance.report").joinpath("page.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Whatever a name may hold, the page runs nothing and asks nothing of a network.
        element("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        element("title", title),
        element("style", Markup(css)),
    )


def _diagnosis(diagnosis: Diagnosis | None) -> Markup:
    head = element("h2", "Diagnosis")
    if diagnosis is None:
        return join(head, element("p", "No contributions were measured, so there is nothing to judge."))
    said = element("ul", *(element("li", sentence) for sentence in sentences(diagnosis)), class_="diagnosis")
    return join(head, said, element("div", *(_card(finding) for finding in diagnosis.findings), class_="cards"))


def _card(finding: Finding) -> Markup:
    facts: list[tuple[str, str | None]] = [
        ("role", _said(finding.role)),
        ("contribution", _with_interval(finding.contribution, finding.interval)),
        ("on training data", None if finding.training is None else number(finding.training)),
        ("training minus held-out", None if finding.gap is None else _with_interval(finding.gap, finding.gap_interval)),
        ("overfits", _said(finding.overfits or "not measured")),
        ("cost of zeroing it alone", None if finding.cost is None else number(finding.cost)),
        ("holding it back", finding.hold_back),
        ("leaving it out", finding.leave_out),
    ]
    listed = [
        join(element("dt", name), element("dd", value, class_=_VERDICTS.get(value)))
        for name, value in facts
        if value is not None
    ]
    return element("article", element("h3", finding.modality), element("dl", *listed))


def _said(verdict: str) -> str:
    return "cannot tell" if verdict == "unclear" else verdict


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{number(value)} (no interval)" if bounds is None else f"{number(value)} {interval(bounds)}"
