import json
from pathlib import Path

import pytest

from benchmarks.ablation.cells import load_cell
from benchmarks.claim.__main__ import markdown
from benchmarks.claim.judgement import judged, verdict
from benchmarks.claim.plan import BUNDLED, RULE, Cell, runs_of, train
from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.output import bold

REPOSITORY = Path(__file__).parents[2]
DIABETES = Cell(f"{BUNDLED}:diabetes")


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [
        (-8.0, -9.0, -7.0, "holds"),
        (0.0, 0.0, 0.0, "holds"),
        (0.2, -0.1, 0.5, "holds"),
        (0.2, -0.5, 0.9, "cannot tell"),
        (0.4, 0.1, 0.7, "failed"),
        (0.9, -0.5, 2.3, "failed"),
        (0.4, None, None, "cannot tell"),
    ],
)
def test_verdict(mean, low, high, expected):
    assert verdict({"mean": mean, "low": low, "high": high}, 0.5) == expected


def test_the_rule_is_searched_for_nothing():
    assert METHODS[RULE].values == (0.0,)


def test_runs_of_bundled_data():
    runs = runs_of(DIABETES, (10,))
    assert [(run.method, run.modalities) for run in runs] == [
        (PLAIN, ("body", "serum")),
        (RULE, ("body", "serum")),
        (PLAIN, ("body",)),
        (PLAIN, ("serum",)),
    ]


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "digits"])
def test_bundled_tasks_train_a_little(name):
    run = runs_of(Cell(f"{BUNDLED}:{name}"), (10,))[1]
    result = train(type(run)(**{**vars(run), "epochs": 2}), lambda: None)
    assert result["test"] > 0
    assert len(result["strengths"]) == 2


def test_the_pages_say_what_was_found():
    results = REPOSITORY / "benchmarks" / "results"
    table = (results / "claim.md").read_text().split("\n\n")[0]
    assert table in (REPOSITORY / "benchmarks" / "rule.md").read_text()
    assert table == markdown(json.loads((results / "claim.json").read_text())["cells"], []).split("\n\n")[0]
    readme = (REPOSITORY / "README.md").read_text()
    for cell in json.loads((results / "claim.json").read_text())["cells"].values():
        change = bold(cell["plain"]["percent"])
        assert change in readme or change == "+0.0 [+0.0, +0.0]", cell["title"]


def result(method, modalities, seed, test):
    run = {"method": method, "modalities": list(modalities), "seed": seed}
    strengths = [{"body": 0.2, "serum": 0.0}, {"body": 0.1, "serum": 0.0}] if method == RULE else None
    return {"run": run, "test": test, "strengths": strengths}


def test_judged_by_seed():
    everyone = load_cell(DIABETES).modalities
    results = [result(PLAIN, everyone, seed, 100.0 + seed) for seed in (10, 11)]
    results += [result(RULE, everyone, seed, 99.0 + seed) for seed in (10, 11)]
    results += [result(PLAIN, ["serum"], seed, 90.0 + seed) for seed in (10, 11)]
    assert "subset" not in judged(DIABETES, results, 2)
    assert "| holds |  |  |  |  |" in markdown({DIABETES.name: judged(DIABETES, results, 2)}, [])
    results += [result(PLAIN, ["body"], seed, 95.0 + seed) for seed in (10, 11)]
    found = judged(DIABETES, results, 2)
    assert found["plain"]["percent"]["mean"] == pytest.approx(-0.905, abs=0.01)
    assert found["plain"]["verdict"] == "holds"
    assert found["best_subset"] == ["serum"]
    assert found["subset"]["verdict"] == "failed"
    assert found["held_back"] == {"body": 0.2, "serum": 0.0}
    assert "published" not in found
    assert "-0.9 [" in markdown({DIABETES.name: found}, [])
