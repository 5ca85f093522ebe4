"""The page of a report, as one string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from torch import Tensor

from awc_balance.diagnose import Diagnosis, Finding, Judgement, Measured, Verdict, sentences
from awc_balance.history import Row
from awc_balance.report import figures
from awc_balance.report.markup import Markup, element, join
from awc_balance.report.slopes import slopes
from awc_balance.report.words import held_back
from awc_balance.wording import interval, number, percents

_CLASSES = {
    "leading": "good", "contributing": "good", "negligible": "ask", "harmful": "bad",
    "yes": "bad", "no": "good", "cannot tell": "ask",
}  # fmt: skip

UNJUDGED = (
    "Whether a modality is idle, overfits or is starved takes held-out data, and at most 16 modalities: pass "
    "verdict=awc.verdict(train_loader), or what awc_balance.calibration.verdict gives; to the command, --held-out."
)

_OF_CONTRIBUTIONS = (
    "A contribution is the Shapley value of a modality: what it adds to the profit of the prediction, averaged over "
    "all orders in which modalities can join. Contributions sum to the profit of all modalities minus that of none. "
    "Shares count contributions by their size, whatever their sign.",
    "Intervals are 95 % intervals over the batches that were measured, as if batches were independent of each other. "
    "Frames of one recording are not: deal them out at random, or take whole recordings as batches. "
    "With many modalities, one interval in twenty misses by chance.",
)
_OF_SLOPES = (
    "The slope of a modality is the factor by which its part of the prediction should be multiplied for the smallest "
    "error, over that of the whole prediction. 1 is a part that is trusted as it deserves. A part that fits noise is "
    "of the right size on training data and too large on held-out data: its slope there is below 1. In the first "
    "epochs, and where a part is hardly anything, slopes may be anything.",
)
_OF_THE_VERDICT = (
    "The verdict rests on the parts of the prediction that belong to the modalities. A part is too large by the factor "
    "that held-out data do not bear out, though training data do. A modality is idle if less than 5 % of what the "
    "model explains is lost where a new head makes the best of the features of all others; it is starved if its "
    "features predict more than a tenth of the error that is left, or if a model of it alone explains more.",
)
_OF_ALL = (
    "All of this is measured on one trained model. What is worth trying should be trained, with several seeds, and "
    "compared with plain training.",
)


def page(
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    verdict: Verdict | None,
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
        _diagnosis(verdict, diagnosis),
        *_rule(rows),
        element("h2", "Figures") if any(drawn) else None,
        element("div", *drawn, class_="figures"),
        element("h2", "How to read this"),
        *(element("p", text) for text in _reading(rows, verdict, diagnosis)),
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


def _diagnosis(verdict: Verdict | None, diagnosis: Diagnosis | None) -> Markup:
    head = element("h2", "Diagnosis")
    unjudged = element("p", UNJUDGED, class_="quiet") if verdict is None else None
    if diagnosis is None and verdict is None:
        return join(head, element("p", "No contributions were measured."), unjudged)
    said = [] if verdict is None else verdict.sentences()
    said += [] if diagnosis is None else sentences(diagnosis)
    listed = element("ul", *(element("li", sentence) for sentence in said), class_="diagnosis")
    cards = {} if diagnosis is None else {finding.modality: _role(finding) for finding in diagnosis.findings}
    for one in () if verdict is None else verdict.judgements:
        cards[one.modality] = [*cards.get(one.modality, []), *_judged(one)]
    shown = element("div", *(_card(name, facts) for name, facts in cards.items()), class_="cards")
    return join(head, listed, unjudged, shown)


def _rule(rows: Sequence[Row]) -> list[Markup]:
    """What a rule by slopes did: in a sentence, then in a figure."""
    said, drawn = held_back(rows), slopes(rows)
    if said is None or drawn is None:
        return []
    return [element("h2", "Who was held back"), element("p", said), element("div", drawn, class_="figures")]


def _reading(rows: Sequence[Row], verdict: Verdict | None, diagnosis: Diagnosis | None) -> list[str]:
    """How to read what is on the page, and nothing else."""
    known = [
        (_OF_CONTRIBUTIONS, diagnosis is not None or any(row.contributions for row in rows)),
        (_OF_SLOPES, any(row.slopes for row in rows)),
        (_OF_THE_VERDICT, verdict is not None),
        (_OF_ALL, True),
    ]
    return [text for texts, there in known if there for text in texts]


def _card(modality: str, facts: list[tuple[str, str]]) -> Markup:
    listed = [
        join(element("dt", name), element("dd", value, class_=_CLASSES.get(value.split(",")[0])))
        for name, value in facts
    ]
    return element("article", element("h3", modality), element("dl", *listed))


def _role(finding: Finding) -> list[tuple[str, str]]:
    bounds = "(no interval)" if finding.interval is None else interval(finding.interval)
    return [("role", _said(finding.role)), ("contribution", f"{number(finding.contribution)} {bounds}")]


def _judged(one: Judgement) -> list[tuple[str, str]]:
    facts = [
        ("overfits", _said(one.overfits)),
        ("too large by", f"{number(one.excess.value)} {interval((one.excess.low, one.excess.high))}"),
        ("idle", _said(one.idle)),
        ("starved", _said(one.starved)),
    ]
    for name, share in (("lost without it", one.lost), ("error its features predict", one.unused)):
        facts += [] if share is None else [(name, percents(share.value, (share.low, share.high)))]
    return facts


def _said(answer: str) -> str:
    return "cannot tell" if answer == "unclear" else answer
