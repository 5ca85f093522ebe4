import copy
import gc
import io
import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution, kmeans_groups
from awc_balance.fisher import trace
from tests.models import KINDS, Attention, Concat, Convolutional, build, loader_of
from tests.reference import assert_same


def train(model, loader, awc=None, epochs=3, loss=mse_loss, optimizer=None, closed_form=False):
    """The loop of the README."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        if awc is not None:
            awc.start_epoch(loader)
        for inputs, target in loader:
            value = loss(model(inputs), target)
            if awc is not None and not closed_form:
                value = value + awc()
            value.backward()
            if closed_form:
                awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()
    return model


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def awc_of(model, **options):
    return AWCRegularizer(
        model, model.encoders, mse_loss, **{"alpha_superior": 20.0, "alpha_inferior": 10.0, **options}
    )


def live_elements():
    """Elements of all tensors there are."""
    gc.collect()
    return sum(tensor.numel() for tensor in gc.get_objects() if issubclass(type(tensor), torch.Tensor))


class TestPenalty:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_formula(self, kind):
        model = build(kind)
        loader = loader_of(model)
        awc = awc_of(
            model, fisher="per_sample", contributions=lambda _: dict(zip(model.encoders, [0.1, 0.9], strict=True))
        )
        awc.start_epoch(loader)
        fisher = FisherDiagonal(model.encoders).estimate(loader, model, mse_loss)
        anchors = copy.deepcopy(dict(model.named_parameters()))
        train(model, loader, epochs=1)
        moved = dict(model.named_parameters())
        expected = 0.0
        for alpha, (modality, named) in zip([10, 20], fisher.items(), strict=True):
            for name, f in named.items():
                key = f"encoders.{modality}.{name}"
                expected = expected + alpha * (f * (moved[key] - anchors[key]) ** 2).sum()
        torch.testing.assert_close(awc(), expected)
        assert expected > 0

    def test_is_0_at_the_anchor_and_its_gradient_too(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        value = awc()
        value.backward()
        assert value.item() == 0
        assert all(p.grad.count_nonzero() == 0 for p in model.encoders.parameters())

    @pytest.mark.parametrize("kind", KINDS)
    def test_add_gradient_equals_the_loss_term(self, kind):
        model = build(kind)
        loader = loader_of(model)
        awc = awc_of(model)
        awc.start_epoch(loader)
        train(model, loader, epochs=1)
        (mse_loss(model.eval()(loader[0][0]), loader[0][1]) + awc()).backward()
        expected = [p.grad for p in model.parameters()]
        model.zero_grad()
        mse_loss(model(loader[0][0]), loader[0][1]).backward()
        awc.add_gradient_()
        for found, wanted in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(found.grad, wanted, rtol=1e-5, atol=1e-7)

    def test_training_with_either_form_ends_at_the_same_place(self):
        ends = []
        for closed_form in (False, True):
            model = build(Concat)
            ends.append(parameters(train(model, loader_of(model), awc_of(model), closed_form=closed_form)))
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)

    def test_holds_encoders_back(self):
        moved = []
        for alpha in (0.0, 1e5):
            model = build(Concat)
            start = parameters(model.encoders)
            train(model, loader_of(model), awc_of(model, alpha_superior=alpha, alpha_inferior=alpha))
            moved.append((parameters(model.encoders) - start).norm().item())
        assert moved[1] < 0.7 * moved[0]

    def test_frozen_parameters_are_not_pulled(self):
        model = build(Convolutional)
        model.encoders["image"].requires_grad_(False)
        loader = loader_of(model)
        awc = awc_of(model)
        train(model, loader, awc)
        awc.add_gradient_()
        assert all(p.grad is None for p in model.encoders["image"].parameters())
        assert awc.history[0]["fisher"]["image"] == 0

    def test_parameters_unfrozen_within_the_epoch_have_no_pull_before_the_next(self):
        model = build(Convolutional)
        model.encoders["image"].requires_grad_(False)
        loader = loader_of(model)
        awc = awc_of(model, alphas={"image": 5.0, "table": 0.0})
        awc.start_epoch(loader)
        model.encoders["image"].requires_grad_(True)
        train(model, loader, epochs=1)
        assert awc().item() == 0
        awc.start_epoch(loader)
        train(model, loader, epochs=1)
        assert awc().item() > 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_other_dtypes(self, dtype):
        model = build(Concat).to(dtype)
        loader = [({m: x.to(dtype) for m, x in inputs.items()}, y.to(dtype)) for inputs, y in loader_of(model)]
        awc = awc_of(model)
        awc.start_epoch(loader)
        with torch.no_grad():
            for p in model.encoders.parameters():
                p += 0.25
        value = awc()
        value.backward()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert value > 0
        assert all(p.grad.dtype == dtype for p in model.encoders.parameters())


class TestSwitchedOff:
    """Removing the added lines gives bitwise the same run as alpha 0, and as outside the window."""

    @pytest.mark.parametrize(
        "options", [{"alpha_superior": 0.0, "alpha_inferior": 0.0}, {"window": 0}, {"alphas": {"m0": 0, "m1": 0}}]
    )
    @pytest.mark.parametrize("closed_form", [False, True])
    def test_alpha_0_and_no_window_are_bitwise_plain_training(self, options, closed_form):
        plain, regularized = build(Concat), build(Concat)
        train(plain, loader_of(plain))
        train(regularized, loader_of(regularized), awc_of(regularized, **options), closed_form=closed_form)
        assert torch.equal(parameters(plain), parameters(regularized))

    def test_with_batch_norm_dropout_and_a_shuffled_loader(self):
        ends = []
        for use in (False, True):
            model = build(Convolutional).train()
            data = [({m: x[i] for m, x in inputs.items()}, y[i]) for inputs, y in loader_of(model) for i in range(8)]
            loader = torch.utils.data.DataLoader(data, 6, shuffle=True)
            awc = awc_of(model, alpha_superior=0.0, alpha_inferior=0.0) if use else None
            train(model, loader, awc)
            ends.append((parameters(model), copy.deepcopy(model.state_dict())))
        assert torch.equal(ends[0][0], ends[1][0])
        assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())

    def test_the_window_closes(self):
        model = build(Concat)
        loader = loader_of(model)
        awc = awc_of(model, window=2)
        seen = []
        for _ in range(4):
            awc.start_epoch(loader)
            train(model, loader, epochs=1)
            seen.append((awc.active, awc().item() > 0))
        assert seen == [(True, True), (True, True), (False, False), (False, False)]
        assert [row["epoch"] for row in awc.history] == [1, 2]
        assert awc.epoch == 4

    def test_the_history_has_the_intervals_of_what_it_measured(self):
        model = build(Concat)
        loader = loader_of(model)
        awc, measured = awc_of(model), ShapleyContribution(model, model.encoders).evaluate(loader)
        awc.start_epoch(loader)
        assert awc.history[0]["intervals"] == {modality: list(ends) for modality, ends in measured.intervals.items()}
        json.dumps(awc.history)

    def test_the_history_has_no_intervals_of_what_it_was_given(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model), contributions=dict.fromkeys(model.encoders, 0.5))
        assert awc.history[0]["intervals"] == {}

    def test_the_loader_is_not_read_outside_the_window(self):
        model = build(Concat)
        awc = awc_of(model, window=0)
        awc.start_epoch(None)
        assert not awc.active


class TestStrengths:
    def test_groups_set_the_alphas(self):
        model = build(Concat, modalities=3)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model), contributions={"m0": 0.5, "m1": 0.4, "m2": 0.0})
        assert awc.groups == {"m0": "superior", "m1": "superior", "m2": "inferior"}
        assert awc.alphas == {"m0": 20, "m1": 20, "m2": 10}
        assert awc.contributions == {"m0": 0.5, "m1": 0.4, "m2": 0.0}

    def test_contributions_are_measured_by_pearson(self):
        model = build(Concat)
        loader = loader_of(model)
        awc = awc_of(model)
        awc.start_epoch(loader)
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders).evaluate(loader))
        assert awc.groups == kmeans_groups(awc.contributions)

    def test_another_profit_by_name(self):
        model = build(Concat, outputs=4)
        loader = [(inputs, torch.arange(8) % 4) for inputs, _ in loader_of(model)]
        awc = AWCRegularizer(model, model.encoders, cross_entropy, contributions="accuracy")
        awc.start_epoch(loader)
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders, "accuracy").evaluate(loader))

    def test_contributions_may_come_from_anywhere(self):
        model = build(Concat)
        awc = awc_of(model, contributions=lambda loader: {"m1": len(loader), "m0": 0})
        awc.start_epoch(loader_of(model))
        assert awc.contributions == {"m0": 0, "m1": 3}
        table = {"m1": 3.0, "m0": 0.0}
        awc = awc_of(model, contributions=table)
        for table["m0"] in (1.0, 5.0):
            awc.start_epoch(loader_of(model))
            assert awc.contributions == {"m0": table["m0"], "m1": 3.0}
        assert [row["groups"]["m0"] for row in awc.history] == ["inferior", "superior"]
        contribution = ShapleyContribution(model, model.encoders, "negative_mse")
        awc = awc_of(model, contributions=contribution)
        awc.start_epoch(loader_of(model))
        assert awc.contributions == dict(contribution.evaluate(loader_of(model)))

    def test_the_grouping_may_be_ones_own(self):
        model = build(Concat)
        awc = awc_of(model, grouping=lambda contributions: dict.fromkeys(contributions, "superior"))
        awc.start_epoch(loader_of(model))
        assert awc.alphas == {"m0": 20, "m1": 20}

    def test_fixed_alphas_need_no_contributions(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m1": 3, "m0": 1})
        awc.start_epoch(loader_of(model))
        assert awc.alphas == {"m0": 1, "m1": 3}
        assert awc.contributions == {}
        assert awc.groups == {}

    def test_fixed_alphas_take_more_than_sixteen_modalities(self):
        model = build(Concat, modalities=17)
        awc = awc_of(model, alphas=dict.fromkeys(model.encoders, 1.0))
        awc.start_epoch(loader_of(model))
        assert len(awc.alphas) == 17

    def test_alphas_may_be_a_rule(self):
        model = build(Concat)
        awc = awc_of(model, alphas=lambda contributions: {m: 10 * max(c, 0) for m, c in contributions.items()})
        awc.start_epoch(loader_of(model), contributions={"m0": 0.5, "m1": -0.1})
        assert awc.alphas == {"m0": 5, "m1": 0}

    @pytest.mark.parametrize("modalities", [1, 2, 3, 8])
    def test_any_number_of_modalities(self, modalities):
        model = build(Concat, modalities=modalities)
        awc = awc_of(model)
        train(model, loader_of(model), awc, epochs=1)
        assert len(awc.groups) == modalities


class TestScale:
    """One alpha for losses in metres and in millimetres."""

    @staticmethod
    def in_unit(unit, scale, optimizer=None, alpha=3.0):
        model = build(Concat)

        def loss(prediction, target):
            return unit * (prediction - target).abs().mean()

        awc = AWCRegularizer(model, model.encoders, loss, alpha_superior=alpha, alpha_inferior=alpha, scale=scale)
        optimizer = optimizer and optimizer(model.parameters(), unit)
        train(model, loader_of(model), awc, loss=loss, optimizer=optimizer, epochs=4)
        return parameters(model), awc().item()

    @staticmethod
    def adam(parameters, unit):
        return torch.optim.Adam(parameters, lr=1e-2, eps=1e-12 * unit)

    @staticmethod
    def sgd(parameters, unit):
        return torch.optim.SGD(parameters, lr=0.5 / unit)

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_root_mean_trains_the_same_in_any_unit(self, optimizer):
        metres, millimetres = (self.in_unit(unit, "root_mean", getattr(self, optimizer)) for unit in (1.0, 1000.0))
        torch.testing.assert_close(metres[0], millimetres[0], rtol=1e-3, atol=1e-4)
        assert millimetres[1] == pytest.approx(1000 * metres[1], rel=0.02)
        plain = self.in_unit(1.0, "root_mean", getattr(self, optimizer), alpha=0.0)
        assert (plain[0] - metres[0]).abs().max() > 1e-3  # the pull was at work

    @pytest.mark.parametrize("scale", ["raw", "mean"])
    def test_the_others_do_not(self, scale):
        metres, millimetres = (self.in_unit(unit, scale, self.adam)[0] for unit in (1.0, 1000.0))
        assert (metres - millimetres).abs().max() > 1e-3

    @pytest.mark.parametrize(("scale", "power"), [("raw", 2), ("root_mean", 1), ("mean", 0)])
    def test_how_the_penalty_follows_the_unit(self, scale, power):
        values = []
        for unit in (1.0, 1000.0):
            model = build(Concat)
            awc = AWCRegularizer(
                model, model.encoders, lambda p, t, unit=unit: unit * (p - t).abs().mean(), scale=scale
            )
            awc.start_epoch(loader_of(model))
            with torch.no_grad():
                for p in model.encoders.parameters():
                    p += 0.1
            values.append(awc().item())
        assert values[1] == pytest.approx(values[0] * 1000**power, rel=1e-4)

    def test_mean_divides_by_the_mean_over_all_encoders(self):
        model = build(Concat)
        loader = loader_of(model)
        awc = awc_of(model, scale="mean")
        awc.start_epoch(loader)
        kept = [buffer for name, buffer in awc.named_buffers() if name.startswith("fisher")]
        assert torch.cat([buffer.flatten() for buffer in kept]).mean().item() == pytest.approx(1)

    @pytest.mark.parametrize("scale", ["mean", "root_mean"])
    def test_fisher_diagonals_of_0_stay_0(self, scale):
        model = build(Concat)
        nn.init.zeros_(model.head[-1].weight)
        awc = awc_of(model, scale=scale)
        awc.start_epoch(loader_of(model))
        train(model, loader_of(model), epochs=1)
        assert awc().item() == 0


class TestFisher:
    @pytest.mark.parametrize("form", ["per_sample", "per_batch", "corrected"])
    def test_form_by_name(self, form):
        model = build(Concat)
        loader = loader_of(model)
        awc = awc_of(model, fisher=form)
        awc.start_epoch(loader)
        expected = FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss)
        assert awc.history[0]["fisher"] == trace(expected)
        kept = {
            m: {n: awc.get_buffer(f"fisher/{m}/{n.replace('.', '/')}") for n in named} for m, named in expected.items()
        }
        assert_same(kept, expected)

    def test_one_of_ones_own(self):
        model = build(Concat)
        awc = awc_of(model, fisher=FisherDiagonal(model.encoders, samples=5))
        awc.start_epoch(loader_of(model))
        expected = FisherDiagonal(model.encoders, samples=5).estimate(loader_of(model), model, mse_loss)
        assert awc.history[0]["fisher"] == trace(expected)


class TestState:
    @pytest.mark.parametrize("stop", [1, 4, 5, 6, 8])
    def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(self, stop):
        def run(stop):
            model = build(Attention)
            loader = loader_of(model)
            awc, optimizer = awc_of(model, window=2), torch.optim.Adam(model.parameters(), lr=1e-2)
            for number in range(9):
                if number == stop:
                    saved = io.BytesIO()
                    torch.save([x.state_dict() for x in (model, awc, optimizer)], saved)
                    saved.seek(0)
                    model = build(Attention, seed=1)
                    awc, optimizer = awc_of(model, window=2), torch.optim.Adam(model.parameters(), lr=1e-2)
                    for x, state in zip((model, awc, optimizer), torch.load(saved, weights_only=True), strict=True):
                        x.load_state_dict(state)
                if number % 3 == 0:
                    awc.start_epoch(loader)
                inputs, target = loader[number % 3]
                (mse_loss(model(inputs), target) + awc()).backward()
                optimizer.step()
                optimizer.zero_grad()
            return parameters(model), awc

        whole, awc = run(None)
        resumed, other = run(stop)
        assert torch.equal(whole, resumed)
        assert awc.history == other.history
        assert awc.epoch == other.epoch

    def test_a_state_kept_in_memory_does_not_change(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        state = awc.state_dict()
        copied = copy.deepcopy(state)
        train(model, loader_of(model), awc)
        assert state["_extra_state"] == copied["_extra_state"]
        assert all(torch.equal(v, copied[k]) for k, v in state.items() if k != "_extra_state")

    def test_a_state_of_another_model_is_refused_with_every_key(self):
        awc = awc_of(build(Concat, modalities=2))
        before = copy.deepcopy(awc.state_dict())
        other = awc_of(build(Concat, modalities=3, outputs=5)).state_dict()
        del other["anchor/m0/0/bias"]
        other["fisher/m1/0/weight"] = torch.zeros(7, 7)
        with pytest.raises(ValueError, match="same encoders") as error:
            awc.load_state_dict(other)
        for offence in (
            "anchor/m0/0/bias: missing",
            r"fisher/m1/0/weight: shape (7, 7) in place of (4, 3)",
            "anchor/m2/0/weight: unexpected",
            "fisher/m2/0/bias: unexpected",
        ):
            assert offence in str(error.value)
        after = awc.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items() if k != "_extra_state")

    def test_as_a_part_of_a_larger_module_it_is_saved_and_loaded(self):
        class Task(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = build(Concat)
                self.awc = awc_of(self.model)

        task, fresh = Task(), Task()
        task.awc.start_epoch(loader_of(task.model))
        fresh.load_state_dict(task.state_dict())
        assert fresh.awc.alphas == task.awc.alphas
        assert fresh.awc.active

    def test_copies_pull_their_own_model(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        twin = copy.deepcopy(awc)
        train(model, loader_of(model), epochs=1)
        assert awc().item() > 0
        assert twin().item() == 0

    def test_a_model_without_values_is_refused_and_the_anchors_stay(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        awc.start_epoch(loader_of(model))
        before, state = {k: v.clone() for k, v in awc.named_buffers()}, copy.deepcopy(model.state_dict())
        model.to("meta")
        for call in (awc, awc.add_gradient_, lambda: awc.start_epoch(loader_of(build(Concat)))):
            with pytest.raises(RuntimeError, match="meta device"):
                call()
        model.to_empty(device="cpu").load_state_dict(state)
        assert awc().item() == 0
        assert all(torch.equal(buffer, before[name]) for name, buffer in awc.named_buffers())

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
    def test_moving_the_model_moves_the_anchors(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        awc.start_epoch(loader_of(model))
        model.cuda()
        assert awc().device.type == "cuda"
        assert all(buffer.is_cuda for buffer in awc.buffers())


class TestMemory:
    """Where anchors and Fisher diagonals are kept, and in what precision."""

    @staticmethod
    def ends(dtype=torch.float32, **options):
        model = build(Concat).to(dtype)
        loader = [({m: x.to(dtype) for m, x in inputs.items()}, y.to(dtype)) for inputs, y in loader_of(model)]
        awc = awc_of(model, **options)
        return parameters(train(model, loader, awc, closed_form=True)), awc

    @staticmethod
    def kept(awc, kind):
        return {name: buffer for name, buffer in awc.named_buffers() if name.startswith(kind)}

    def test_nothing_but_anchors_and_fisher_diagonals_stays_in_memory(self):
        model = build(Concat)
        own = FisherDiagonal(model.encoders, "corrected")
        before = live_elements()
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        for _ in range(2):
            awc.start_epoch(loader_of(model))
            kept = sum(buffer.numel() for buffer in awc.buffers())
            gradients = sum(p.numel() for p in model.encoders.parameters())
            assert kept == 2 * gradients
            assert live_elements() - before <= kept + gradients
            awc.add_gradient_()
        awc = awc_of(model, fisher=own)
        awc.start_epoch(loader_of(model))
        assert own.compute()  # one of the user's own is left alone

    def test_fisher_diagonals_in_bfloat16_pull_almost_as_far(self):
        (exact, _), (coarse, awc), (plain, _) = self.ends(), self.ends(fisher_dtype=torch.bfloat16), self.ends(window=0)
        assert {buffer.dtype for buffer in self.kept(awc, "fisher").values()} == {torch.bfloat16}
        assert {buffer.dtype for buffer in self.kept(awc, "anchor").values()} == {torch.float32}
        assert 0 < (coarse - exact).norm() < 0.02 * (plain - exact).norm()

    @pytest.mark.parametrize("fisher_dtype", [None, torch.bfloat16])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_at_the_anchor_the_pull_is_0_whatever_the_precision(self, dtype, fisher_dtype):
        model = build(Attention).to(dtype)
        inputs, target = loader_of(model)[0]
        awc = awc_of(model, fisher_dtype=fisher_dtype)
        awc.start_epoch([({m: x.to(dtype) for m, x in inputs.items()}, target.to(dtype))])
        awc.add_gradient_()
        assert awc().item() == 0
        assert all(p.grad.count_nonzero() == 0 for p in model.encoders.parameters())

    def test_kept_on_another_device_it_trains_the_same(self):
        here, _ = self.ends()
        there, awc = self.ends(state_device="cpu")
        assert torch.equal(here, there)
        awc.to("meta")  # as a part of a larger module that is moved
        assert {buffer.device.type for buffer in awc.buffers()} == {"cpu"}

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU beside the CPU")
    def test_kept_on_the_cpu_for_a_model_on_a_gpu(self):
        ends = []
        for state_device in (None, "cpu"):
            model = build(Concat).cuda()
            awc = awc_of(model, state_device=state_device)
            loader = [({m: x.cuda() for m, x in inputs.items()}, y.cuda()) for inputs, y in loader_of(model)]
            ends.append(parameters(train(model, loader, awc, closed_form=state_device is None)))
        assert {buffer.device.type for buffer in awc.buffers()} == {"cpu"}
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_casting_a_larger_module_leaves_fisher_diagonals_alone(self, dtype):
        task = nn.Module()
        task.model = build(Concat)
        task.awc = awc_of(task.model, scale="mean")
        task.awc.start_epoch(loader_of(task.model))
        before = {name: buffer.clone() for name, buffer in self.kept(task.awc, "fisher").items()}
        task.to(dtype)
        after = self.kept(task.awc, "fisher")
        assert all(torch.equal(buffer, after[name]) for name, buffer in before.items())
        assert task.awc().item() == 0
        assert {buffer.dtype for buffer in self.kept(task.awc, "anchor").values()} == {dtype}
        with torch.no_grad():
            for parameter in task.model.encoders.parameters():
                parameter += 0.25
        assert task.awc() > 0

    def test_a_model_cast_in_the_middle_of_an_epoch_is_still_at_its_anchor(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        model.half()
        assert awc().item() == 0
        model.double()
        assert awc().item() == 0

    def test_a_resumed_run_keeps_them_as_they_were(self):
        _, awc = self.ends(fisher_dtype=torch.bfloat16)
        other = awc_of(build(Concat), fisher_dtype=torch.bfloat16)
        other.load_state_dict(awc.state_dict())
        for name, buffer in awc.named_buffers():
            assert torch.equal(buffer, other.get_buffer(name))
            assert buffer.dtype == other.get_buffer(name).dtype

    def test_overflow_is_refused_and_everything_stays(self):
        model = build(Concat).double()
        awc = awc_of(model, fisher_dtype=torch.float32)
        huge = {m: {n: torch.full_like(p, 1e300) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
        before = {name: buffer.clone() for name, buffer in awc.named_buffers()}
        with pytest.raises(ValueError, match="overflow torch.float32"):
            awc.start_epoch(None, contributions={"m0": 1, "m1": 2}, fisher=huge)
        assert all(torch.equal(buffer, before[name]) for name, buffer in awc.named_buffers())
        assert awc.epoch == 0


class TestCheapMeasurement:
    """A few batches of the loader, or what is known already, in place of two passes over the data."""

    def test_a_few_batches_are_read_once_and_used_for_both(self):
        model, reads = build(Concat), []
        batches = loader_of(model, 5)

        def loader():
            for batch in batches:
                reads.append(batch)
                yield batch

        awc = awc_of(model, batches=2, fisher="corrected")
        awc.start_epoch(loader())
        assert len(reads) == 2
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders).evaluate(batches[:2]))
        expected = FisherDiagonal(model.encoders, "corrected").estimate(batches[:2], model, mse_loss)
        assert awc.history[0]["fisher"] == trace(expected)

    def test_more_batches_than_there_are_is_all(self):
        model = build(Concat)
        few, every = awc_of(model, batches=100), awc_of(model)
        for awc in (few, every):
            awc.start_epoch(loader_of(model))
        assert few.history == every.history

    def test_measuring_on_a_few_does_not_change_what_the_loader_yields(self):
        ends = []
        for use in (False, True):
            model = build(Convolutional).train()
            data = [({m: x[i] for m, x in inputs.items()}, y[i]) for inputs, y in loader_of(model) for i in range(8)]
            generator = torch.Generator().manual_seed(0)
            loader = torch.utils.data.DataLoader(data, 6, shuffle=True, generator=generator)
            awc = awc_of(model, alpha_superior=0.0, alpha_inferior=0.0, batches=2) if use else None
            ends.append(parameters(train(model, loader, awc)))
        assert torch.equal(*ends)

    def test_an_empty_loader_is_refused(self):
        with pytest.raises(ValueError, match="at least one batch"):
            awc_of(build(Concat), batches=2).start_epoch([])

    def test_fisher_diagonals_of_the_last_steps(self):
        model = build(Concat)
        loader, fisher = loader_of(model), FisherDiagonal(model.encoders, "corrected")
        awc, optimizer = awc_of(model, scale="root_mean"), torch.optim.SGD(model.parameters(), lr=0.1)
        awc.start_epoch(loader)
        for inputs, target in loader:
            mse_loss(model(inputs), target).backward()
            fisher.update(len(target))
            awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()
        awc.start_epoch(None, contributions=awc.contributions, fisher=fisher.compute())
        assert awc.history[1]["fisher"] == fisher.trace()
        train(model, loader, epochs=1)
        assert awc().item() > 0

    BAD = {
        "no mapping": (lambda fisher: 3.0, TypeError, "mapping by modality. Got float"),
        "no mapping inside": (lambda fisher: {**fisher, "m0": 3.0}, TypeError, r"fisher\['m0'\].*Got float"),
        "a modality too few": (lambda fisher: {"m0": fisher["m0"]}, ValueError, "exactly the modalities m0, m1"),
        "a parameter too few": (lambda fisher: {**fisher, "m0": {}}, ValueError, "0.weight of `m0`: missing"),
        "a parameter too many": (
            lambda fisher: {**fisher, "m0": {**fisher["m0"], "x": torch.ones(1)}},
            ValueError,
            "x of `m0`: unexpected",
        ),
        "no tensor": (
            lambda fisher: {**fisher, "m0": dict.fromkeys(fisher["m0"], 1.0)},
            ValueError,
            "float in place of a tensor",
        ),
        "another shape": (
            lambda fisher: {**fisher, "m0": {n: f[:1] for n, f in fisher["m0"].items()}},
            ValueError,
            r"shape \(1,\) in place of \(4,\)",
        ),
        "integers": (
            lambda fisher: {**fisher, "m0": {n: f.long() for n, f in fisher["m0"].items()}},
            ValueError,
            "int64 in place of a floating-point dtype",
        ),
        "not finite": (
            lambda fisher: {**fisher, "m0": {n: f / 0 for n, f in fisher["m0"].items()}},
            ValueError,
            "not finite",
        ),
        "negative": (
            lambda fisher: {**fisher, "m0": {n: -f - 1 for n, f in fisher["m0"].items()}},
            ValueError,
            "negative",
        ),
    }

    @pytest.mark.parametrize("case", BAD)
    def test_bad_fisher_diagonals_are_refused_and_everything_stays(self, case):
        change, error, words = self.BAD[case]
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        good = FisherDiagonal(model.encoders).estimate(loader_of(model), model, mse_loss)
        with pytest.raises(error, match=words):
            awc.start_epoch(loader_of(model), fisher=change(good))
        assert awc.epoch == 1


class TestChangedBehindItsBack:
    """What is pulled is worked out once and kept, yet always that of the present model."""

    @staticmethod
    def moved(**options):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 2.0}, **options)
        awc.start_epoch(loader_of(model))
        with torch.no_grad():
            for p in model.encoders.parameters():
                p += 0.1
        return model, awc, awc().item()

    def test_alphas(self):
        _, awc, value = self.moved()
        awc.alphas = {m: 2 * alpha for m, alpha in awc.alphas.items()}
        assert awc().item() == pytest.approx(2 * value)

    def test_a_parameter_that_was_replaced(self):
        model, awc, value = self.moved()
        layer = model.encoders["m0"][0]
        layer.weight = nn.Parameter(awc.get_buffer("anchor/m0/0/weight").clone())
        assert 0 < awc().item() < value
        awc.add_gradient_()
        assert layer.weight.grad.count_nonzero() == 0

    def test_a_layer_that_was_replaced(self):
        model, awc, value = self.moved()
        layer = copy.deepcopy(model.encoders["m0"][0])
        model.encoders["m0"][0] = layer
        assert awc().item() == value
        awc.add_gradient_()
        assert layer.weight.grad is not None

    def test_data_of_another_shape(self):
        model, awc, _ = self.moved()
        model.encoders["m0"][0].weight.data = torch.zeros(1, 3)
        with pytest.raises(RuntimeError, match=r"0.weight of `m0` is new or has another shape"):
            awc()

    def test_a_state_that_is_loaded_with_assign(self):
        _, awc, value = self.moved()
        state = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in awc.state_dict().items()}
        state["fisher/m0/0/weight"] *= 0
        awc.load_state_dict(state, assign=True)
        assert 0 < awc().item() < value

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
    def test_a_copy_of_both(self, copied):
        model, awc, value = self.moved()
        twin, other = copied((model, awc))
        with torch.no_grad():
            for p in twin.encoders.parameters():
                p.zero_()
        assert awc().item() == value != other().item()
        other.add_gradient_()
        assert all(p.grad is None for p in model.parameters())
        assert all(p.grad is not None for p in twin.encoders.parameters())

    def test_the_next_epoch(self):
        model, awc, value = self.moved()
        awc.start_epoch(loader_of(model))
        assert value > awc().item() == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"window": -1}, ValueError, "`window`.*at least 0. Got -1"),
            ({"window": 2.5}, ValueError, "Got 2.5"),
            ({"window": True}, ValueError, "Got True"),
            ({"alpha_superior": -1.0}, ValueError, "`alpha_superior`.*at least 0. Got -1"),
            ({"alpha_inferior": float("nan")}, ValueError, "`alpha_inferior`.*Got nan"),
            ({"alphas": {"m0": 1.0}}, ValueError, "exactly the modalities m0, m1. Got m0"),
            ({"alphas": {"m0": 1.0, "m1": -2.0}}, ValueError, r"alphas\['m1'\].*Got -2"),
            ({"alphas": 3.0}, TypeError, "mapping by modality. Got float"),
            ({"contributions": "r2"}, ValueError, "`contributions` should be one of 'pearson'.*Got 'r2'"),
            ({"contributions": [1.0, 2.0]}, TypeError, "`contributions` should be callable. Got list"),
            ({"grouping": "kmeans"}, TypeError, "`grouping` should be callable"),
            ({"fisher": "exact"}, ValueError, "`fisher` should be one of.*'corrected'. Got 'exact'"),
            ({"scale": "free"}, ValueError, "'root_mean'. Got 'free'"),
            ({"batches": 0}, ValueError, "`batches`.*at least 1. Got 0"),
            ({"fisher_dtype": "bfloat16"}, TypeError, "`fisher_dtype` should be a torch.dtype. Got str"),
            ({"fisher_dtype": torch.float16}, ValueError, "one of None, torch.bfloat16.*Got torch.float16"),
            ({"state_device": 0}, TypeError, "`state_device` should be a device. Got int"),
            ({"state_device": "attic"}, ValueError, "`state_device` should be a device. Got 'attic'"),
        ],
    )
    def test_options(self, options, error, words):
        with pytest.raises(error, match=words):
            awc_of(build(Concat), **options)

    def test_a_mapping_of_contributions_that_leaves_somebody_out(self):
        model = build(Concat)
        awc = awc_of(model, contributions={"m0": 1.0})
        with pytest.raises(ValueError, match="`contributions` should name exactly the modalities m0, m1. Got m0"):
            awc.start_epoch(loader_of(model))
        assert awc.epoch == 0

    def test_a_progress_bar_that_cannot_be_called(self):
        model = build(Concat)
        awc = awc_of(model)
        with pytest.raises(TypeError, match="`progress` should be callable. Got bool. Pass a wrapper"):
            awc.start_epoch(loader_of(model), progress=True)
        assert awc.epoch == 0

    def test_a_criterion_that_cannot_be_called(self):
        model = build(Concat)
        with pytest.raises(TypeError, match="`criterion` should be callable. Got NoneType"):
            AWCRegularizer(model, model.encoders, None)

    def test_a_fisher_diagonal_of_other_encoders(self):
        with pytest.raises(ValueError, match="same encoders"):
            awc_of(build(Concat), fisher=FisherDiagonal(build(Concat).encoders))

    def test_calls_in_the_wrong_order(self):
        awc = awc_of(build(Concat))
        with pytest.raises(RuntimeError, match=r"Call start_epoch\(loader\)"):
            awc()
        with pytest.raises(RuntimeError, match=r"Call start_epoch\(loader\)"):
            awc.add_gradient_()

    def test_parameters_exchanged_behind_its_back(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        model.encoders["m0"].append(nn.Linear(4, 4))
        with pytest.raises(RuntimeError, match=r"2.weight of `m0` is new"):
            awc()

    FAILURES = {
        "an empty loader": ([], {}, ValueError, "at least one batch"),
        "a non-finite loss": ("poisoned", {}, ValueError, "finite"),
        "a loader that raises": ("breaking", {}, OSError, "disk"),
        "contributions of other modalities": ("good", {"contributions": {"m0": 1.0}}, ValueError, "Got m0"),
        "a contribution that is not finite": (
            "good",
            {"contributions": {"m0": 1.0, "m1": float("nan")}},
            ValueError,
            "Got nan for `m1`",
        ),
    }

    @pytest.mark.parametrize("case", FAILURES)
    def test_an_epoch_that_cannot_start_leaves_everything(self, case):
        kind, options, error, words = self.FAILURES[case]
        model = build(Concat)
        good = loader_of(model)

        def breaking():
            yield good[0]
            raise OSError("the disk is gone")

        inputs, target = good[0]
        loader = {"good": good, "poisoned": [({**inputs, "m0": inputs["m0"] / 0}, target)], "breaking": breaking()}.get(
            kind if isinstance(kind, str) else "", kind
        )
        awc = awc_of(model)
        awc.start_epoch(good)
        train(model, good, epochs=1)
        before, value = copy.deepcopy(awc.state_dict()), awc().item()
        with pytest.raises(error, match=words):
            awc.start_epoch(loader, **options)
        assert awc.state_dict()["_extra_state"] == before["_extra_state"]
        assert awc().item() == value
        awc.start_epoch(good)
        assert awc.epoch == 2


@given(st.integers(0, 1000), st.floats(0, 1e4), st.floats(0, 1e4))
def test_is_linear_in_the_alphas(seed, first, second):
    model = build(Concat, seed=seed)
    loader = loader_of(model, 2, seed=seed)

    def penalty(a, b):
        awc = awc_of(model, alphas={"m0": a, "m1": b})
        awc.start_epoch(loader)
        with torch.no_grad():
            for p in model.encoders.parameters():
                p += 0.1
        value = awc().item()
        with torch.no_grad():
            for p in model.encoders.parameters():
                p -= 0.1
        return value

    assert penalty(first, second) == pytest.approx(first * penalty(1, 0) + second * penalty(0, 1), rel=1e-2, abs=1e-6)
