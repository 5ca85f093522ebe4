import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.ablation import __main__ as command
from benchmarks.ablation.cells import CELLS, FEWEST, Cell, as_cell, cell_named, load_cell
from benchmarks.ablation.conditions import GROUPS, NOBODY, PARTS, STRENGTHS, WINDOWS, Condition, middle
from benchmarks.ablation.figures import _look
from benchmarks.ablation.holds import Freeze, Hold, Pull, Slow
from benchmarks.ablation.plan import Plan
from benchmarks.ablation.predictors import QUANTITIES, claimed, ranks
from benchmarks.ablation.tables import alone, claims, every_way, every_window, groups, markdown, telling
from benchmarks.ablation.training import Run, train
from benchmarks.compare.training import fit, prepare
from examples.samples import Splits
from tests.benchmarks.small_task import NAME

MODALITIES = ("a", "b", "noise")
EPOCHS = 3
CELL = Cell(NAME)


def trained(build):
    """The parameters of a model trained with a way to hold back, and the initial ones."""
    task = load_cell(CELL)
    setup = prepare(task, task.modalities, 0, EPOCHS)
    before = {name: value.clone() for name, value in setup.model.state_dict().items()}
    hold = build(setup)
    last = {}

    def tick():
        last.update({name: value.clone() for name, value in setup.model.state_dict().items()})

    fit(setup, hold, tick, attach=hold.attach)
    return last, before, hold


def same(one, other, part=""):
    return all(torch.equal(one[name], other[name]) for name in one if name.startswith(part))


def plain(setup):
    return Hold(setup, "nobody", 0.0, 0)


class TestHolds:
    @pytest.mark.parametrize("whom", [*GROUPS, "b"])
    @pytest.mark.parametrize(
        "build",
        [
            lambda setup, whom: Pull(setup, whom, 0.0, EPOCHS, "epoch", weights="fisher"),
            lambda setup, whom: Pull(setup, whom, 0.0, EPOCHS, "zero", weights="plain"),
            lambda setup, whom: Pull(setup, whom, 9.0, 0, "init", weights="plain"),
            lambda setup, whom: Slow(setup, whom, 1.0, EPOCHS),
            lambda setup, whom: Slow(setup, whom, 0.0, 0),
            lambda setup, whom: Freeze(setup, whom, 0),
        ],
    )
    def test_nothing_is_bitwise_plain_training(self, build, whom):
        assert same(trained(lambda setup: build(setup, whom))[0], trained(plain)[0])

    def test_no_step_is_freezing(self):
        slow, before, _ = trained(lambda setup: Slow(setup, "b", 0.0, EPOCHS))
        frozen, _, _ = trained(lambda setup: Freeze(setup, "b", EPOCHS))
        assert same(slow, frozen)
        assert same(frozen, before, "encoders.b.")
        assert not same(frozen, before, "encoders.a.")

    def test_the_factor_is_one_of_the_step_under_adam(self):
        task = load_cell(CELL)
        moved = {}
        for factor in (1.0, 0.1):
            setup = prepare(task, task.modalities, 0, EPOCHS)
            hold = Slow(setup, "b", factor, EPOCHS)
            optimizer = torch.optim.Adam(setup.model.parameters(), lr=1e-3)
            hold.attach(optimizer)
            hold.start_epoch(setup.batches)
            before = [parameter.detach().clone() for parameter in setup.model.encoders["b"].parameters()]
            hold.loss(next(iter(setup.batches))).backward()
            optimizer.step()
            pairs = zip(setup.model.encoders["b"].parameters(), before, strict=True)
            moved[factor] = torch.cat([(parameter.detach() - old).flatten() for parameter, old in pairs])
        torch.testing.assert_close(moved[0.1], 0.1 * moved[1.0], atol=1e-7, rtol=1e-3)

    @pytest.mark.parametrize("anchor", ["epoch", "init", "zero"])
    @pytest.mark.parametrize("weights", ["fisher", "plain", "sized"])
    def test_the_pull_is_towards_its_anchor(self, anchor, weights):
        setup = prepare(load_cell(CELL), MODALITIES, 0, EPOCHS)
        hold = Pull(setup, "b", 2.0, EPOCHS, anchor, weights=weights)
        parameter = setup.model.encoders["b"][0].weight
        initial = parameter.detach().clone()
        with torch.no_grad():
            parameter += 1
        hold.start_epoch(setup.batches)
        with torch.no_grad():
            parameter += 1
        anchors = {"epoch": initial + 1, "init": initial, "zero": torch.zeros_like(initial)}
        hold.loss(next(iter(setup.batches))).backward()
        before = parameter.grad.clone()
        hold.adjust_gradients_()
        weight = hold.regularizer.state_dict()["fisher/b/0/weight"]
        torch.testing.assert_close(parameter.grad - before, 4 * weight * (parameter.detach() - anchors[anchor]))
        assert (len(weight.unique()) == 1) == (weights != "fisher")

    def test_strength_1_is_as_strong_as_the_gradient(self):
        setup = prepare(load_cell(CELL), MODALITIES, 0, EPOCHS)
        hold = Pull(setup, "b", 1.0, EPOCHS, "zero", weights="plain")
        hold.start_epoch(setup.batches)
        squares = []
        for batch in setup.batches:  # four of them; the loader shuffles, so that the order is another one
            setup.model.zero_grad()
            hold.loss(batch).backward()
            squares.append(torch.cat([p.grad.flatten() for p in setup.model.encoders["b"].parameters()]).square())
        setup.model.zero_grad()
        for parameter in setup.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        hold.adjust_gradients_()
        pull = torch.cat([p.grad.flatten() for p in setup.model.encoders["b"].parameters()])
        gradient = torch.stack(squares).mean().sqrt()
        torch.testing.assert_close(pull.square().mean().sqrt(), gradient, atol=0, rtol=0.2)

    @pytest.mark.parametrize("weights", ["fisher", "plain", "sized"])
    @pytest.mark.parametrize("anchor", ["epoch", "zero"])
    def test_the_unit_of_the_loss_does_not_matter(self, weights, anchor):
        found = []
        for unit in (1.0, 1000.0):
            setup = prepare(load_cell(CELL), MODALITIES, 0, EPOCHS)
            criterion = setup.task.criterion
            object.__setattr__(setup, "task", _scaled(setup.task, criterion, unit))
            hold = Pull(setup, "both", 1.0, EPOCHS, anchor, weights=weights)
            hold.start_epoch(setup.batches)
            found.append(hold.regularizer.state_dict()["fisher/b/0/weight"] / unit)
        torch.testing.assert_close(*found, atol=0, rtol=1e-3)

    def test_groups_are_those_of_awc(self):
        _, _, hold = trained(lambda setup: Freeze(setup, "superior", 2))
        other = trained(lambda setup: Freeze(setup, "inferior", 2))[2]
        assert 0 < max(hold.epochs_held.values()) <= 2
        assert hold.regularizer.epoch == EPOCHS
        first = [row["groups"] for row in (hold.regularizer.history[0], other.regularizer.history[0])]
        assert first[0] == first[1]
        assert set(first[0].values()) == {"superior", "inferior"}


