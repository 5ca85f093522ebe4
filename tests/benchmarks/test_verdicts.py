"""How often verdicts are right, counted and written down."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.verdicts.__main__ import main
from benchmarks.verdicts.change import Change
from benchmarks.verdicts.following import advised, follow
from benchmarks.verdicts.judging import Run, judge
from benchmarks.verdicts.tables import FORMS, followed, markdown, table, wrong
from tests.diagnose import mixed, sets
from tests.diagnose.families import FAMILIES

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def result(seed, outcome, said="idle: b", family="regression"):
    judgement = {"outcome": outcome, "kind": said.split(":")[0], "said": said, "sentences": []}
    run = {"family": family, "set": "balanced", "seed": seed}
    return {"run": run, "single": judgement, "alone": judgement, "followed": {"left out": float(seed)}}


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


def ruled(kind, modalities, droppable=()):
    """A verdict, of which only this is read."""
    return SimpleNamespace(kind=kind, modalities=modalities, droppable=tuple(map(frozenset, droppable)))


def test_of_several_that_are_idle_those_are_left_out_that_can_go_at_once():
    found = advised(ruled("idle", ("a", "b", "c"), [{"a"}, {"b", "c"}, {"d", "e", "f"}]))
    assert found == {"left out": Change(without=("b", "c"))}
    assert advised(ruled("idle", ("a",))) == {}


@pytest.mark.parametrize("kind", ["balanced", "cannot tell"])
def test_where_there_is_nothing_to_do_nothing_is_done(kind):
    assert advised(ruled(kind, ())) == {}


def test_who_overfits_is_held_back_in_two_ways_or_left_out():
    assert list(advised(ruled("overfits", ("a",))).values()) == [
        Change(held=("a",)), Change(rule=True), Change(without=("a",))
    ]  # fmt: skip


def test_who_starves_others_is_held_back_beside_longer_training():
    assert list(advised(ruled("starves", ("a",))).values()) == [Change(held=("a",)), Change(times=2)]


def test_changes_are_of_the_error_on_the_same_new_samples():
    plain = sets.regression("noise, few", 0)
    assert plain.error() == plain.error()
    again = partial(sets.regression, "noise, few", 0)
    assert again().error() == plain.error()
    found = follow(ruled("idle", ("b",), [{"b"}]), plain, again)
    assert found["left out"] == 100 * (again(Change(without=("b",))).error() / plain.error() - 1)
    assert found["left out"] < -10  # it was noise, learned by heart


def far(model, modality):
    """How far an encoder has moved from the initial parameters."""
    ends = torch.cat([p.detach().flatten() for p in model.encoders[modality].parameters()])
    return ends.norm().item()


@pytest.mark.parametrize(("family", "noisy", "other"), [("regression", "a", "b"), ("normed", "numbers", "motion")])
def test_every_way_to_follow_does_what_it_says(family, noisy, other, monkeypatch):
    for worlds in (sets.REGRESSION, mixed.WORLDS):
        monkeypatch.setitem(worlds, "overfits", worlds["overfits"]._replace(epochs=25, held_out=200))
    make, _ = FAMILIES[family]
    plain, long = make("overfits", 0), make("overfits", 0, Change(times=2))
    pulled, other_pulled = (make("overfits", 0, Change(held=(who,))) for who in (noisy, other))
    assert far(pulled.model, noisy) < far(other_pulled.model, noisy)
    assert far(other_pulled.model, other) < far(pulled.model, other)
    assert far(long.model, noisy) > far(plain.model, noisy)
    ruled = make("overfits", 0, Change(rule=True))
    without = make("overfits", 0, Change(without=(noisy,)))
    inputs, _ = without.held_out[0]
    mute = {**inputs, noisy: torch.zeros_like(inputs[noisy])}
    assert torch.equal(without.model(inputs), without.model(mute))
    assert len({way.error() for way in (plain, long, pulled, other_pulled, ruled, without)}) == 6


def test_what_came_of_following_is_counted_by_verdict_and_way():
    results = [result(1, "right"), result(3, "right"), result(2, "wrong")]
    assert followed(results).splitlines()[2:] == [
        "| idle | left out | regression | right | 2 | +2.0 [-10.7, +14.7] | +3.0 | +1.0 |",
        "| idle | left out | regression | wrong | 1 | +2.0 | +2.0 | +2.0 |",
    ]
    results[0]["followed"] = results[2]["followed"] = {"left out": None}
    assert [row.split(" | ")[4:] for row in followed(results).splitlines()[2:]] == [
        ["2, 1 diverged", "+3.0", "+3.0", "+3.0 |"],
        ["1, 1 diverged", "", "", " |"],
    ]


@pytest.mark.parametrize("fails", [True, False])
def test_a_training_that_diverges_is_said_to(fails):
    def again(_):
        if fails:
            raise ValueError("Parameters of encoders should be finite when an epoch starts.")
        return SimpleNamespace(error=lambda: float("nan"))

    assert follow(ruled("idle", ("b",), [{"b"}]), SimpleNamespace(error=lambda: 1.0), again) == {"left out": None}


def test_another_error_is_not_taken_for_that():
    def again(_):
        raise ValueError("`loader` should be a loader.")

    with pytest.raises(ValueError, match="`loader` should be a loader"):
        follow(ruled("idle", ("b",), [{"b"}]), SimpleNamespace(error=lambda: 1.0), again)


def test_the_command_writes_tables_and_every_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.verdicts.__main__.FAMILIES", {"regression": (judge, {"little": []})})
    monkeypatch.setattr("benchmarks.verdicts.__main__.sweep", lambda *_: [{**result(0, "right"), "machine": {}}])
    assert main(["--families", "regression", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "verdicts.json").read_text())["runs"][0]["alone"]["outcome"] == "right"
    assert (tmp_path / "verdicts.md").read_text() == capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_the_page_says_what_was_found(form):
    runs = json.loads((RESULTS / "verdicts.json").read_text())["runs"]
    page = (RESULTS.parent / "verdicts.md").read_text()
    assert table(runs, form) in page
    assert all(line in page for line in wrong(runs, form))
    assert followed(runs) in page
    assert (RESULTS / "verdicts.md").read_text() == markdown(runs) + "\n"
