import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from benchmarks.compare import __main__ as command
from benchmarks.compare.methods import METHODS, PLAIN
from benchmarks.compare.output import draw, markdown, overview
from benchmarks.compare.plan import Plan, chosen_strength, final_runs, search_runs
from benchmarks.compare.summary import paired_interval, summarize
from benchmarks.compare.task import load_task
from benchmarks.compare.tasks import TASKS, mfeat
from benchmarks.compare.training import Run, prepare, train
from examples import data_folder
from tests.benchmarks.small_task import NAME

TWO = (PLAIN, "AGM")


def result(method="AGM", strength=0.5, seed=0, held_out=1.0, test=1.0, modalities=("a", "b", "noise")):
    run = {"task": NAME, "method": method, "strength": strength, "seed": seed, "modalities": list(modalities)}
    contributions = dict.fromkeys(modalities, 0.1) if method == PLAIN else None
    kept = {"test_last_epoch": test, "best_epoch": 1, "seconds": 2.0, "contributions": contributions}
    return {"run": run, "held_out": held_out, "test": test, **kept}


class TestChoice:
    def test_takes_the_strength_with_the_lowest_held_out_error(self):
        errors = {0.5: (3.0, 3.0), 1.5: (2.0, 1.0), 4.0: (1.0, 2.5)}
        searched = [result(strength=s, seed=i, held_out=e) for s, found in errors.items() for i, e in enumerate(found)]
        assert chosen_strength(Plan((NAME,), TWO), NAME, "AGM", searched) == 1.5

    @given(st.lists(st.floats(0, 9), min_size=3, max_size=3))
    def test_never_looks_at_the_test_part(self, tests):
        searched = [
            result(strength=strength, held_out=error, test=test)
            for strength, error, test in zip(METHODS["AGM"].values, (3.0, 1.0, 2.0), tests, strict=True)
        ]
        assert chosen_strength(Plan((NAME,), TWO), NAME, "AGM", searched) == METHODS["AGM"].values[1]

    def test_never_takes_a_strength_that_failed(self):
        searched = [result(strength=s, held_out=e) for s, e in ((0.5, None), (1.5, 7.0), (4.0, 8.0))]
        assert chosen_strength(Plan((NAME,), TWO), NAME, "AGM", searched) == 1.5

    def test_takes_none_before_all_are_tried(self):
        assert chosen_strength(Plan((NAME,), TWO), NAME, "AGM", [result()]) is None

    def test_takes_the_middle_one_without_a_search(self):
        assert chosen_strength(Plan((NAME,), TWO, search=False), NAME, "AGM", []) == 1.5


class TestRuns:
    def test_every_method_is_searched_equally(self):
        having = {name: method for name, method in METHODS.items() if method.strength}
        assert {len(method.values) for method in having.values()} == {3}
        runs = search_runs(Plan((NAME,), tuple(METHODS)))
        counts = {method: sum(run.method == method for run in runs) for method in having}
        assert set(counts.values()) == {3 * load_task(NAME).search_seeds}

    def test_every_subset_is_trained_with_every_seed(self):
        runs = [run for run in final_runs(Plan((NAME,), TWO), []) if run.method == PLAIN]
        assert len(runs) == 7 * 5
        assert {run.modalities for run in runs if run.seed == 4} == {run.modalities for run in runs}

    def test_the_search_is_reused(self):
        plan = Plan((NAME,), TWO)
        searched = [result(strength=run.strength, seed=run.seed, held_out=run.strength) for run in search_runs(plan)]
        final = {run for run in final_runs(plan, searched) if run.method == "AGM"}
        assert len(final & set(search_runs(plan))) == 2


class TestTraining:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_trains_and_repeats(self, method):
        run = Run(NAME, method, METHODS[method].values[-1], 0, ("a", "b", "noise"), 3)
        ticks = []
        first, second = train(run, lambda: ticks.append(1)), train(run, lambda: None)
        assert len(ticks) == len(first["curve"]) == 3
        assert first["held_out"] == min(first["curve"])
        assert {**first, "seconds": 0} == {**second, "seconds": 0}

    def test_the_test_part_chooses_nothing(self):
        run = Run(NAME, PLAIN, 0.0, 0, ("a", "b"), 3)
        before = train(run, lambda: None)
        target = load_task(NAME).splits.test.target
        try:
            target += 100
            after = train(run, lambda: None)
        finally:
            target -= 100
        assert after["test"] > before["test"]
        unchanged = ("held_out", "best_epoch", "curve", "contributions")
        assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}

    def test_a_run_that_diverges_is_a_failure_and_no_number(self):
        target = load_task(NAME).splits.train.target
        kept = target.clone()
        try:
            target.fill_(torch.inf)
            failed = train(Run(NAME, PLAIN, 0.0, 0, ("a",), 2), lambda: None)
        finally:
            target.copy_(kept)
        assert failed["test"] is failed["held_out"] is None
        json.dumps(failed, allow_nan=False)