def _scaled(task, criterion, unit):
    from dataclasses import replace

    return replace(task, criterion=lambda prediction, target: unit * criterion(prediction, target))


class TestPlan:
    @pytest.mark.parametrize("part", ["core", "ways", "strengths", "windows", "sized"])
    def test_a_fraction_is_a_part_of_the_whole(self, part):
        whole = PARTS["full"](MODALITIES)
        assert len(whole) == len(set(whole))
        assert set(PARTS[part](MODALITIES)) <= set(whole)

    def test_the_whole_is_a_factorial(self):
        whos = {condition.whom for condition in PARTS["full"](MODALITIES)}
        assert whos == {"nobody", *GROUPS, *MODALITIES}
        count = (len(whos) - 1) * len(WINDOWS) * sum(map(len, STRENGTHS.values()))
        assert len(PARTS["full"](MODALITIES)) == 1 + count

    def test_strengths_span_three_decades(self):
        for (how, _), values in STRENGTHS.items():
            if how in ("fisher", "plain"):
                assert values[-1] / values[0] == pytest.approx(1000)
                assert values[0] < values[1] < values[2]

    def test_every_run_is_done_once_and_a_condition_with_all_seeds_before_the_next(self):
        runs = Plan((CELL,), ("core", "ways", "strengths", "windows"), seeds=2).runs()
        assert len(runs) == len(set(runs))
        core = Plan((CELL,), ("core",), seeds=2).runs()
        assert runs[: len(core)] == core
        assert [run.condition for run in runs[::2]] == [run.condition for run in runs[1::2]]

    def test_cells_go_by_their_names(self):
        assert [cell_named(cell.name) for cell in CELLS] == [*CELLS]
        with pytest.raises(ValueError, match="mars/scarce/small"):
            cell_named("mars/little/small")

    def test_scarce_data_is_the_same_for_everybody(self):
        task, whole = load_cell(Cell(NAME, "scarce")), load_cell(CELL)
        assert len(task.splits.train) == min(FEWEST, len(whole.splits.train))
        assert task.splits.test is whole.splits.test

    def test_noise_is_as_large_as_the_signal_and_on_the_last_modality_alone(self):
        task, whole = load_cell(Cell(NAME, "noisy")), load_cell(CELL)
        for part in ("train", "held_out", "test"):
            found, before = (getattr(some.splits, part) for some in (task, whole))
            assert all(found.inputs[m] is before.inputs[m] for m in MODALITIES[:-1])
            noise = found.inputs["noise"] - before.inputs["noise"]
            assert noise.std().item() == pytest.approx(whole.splits.train.inputs["noise"].std().item(), rel=0.5)
            assert found.target is before.target

    def test_a_last_modality_that_is_no_table_cannot_be_noisy(self):
        task = load_cell(CELL)
        parts = {}
        for part in ("train", "held_out", "test"):
            own = getattr(task.splits, part)
            parts[part] = replace(own, inputs=own.inputs | {"noise": own.inputs["noise"].unsqueeze(1)})
        with pytest.raises(ValueError, match="table"):
            as_cell(replace(task, splits=Splits(**parts)), Cell(NAME, "noisy"))

    def test_a_long_training_has_three_times_the_epochs(self):
        assert load_cell(Cell(NAME, length="long")).epochs == 3 * load_cell(CELL).epochs

    def test_a_task_without_a_width_has_no_large_encoders(self):
        with pytest.raises(ValueError, match="feature"):
            load_cell(Cell(NAME, size="large"))


