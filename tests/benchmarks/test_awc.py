import json

import pytest
import torch

from benchmarks import awc_overhead, awc_penalty, awc_scaling
from benchmarks.awc_timing import milliseconds


def result_of(module, monkeypatch, path, *arguments):
    """What a benchmark saves, at its smallest."""
    command = [module.__name__, "--quick", "--rounds", "1", "--device", "cpu", "--result", str(path), *arguments]
    monkeypatch.setattr("sys.argv", command)
    module.main()
    return json.loads(path.read_text())


def test_works_are_done_in_turn():
    done = []
    times = milliseconds({name: lambda name=name: done.append(name) for name in "ab"}, torch.device("cpu"), 2)
    assert done == ["a", "b"] * 3
    assert all(value >= 0 for value in times.values())


def test_every_way_of_adding_the_gradient_of_the_penalty_adds_the_same():
    torch.manual_seed(0)
    model = awc_penalty.Towers(3, 4)
    works = awc_penalty.works_of(model)
    found = {}
    for name, work in works.items():
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        work()
        found[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    for name, gradient in found.items():
        tolerance = 0.004 if "bfloat16" in name else 1e-4
        torch.testing.assert_close(gradient, found["loop, closed form"], rtol=tolerance, atol=1e-7)


def test_penalty(monkeypatch, tmp_path):
    monkeypatch.setattr(awc_penalty, "SIZES", {"tiny": (2, 4)})
    rows = result_of(awc_penalty, monkeypatch, tmp_path / "result.json")["rows"]
    assert rows[0]["times_as_fast"] == 1


def test_overhead(monkeypatch, tmp_path):
    monkeypatch.setattr(awc_overhead, "FUSIONS", ("concat",))
    small = ("--preset", "tiny", "--batch-size", "4", "--lidar-points", "32", "--mmwave-points", "32")
    rows = result_of(awc_overhead, monkeypatch, tmp_path / "result.json", *small)["rows"]
    assert [row["modalities"] for row in rows] == [2, 4]
    for row in rows:
        assert row["percent"]["few_total"] < row["percent"]["all_total"]


def test_scaling(monkeypatch, tmp_path):
    monkeypatch.setattr(awc_scaling, "BASE", {"width": 8, "modalities": 2, "batch": 4})
    monkeypatch.setattr(awc_scaling, "QUICK", {"modalities": (3,)})
    rows = result_of(awc_scaling, monkeypatch, tmp_path / "result.json")["rows"]
    assert [row["bytes"] for row in rows] == [{"float32": 8, "coarse": 6}] * 2


def test_the_pull_of_a_large_model_is_worked_out_from_the_memory_it_moves():
    assert awc_scaling.computed()["pull of all parameters on every GPU, ms"] == pytest.approx(28e9 / 3.35e12 * 1e3)