class TestSummary:
    @given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=6))
    def test_the_interval_is_that_of_the_paired_t_test(self, pairs):
        differences = [a - b for a, b in pairs]
        if len(set(differences)) < 2 or max(differences) - min(differences) < 1e-3:
            return
        expected = ttest_rel(*zip(*pairs, strict=True)).confidence_interval(0.95)
        found = paired_interval(differences)
        assert [found["low"], found["high"]] == pytest.approx([*expected], rel=1e-6, abs=1e-6)

    def test_pairs_by_seed_and_counts_failures(self):
        plan = Plan((NAME,), TWO, search=False)
        final = [result(PLAIN, 0.0, seed, test=10.0 + seed) for seed in range(3)]
        final += [result("AGM", 1.5, seed, test=9.0 + seed) for seed in range(2)] + [result("AGM", 1.5, 2, test=None)]
        row = summarize(plan, [], final)[NAME]["rows"][-1]
        assert row["difference"] == {"mean": -1.0, "low": -1.0, "high": -1.0}
        assert (row["seeds"], row["failed"]) == (2, 1)

    def test_has_no_percentages_where_plain_training_makes_no_error(self, tmp_path):
        final = [result(PLAIN, 0.0, seed, test=float(seed)) for seed in range(2)]
        final += [result("AGM", 1.5, seed, test=2.0 + seed) for seed in range(2)]
        summary = summarize(Plan((NAME,), TWO, search=False), [], final)
        row = summary[NAME]["rows"][-1]
        assert row["percent"] is None
        assert row["difference"] == {"mean": 2.0, "low": 2.0, "high": 2.0}
        assert "| +2.0 [+2.0, +2.0] |  |" in markdown(summary)
        assert draw(summary, tmp_path / "figure.png").stat().st_size > 1000

    def test_the_subset_is_chosen_by_the_held_out_error(self, tmp_path):
        plan = Plan((NAME,), (PLAIN,))
        final = [result(PLAIN, 0.0, seed, held_out=2.0, test=1.0) for seed in range(2)]
        final += [result(PLAIN, 0.0, seed, held_out=1.0, test=5.0, modalities=("a", "b")) for seed in range(2)]
        summary = summarize(plan, [], final)
        assert summary[NAME]["subset_chosen_on_held_out"] == ["a", "b"]
        assert "a+b (chosen)" in markdown(summary)
        assert "noise: **+400.0 [+400.0, +400.0]**" in overview(summary)
        assert draw(summary, tmp_path / "figure.png").stat().st_size > 1000


class TestCommand:
    def arguments(self, out):
        words = "--methods AGM --share 1 --seeds 2 --workers 0"
        return ["--tasks", NAME, *words.split(), "--out", str(out)]

    def test_writes_everything_and_goes_on(self, tmp_path, capsys):
        assert command.main(self.arguments(tmp_path)) == 0
        assert "| AGM |" in capsys.readouterr().out
        first = json.loads((tmp_path / "compare.json").read_text())
        assert first["tasks"][NAME]["rows"][-1]["strength"] in METHODS["AGM"].values
        assert first["hardware"]
        victim = sorted((tmp_path / "runs").glob("*agm*"))[0]
        others = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir() if file != victim}
        victim.unlink()
        assert command.main(self.arguments(tmp_path)) == 0
        assert {file: file.stat().st_mtime_ns for file in others} == others
        again = json.loads((tmp_path / "compare.json").read_text())
        for summary in (first, again):
            for row in summary["tasks"][NAME]["rows"]:
                del row["time"]
            del summary["tasks"][NAME]["search"]
        assert first == again

    @pytest.mark.parametrize("name", ["nothing", "nowhere.at.all:task", f"{NAME}x", "tests.benchmarks.small_task"])
    def test_says_what_a_task_is(self, name, capsys):
        assert command.main(["--tasks", name]) == 2
        assert "package.module:function" in capsys.readouterr().err

    def test_says_what_a_function_of_a_task_returns(self, capsys):
        assert command.main(["--tasks", "tests.benchmarks.small_task:no_task"]) == 2
        assert "should return a `benchmarks.compare.task.Task`. Got int" in capsys.readouterr().err

    def test_says_where_data_belongs(self, tmp_path, capsys):
        assert command.main(["--tasks", "mars", "--data", f"mars={tmp_path}"]) == 2
        assert str(tmp_path) in capsys.readouterr().err


@pytest.fixture(scope="module")
def digits():
    try:
        data_folder.find("mfeat", "mfeat-zer.csv")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return {name: TASKS[name]() for name in ("mfeat_regression", "mfeat_classification")}


class TestDigits:
    def test_parts_share_no_sample_and_are_the_same_for_both_tasks(self, digits):
        for one in digits.values():
            parts = [one.splits.train, one.splits.held_out, one.splits.test]
            rows = torch.cat([torch.cat([*part.inputs.values()], dim=1) for part in parts])
            assert len(rows) == len(rows.unique(dim=0)) == 1994
        first, second = (one.splits for one in digits.values())
        assert torch.equal(first.test.inputs["mor"], second.test.inputs["mor"])

    def test_every_part_has_all_classes_equally(self, digits):
        splits = digits["mfeat_classification"].splits
        for part in (splits.train, splits.held_out, splits.test):
            counts = part.target.bincount()
            assert counts.max() - counts.min() <= 3

    def test_columns_are_standardised_by_the_training_part(self, digits):
        for table in digits["mfeat_regression"].splits.train.inputs.values():
            torch.testing.assert_close(table.mean(0), torch.zeros(table.shape[1]), atol=1e-4, rtol=0)

    def test_the_regressed_set_is_no_input(self):
        assert mfeat.TARGET not in mfeat.MODALITIES


def test_strengths_reach_the_balancers():
    task = load_task(NAME)
    setup = prepare(task, task.modalities, 0, 10)
    named = {"OGM-GE": "alpha", "AGM": "alpha", "MMPareto": "gamma", "InfoReg": "beta", "sample resampling": "alpha"}
    for method, attribute in named.items():
        for strength in METHODS[method].values:
            assert getattr(METHODS[method].build(setup, strength), attribute) == strength
