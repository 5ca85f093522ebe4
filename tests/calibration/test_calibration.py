"""The parts of a prediction, and the factors that suit them best, against slow and obvious computations."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from awc_balance import Calibration
from awc_balance.batches import default_step
from awc_balance.calibration.logistic import LogisticFit
from awc_balance.calibration.parts import Parts, by_coalition, by_modality, split_prediction
from awc_balance.calibration.slopes import slopes_of
from awc_balance.calibration.squared import SquaredFit
from awc_balance.contributions.runs import BatchRun, Measured, Runner
from awc_balance.preserve import measuring
from tests.models import KINDS, Concat, build, loader_of
from tests.processes import in_two_processes
from tests.reference import coalition_predictions, shapley_by_permutations


class Sum(nn.Module):
    """Predicts the sum of its inputs, each times a number: encoders that can be wrong by known factors."""

    def __init__(self, factors, outputs=3):
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(outputs, outputs, bias=False) for name in factors})
        with torch.no_grad():
            for name, factor in factors.items():
                self.encoders[name].weight.copy_(factor * torch.eye(outputs))

    def forward(self, inputs):
        return sum(encoder(inputs[name]) for name, encoder in self.encoders.items())


class Product(Sum):
    """Predicts the product, so that no part of the prediction belongs to one modality alone."""

    def forward(self, inputs):
        return torch.stack([encoder(inputs[name]) for name, encoder in self.encoders.items()]).prod(0)


def signals(modalities=("a", "b"), samples=400, outputs=3, noise=0.1, seed=0):
    """Independent inputs, and their sum with noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(samples, outputs, generator=generator) for name in modalities}
    return inputs, sum(inputs.values()) + noise * torch.randn(samples, outputs, generator=generator)


def batches_of(batch, size):
    inputs, target = batch
    return [
        ({name: x[i : i + size] for name, x in inputs.items()}, target[i : i + size])
        for i in range(0, len(target), size)
    ]


def parts_of(model, batch, split=by_modality):
    run = BatchRun(Measured(model, model.encoders, default_step, None), batch)
    return split_prediction(run, Runner(together=True), split(len(model.encoders)), 0)


def fitted(parts, target, kind=SquaredFit):
    fit = kind()
    fit.add(parts, target)
    return fit


