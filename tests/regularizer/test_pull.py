"""The penalty of a regularizer: the formula, its gradient, and what it does in a training."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.fisher import trace
from tests.models import KINDS, Concat, Convolutional, build, loader_of
from tests.reference import assert_same
from tests.regularizer.loop import awc_of, parameters, train


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
