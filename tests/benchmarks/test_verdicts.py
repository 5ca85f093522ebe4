"""How often verdicts are right, counted and written down."""

import json
from pathlib import Path

import pytest

from benchmarks.verdicts import FORMS, Run, judge, main, markdown, table, wrong

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def result(seed, outcome, said="idle: b", family="regression"):
    judgement = {"outcome": outcome, "said": said, "sentences": []}
    return {"run": {"family": family, "set": "balanced", "seed": seed}, "single": judgement, "alone": judgement}


def test_counted_by_set_and_family():
    results = [result(0, "right"), result(1, "wrong"), result(2, "cannot tell"), result(0, "right", family="classes")]
    assert table(results, "alone").splitlines()[2:] == [
        "| balanced | 1 / 1 / 1 | 1 / 0 / 0 |",
        "| all | 1 / 1 / 1 | 1 / 0 / 0 |",
    ]


def test_what_was_said_where_it_was_wrong():
    results = [result(0, "wrong"), result(1, "wrong"), result(2, "wrong", "balanced"), result(3, "right")]
    assert wrong(results, "single") == ["- regression, balanced: 2 x idle: b; 1 x balanced"]


def test_where_samples_are_few_nobody_is_trained_alone_and_it_cannot_be_told():
    found = judge(Run("regression", "little", 0), lambda: None)
    assert found["single"] == found["alone"]
    assert found["alone"]["outcome"] == "right"
    assert found["alone"]["said"] == "cannot tell: a, b"


def test_the_command_writes_tables_and_every_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.verdicts.FAMILIES", {"regression": (judge, {"little": []})})
    monkeypatch.setattr("benchmarks.verdicts.sweep", lambda *_: [{**result(0, "right"), "machine": {}}])
    assert main(["--families", "regression", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "verdicts.json").read_text())["runs"][0]["alone"]["outcome"] == "right"
    assert (tmp_path / "verdicts.md").read_text() == capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_the_page_says_what_was_found(form):
    runs = json.loads((RESULTS / "verdicts.json").read_text())["runs"]
    page = (RESULTS.parent / "verdicts.md").read_text()
    assert table(runs, form) in page
    assert all(line in page for line in wrong(runs, form))
    assert (RESULTS / "verdicts.md").read_text() == markdown(runs) + "\n"