class TestRun:
    def test_repeats(self):
        run = Run(CELL, Condition("inferior", "plain", middle("plain", "zero"), 1.0, "zero"), 0, EPOCHS)
        first, second = (train(run, lambda: None) for _ in range(2))
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
        assert sum(first["epochs_held"].values()) > 0

    def test_looking_changes_nothing(self):
        looked = train(Run(CELL, NOBODY, 0, EPOCHS), lambda: None)
        setup = prepare(load_cell(CELL), MODALITIES, 0, EPOCHS)
        hold = plain(setup)
        unseen = fit(setup, hold, lambda: None)
        assert {key: looked[key] for key in unseen if key != "seconds"} == {
            key: value for key, value in unseen.items() if key != "seconds"
        }
        assert looked["probes"][-1]["epoch"] == "best"
        assert set(looked["probes"][-1]["held_out"]["slopes"]) == set(MODALITIES)


class TestSummary:
    def test_ranks_are_of_the_gain(self):
        found = [
            {"cell": "one", "modality": m, **dict.fromkeys(QUANTITIES, x), "percent": {"mean": -x}}
            for m, x in zip("abc", (1.0, 2.0, 3.0), strict=True)
        ]
        for rank in ranks(found).values():
            assert rank["rho"] == pytest.approx(1)
            assert rank["best_named"] == 1

    def test_claims_are_counted_by_intervals(self):
        above, around, below = ({"mean": x, "low": x - 1, "high": x + 1} for x in (2.0, 0.0, -2.0))
        found = [{"excess": above, "percent": below}, {"excess": above, "percent": below}]
        counts = claimed([*found, {"excess": around, "percent": above}])
        assert counts["above 0"] == {"helps": 2, "unclear": 0, "harms": 0}
        assert counts["unclear"] == {"helps": 0, "unclear": 0, "harms": 1}


class TestCommand:
    def arguments(self, out, *more):
        words = f"--cells {NAME}/full/small --seeds 2 --workers 0"
        return [*words.split(), "--out", str(out), *more]

    def test_writes_what_is_finished(self, tmp_path):
        assert command.main(self.arguments(tmp_path, "--parts", "core")) == 0
        summary = json.loads((tmp_path / "ablation.json").read_text())
        cell = summary["cells"][f"{NAME}/full/small"]
        assert len(cell["rows"]) == 2 * (2 + len(MODALITIES))
        assert cell["seen"][-1]["epoch"] == "best"
        assert "| noise |" in (tmp_path / "ablation.md").read_text()
        assert (tmp_path / "ablation_slopes.png").stat().st_size > 1000
        victim = sorted((tmp_path / "runs").glob("*superior*"))[0]
        victim.unlink()
        assert command.main(self.arguments(tmp_path, "--finished")) == 0
        assert not victim.exists()
        again = json.loads((tmp_path / "ablation.json").read_text())["cells"]
        assert sum(cell["incomplete"] for cell in again.values()) == 1

    def test_says_what_a_cell_is(self, tmp_path, capsys):
        assert command.main(["--cells", "mars"]) == 2
        assert "mars/scarce/small" in capsys.readouterr().err


def test_every_cell_has_a_look_of_its_own():
    looks = {tuple(_look(number).items()) for number in range(len(CELLS))}
    assert len(looks) == len(CELLS)


def test_the_page_says_what_was_found():
    folder = Path(__file__).parents[2] / "benchmarks"
    cells = json.loads((folder / "results" / "ablation.json").read_text())["cells"]
    page = (folder / "ablation.md").read_text()
    for table in (groups, alone, telling, claims, every_way, every_window):
        assert table(cells) in page, table.__name__
    assert (folder / "results" / "ablation.md").read_text() == markdown(cells) + "\n"