def table(samples=60, modalities=3, outputs=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(modalities, samples, outputs, generator=generator, dtype=torch.float64)
    base = torch.randn(samples, outputs, generator=generator, dtype=torch.float64)
    target = torch.randn(samples, outputs, generator=generator, dtype=torch.float64) + parts.sum(0)
    return Parts(base, parts), target


class TestParts:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_shapley_values_of_the_prediction(self, kind):
        model = build(kind)
        batch = loader_of(model)[0]
        with measuring(model), torch.no_grad():
            found = parts_of(model, batch)
        coalitions = coalition_predictions(model, [batch])
        expected = shapley_by_permutations([p.double().numpy() for p in coalitions], len(model.encoders))
        torch.testing.assert_close(found.parts, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.whole, coalitions[-1].double(), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_coalitions_shared_among_their_members_are_those_of_modalities(self, kind):
        model = build(kind)
        batch = loader_of(model)[0]
        with measuring(model), torch.no_grad():
            dividends, expected = parts_of(model, batch, by_coalition), parts_of(model, batch)
        owners = by_coalition(len(model.encoders)).owners
        torch.testing.assert_close(torch.tensordot(owners.T, dividends.parts, 1), expected.parts)
        torch.testing.assert_close(dividends.base, expected.base)


class TestSquared:
    @pytest.mark.parametrize("size", [7, 20, 60])
    def test_equals_least_squares_of_centred_parts(self, size):
        parts, target = table()
        fit = SquaredFit()
        for i in range(0, 60, size):
            fit.add(Parts(parts.base[i : i + size], parts.parts[:, i : i + size]), target[i : i + size])
        q = (parts.parts - parts.parts.mean(1, keepdim=True)).flatten(1).numpy().T
        wanted = target - parts.base
        y = (wanted - wanted.mean(0)).flatten().numpy()
        expected = np.linalg.lstsq(q, y, rcond=None)[0]
        whole = (q.sum(1) @ y) / (q.sum(1) @ q.sum(1))
        slopes = slopes_of(fit, torch.eye(3, dtype=torch.float64), "abc")
        assert slopes.whole == pytest.approx(whole, rel=1e-3)
        assert list(slopes.values()) == pytest.approx(list(expected / whole), rel=2e-3)

    def test_weights_count_folds(self):
        parts, target = table()
        fit = fitted(parts, target)
        kept = torch.ones(1, fit.folds(), dtype=torch.float64)
        kept[0, 3] = 0
        left = [i for i in range(60) if i // 3 != 3]
        alone = fitted(Parts(parts.base[left], parts.parts[:, left]), target[left])
        each = torch.eye(3, dtype=torch.float64)
        found = fit.minimum(each, kept)
        expected = alone.minimum(each, torch.ones(1, alone.folds(), dtype=torch.float64))
        torch.testing.assert_close(found.factors, expected.factors)
        torch.testing.assert_close(found.loss, expected.loss)

    def test_neighbours_share_a_fold_when_there_are_many(self):
        parts, target = table(samples=1000)
        fit = SquaredFit()
        for i in range(0, 1000, 10):
            fit.add(Parts(parts.base[i : i + 10], parts.parts[:, i : i + 10]), target[i : i + 10])
        assert 20 <= fit.folds() <= 40
        whole = fitted(parts, target)
        ones = [torch.ones(1, f.folds(), dtype=torch.float64) for f in (fit, whole)]
        each = torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(fit.minimum(each, ones[0]).factors, whole.minimum(each, ones[1]).factors)


class TestLogistic:
    @pytest.mark.parametrize("classes", [True, False])
    def test_equals_a_general_minimiser(self, classes):
        parts, _ = table(samples=200)
        generator = torch.Generator().manual_seed(1)
        logits = parts.base + 0.5 * parts.parts.sum(0)
        if classes:
            target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
            loss = nn.functional.cross_entropy
        else:
            target = torch.bernoulli(logits.sigmoid(), generator=generator)
            loss = nn.functional.binary_cross_entropy_with_logits

        def value(factors):
            g = torch.from_numpy(np.asarray(factors))
            return loss(parts.base + torch.tensordot(g, parts.parts, 1), target).item()

        fit = LogisticFit(classes=classes)
        fit.add(Parts(parts.base[:90], parts.parts[:, :90]), target[:90])
        fit.add(Parts(parts.base[90:], parts.parts[:, 90:]), target[90:])
        best = minimize(value, np.ones(3), tol=1e-10)
        found = fit.minimum(torch.eye(3, dtype=torch.float64), torch.ones(1, fit.folds(), dtype=torch.float64))
        assert found.factors[0].tolist() == pytest.approx(list(best.x), abs=2e-3)
        assert found.loss.item() == pytest.approx(best.fun, rel=1e-5)

    def test_leaving_out_a_fold_is_near_to_fitting_without_it(self):
        parts, _ = table(samples=400)
        target = (parts.base + 0.5 * parts.parts.sum(0)).argmax(1)
        fit = fitted(parts, target, lambda: LogisticFit(classes=True))
        kept = torch.ones(1, 20, dtype=torch.float64)
        kept[0, 0] = 0
        rest = fitted(Parts(parts.base[20:], parts.parts[:, 20:]), target[20:], lambda: LogisticFit(classes=True))
        each = torch.eye(3, dtype=torch.float64)
        exact = rest.minimum(each, torch.ones(1, 20, dtype=torch.float64)).factors
        full = fit.minimum(each, torch.ones(1, 20, dtype=torch.float64)).factors
        found = fit.minimum(each, kept).factors
        assert (found - exact).abs().max() < 0.1 * (full - exact).abs().max()


class TestSlopes:
    def test_are_1_for_parts_that_are_right(self):
        model = Sum({"a": 1.0, "b": 1.0})
        slopes = Calibration(model, model.encoders).evaluate([signals()])
        assert dict(slopes) == pytest.approx({"a": 1.0, "b": 1.0}, abs=0.02)
        assert slopes.whole == pytest.approx(1.0, abs=0.02)

    def test_say_by_how_much_a_part_is_too_large(self):
        model = Sum({"a": 1.0, "b": 2.0})
        slopes = Calibration(model, model.encoders).evaluate([signals()])
        assert slopes["b"] / slopes["a"] == pytest.approx(0.5, abs=0.02)
        assert slopes.intervals["b"][0] < slopes["b"] < slopes.intervals["b"][1] < 1.0

    def test_are_near_0_for_noise_and_its_cost_too(self):
        model = Sum({"a": 1.0, "b": 0.5, "noise": 0.5})
        inputs, target = signals()
        inputs["noise"] = torch.randn(400, 3, generator=torch.Generator().manual_seed(5))
        slopes = Calibration(model, model.encoders).evaluate([(inputs, target)])
        assert abs(slopes["noise"]) < 0.1
        assert slopes.costs["noise"].low < 0.01
        assert slopes.costs["a"].value > 1
        assert sum(slopes.shares.values()) == pytest.approx(1.0)

    @given(
        unit=st.sampled_from([1e-3, 1.0, 1e3]), shift=st.sampled_from([0.0, 50.0]), size=st.sampled_from([7, 40, 400])
    )
    def test_do_not_depend_on_unit_origin_and_batch_size(self, unit, shift, size):
        model = Sum({"a": 1.5, "b": 0.7})
        inputs, target = signals()
        expected = Calibration(model, model.encoders).evaluate([(inputs, target)])
        scaled = copy.deepcopy(model)
        with torch.no_grad():
            for encoder in scaled.encoders.values():
                encoder.weight.mul_(unit)
        found = Calibration(scaled, scaled.encoders).evaluate(batches_of((inputs, unit * (target + shift)), size))
        assert dict(found) == pytest.approx(dict(expected), rel=1e-3)

    def test_do_not_depend_on_the_order_of_modalities(self):
        batch = signals(("a", "b", "c"))
        model = Sum({"a": 1.5, "b": 0.7, "c": 1.0})
        turned = {name: model.encoders[name] for name in ("c", "a", "b")}
        expected = Calibration(model, model.encoders).evaluate([batch])
        assert dict(Calibration(model, turned).evaluate([batch])) == pytest.approx(dict(expected))

    def test_of_parts_that_are_all_0_are_1(self):
        model = Sum({"a": 1.0, "b": 0.0})
        slopes = Calibration(model, model.encoders).evaluate([signals()])
        assert slopes["b"] * slopes.whole == pytest.approx(1.0)
        assert slopes.costs["b"].value == pytest.approx(0.0, abs=1e-6)

    def test_of_twins_are_finite(self):
        model = Sum({"a": 0.5, "b": 0.5})
        inputs, _ = signals()
        _, target = signals(("a",))
        inputs["b"] = inputs["a"]
        slopes = Calibration(model, model.encoders).evaluate([(inputs, target)])
        assert dict(slopes) == pytest.approx({"a": 1.0, "b": 1.0}, abs=0.02)
        assert slopes.costs["a"].value == pytest.approx(0.0, abs=1e-3)

    def test_of_one_modality_is_1_by_definition(self):
        model = Sum({"a": 3.0})
        assert Calibration(model, model.encoders).evaluate([signals(("a",))])["a"] == pytest.approx(1.0)

    def test_of_one_sample_has_no_interval(self):
        model = Sum({"a": 1.0, "b": 1.0})
        slopes = Calibration(model, model.encoders).evaluate([signals(samples=1)])
        assert slopes.intervals is None
        assert slopes.whole_interval is None
        assert "a: " in repr(slopes)

    def test_intervals_cover(self):
        model = Sum({"a": 1.0, "b": 1.25})
        found = [
            Calibration(model, model.encoders).evaluate([signals(noise=2.0, samples=200, seed=s)]) for s in range(60)
        ]
        truth = 0.8 / ((1 + 1.25) / (1 + 1.25**2))
        covered = sum(low <= truth <= high for low, high in (slopes.intervals["b"] for slopes in found))
        assert covered >= 52

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_dtypes(self, dtype):
        model = Sum({"a": 1.0, "b": 2.0}).to(dtype)
        inputs, target = signals()
        slopes = Calibration(model, model.encoders).evaluate(
            [({name: x.to(dtype) for name, x in inputs.items()}, target.to(dtype))]
        )
        assert slopes["b"] / slopes["a"] == pytest.approx(0.5, abs=0.03)


class TestExplained:
    def test_is_the_share_of_the_variance(self):
        parts, target = table()
        parts = Parts(parts.base[:1].expand(60, -1), parts.parts)  # from nothing the same is predicted
        error, varied = ((x - x.mean(0)).square().sum() for x in (parts.whole - target, target))
        slopes = slopes_of(fitted(parts, target), torch.eye(3, dtype=torch.float64), "abc")
        assert slopes.explained == pytest.approx((1 - error / varied).item())
        low, high = slopes.explained_interval
        assert low < slopes.explained < high

    @pytest.mark.parametrize("classes", [True, False])
    def test_is_the_share_of_the_entropy(self, classes):
        parts, _ = table()
        logits = parts.whole
        if classes:
            target = logits.softmax(1).multinomial(1).squeeze(1)
            loss, often = nn.functional.cross_entropy(logits, target), target.bincount(minlength=4) / 60
            entropy = torch.special.entr(often).sum()
        else:
            target = logits.sigmoid().bernoulli()
            loss, often = nn.functional.binary_cross_entropy_with_logits(logits, target), target.mean()
            entropy = torch.special.entr(often) + torch.special.entr(1 - often)
        fit = LogisticFit(classes=classes)
        fit.add(parts, target)
        explained = slopes_of(fit, torch.eye(3, dtype=torch.float64), "abc").explained
        assert explained == pytest.approx((1 - loss / entropy).item(), abs=1e-6)

    def test_of_targets_that_do_not_vary_nothing_is(self):
        parts, _ = table()
        logistic = lambda: LogisticFit(classes=True)  # noqa: E731
        for kind, target in ((SquaredFit, parts.whole * 0), (logistic, torch.zeros(60).long())):
            fit = fitted(Parts(parts.base * 0, parts.parts), target, kind)
            assert slopes_of(fit, torch.eye(3, dtype=torch.float64), "abc").explained == 0.0


class TestIgnoredTargets:
    def test_are_as_if_they_were_not_there(self):
        model = Sum({"a": 1.0, "b": 2.0})
        inputs, scores = signals(noise=1.0)
        target = scores.argmax(1)
        ignored = torch.arange(len(target)) % 3 == 0
        some = target.masked_fill(ignored, -100)
        calibration = Calibration(model, model.encoders)
        found = calibration.evaluate([(inputs, some)])
        wanted = calibration.evaluate([({name: x[~ignored] for name, x in inputs.items()}, target[~ignored])])
        assert dict(found) == pytest.approx(dict(wanted))
        assert found.intervals["a"] == pytest.approx(wanted.intervals["a"])
        assert found.costs["a"] == pytest.approx(wanted.costs["a"])
        whole_batch = calibration.evaluate([(inputs, target), (inputs, torch.full_like(target, -100))])
        assert dict(whole_batch) == pytest.approx(dict(calibration.evaluate([(inputs, target)])))


class TestBadInput:
    @pytest.mark.parametrize(
        ("loss", "target", "message"),
        [
            ("auto", torch.randn(400, 2), "same shape"),
            ("cross_entropy", torch.randn(400, 3), "class numbers"),
            ("cross_entropy", torch.full((400,), -100), "for every sample"),
            ("cross_entropy", torch.full((400,), 3), "Class numbers should be 0 to 2"),
            ("cross_entropy", torch.full((400,), -1), "Got -1"),
            ("auto", torch.full((400, 3), torch.nan), "finite"),
        ],
    )
    def test_targets(self, loss, target, message):
        model = Sum({"a": 1.0, "b": 1.0})
        with pytest.raises(ValueError, match=message):
            Calibration(model, model.encoders, loss).evaluate([(signals()[0], target)])

    def test_targets_that_are_no_tensor(self):
        model = Sum({"a": 1.0, "b": 1.0})
        with pytest.raises(TypeError, match="A target should be a tensor"):
            Calibration(model, model.encoders).evaluate([(signals()[0], None)])

    def test_losses(self):
        model = Sum({"a": 1.0})
        with pytest.raises(ValueError, match="`loss` should be one of"):
            Calibration(model, model.encoders, "hinge")

    def test_an_empty_loader(self):
        model = Sum({"a": 1.0})
        with pytest.raises(ValueError, match="at least one batch"):
            Calibration(model, model.encoders).evaluate([])

    @pytest.mark.parametrize("costs", [True, False])
    def test_features_that_are_nan_are_named_though_all_of_a_mixed_prediction_is(self, costs):
        model = Sum({"a": 1.0, "b": torch.nan, "c": 1.0})
        for measured in (model, Product({"a": 1.0, "b": torch.nan, "c": 1.0})):
            with pytest.raises(ValueError, match="In batch 0 one is nan or infinite: the features of b. Look"):
                Calibration(measured, measured.encoders).evaluate([signals("abc")], costs=costs)

    def test_a_prediction_or_target_that_is_nan_is_named(self):
        model = Sum({"a": 1.0})
        inputs, target = signals("a")
        with pytest.raises(ValueError, match="infinite: the target"):
            Calibration(model, model.encoders).evaluate([(inputs, target * torch.inf)])
        with pytest.raises(ValueError, match="infinite: the prediction"):
            Calibration(model, model.encoders, head=lambda features: features["a"] * torch.nan).evaluate(
                [(inputs, target)]
            )


def slopes_in_processes(rank):
    model = build(Concat, modalities=3)
    loader = loader_of(model, batches=6)
    alone = Calibration(model, model.encoders, process_group=None).evaluate(loader)
    together = Calibration(model, model.encoders).evaluate(loader[:3] if rank == 0 else loader[3:])
    assert dict(together) == pytest.approx(dict(alone), rel=1e-5)


def test_two_processes_equal_one(tmp_path):
    in_two_processes(slopes_in_processes, tmp_path)
