"""The claim on splits that are dealt anew."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch

from benchmarks.ablation.cells import Cell
from benchmarks.claim.plan import BUNDLED
from benchmarks.claim.splits import Run, redrawn, summarize, table, together, train
from benchmarks.compare.output import bold
from benchmarks.compare.task import load_task

DIABETES = f"{BUNDLED}:diabetes"


def test_samples_are_dealt_anew_each_once_and_to_parts_of_the_same_sizes():
    task = load_task(DIABETES)
    found = redrawn(task, 1)
    for part in ("train", "held_out", "test"):
        assert len(getattr(found.splits, part)) == len(getattr(task.splits, part))
    assert not torch.equal(found.splits.test.target, task.splits.test.target)
    spread = [x.std(0) for x in (*found.splits.train.inputs.values(), found.splits.train.target)]
    assert all(torch.allclose(x, torch.ones_like(x), atol=1e-4) for x in spread)
    pooled = [
        torch.cat([getattr(some.splits, part).inputs["serum"] for part in ("train", "held_out", "test")])
        for some in (task, found)
    ]
    before, after = (x.double().sort(0).values for x in pooled)
    straight = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(before.T, after.T, strict=True)]
    assert min(straight) > 1 - 1e-6


def test_the_same_seed_deals_the_same():
    task = load_task(DIABETES)
    assert torch.equal(redrawn(task, 1).splits.test.target, redrawn(task, 1).splits.test.target)
    assert not torch.equal(redrawn(task, 1).splits.test.target, redrawn(task, 2).splits.test.target)


def test_classes_stay_as_they_are():
    task = load_task(f"{BUNDLED}:digits")
    found = redrawn(task, 3)
    counts = [
        torch.cat([getattr(some.splits, part).target for part in ("train", "held_out", "test")]).bincount()
        for some in (task, found)
    ]
    assert torch.equal(*counts)


def test_a_run_trains_with_and_without_the_rule():
    results = [train(Run(Cell(DIABETES), rule, 1), lambda: None) for rule in (False, True)]
    assert all(result["test"] > 0 for result in results)


def test_differences_are_paired_by_split():
    def result(rule, seed, test):
        cell = {"task": DIABETES, "data": "full", "size": "small"}
        run = {"cell": cell, "rule": rule, "seed": seed}
        return {"run": run, "unit": "MSE", "test": test, "seconds": (3.0 if rule else 2.0) * seed}

    results = [result(rule, seed, 100.0 * seed * (0.9 if rule else 1)) for rule in (False, True) for seed in (1, 2, 3)]
    (row,) = summarize([*results, result(False, 4, 1.0)])  # whose partner is not done yet
    assert row["changes"] == pytest.approx([-10, -10, -10])
    assert (row["verdict"], row["splits"]) == ("holds", [1, 2, 3])
    numbers = "200 | 180 | **-10.0 [-10.0, -10.0]** | holds | -10.0 | -10.0 | 1.5 |"
    assert f"| diabetes/full/small, MSE | {numbers}" in table([row])


def test_sets_are_weighted_by_their_precision():
    wide, narrow = (
        {"changes": [x - half, x, x + half], "percent": {"mean": x}} for x, half in ((10.0, 10.0), (0.0, 1.0))
    )
    found = together([wide, narrow])
    assert found["mean"] == pytest.approx(10 / 101)
    assert found["high"] - found["mean"] == pytest.approx(1.96 / sqrt(3 + 0.03))


def test_the_page_says_what_was_found():
    folder = Path(__file__).parents[2] / "benchmarks"
    found = json.loads((folder / "results" / "claim_splits.json").read_text())["sets"]
    page = (folder / "rule.md").read_text()
    assert table(found) in page
    assert bold(together([row for row in found if "errors" in row["unit"]])) in page
