import numpy as np
import pytest
import torch
from scipy.special import stdtrit

from awc_balance import AWCRegularizer, ShapleyContribution
from awc_balance.contributions import intervals
from awc_balance.contributions.intervals import bootstrap, jackknife, jackknife_margin, widened
from awc_balance.contributions.profits import MeanProfit, Pearson, Profit, negative_mse
from tests.models import Concat, build, loader_of

INTERVALS = {"jackknife": jackknife, "bootstrap": bootstrap}


def mean_of(samples):
    return lambda weights: (weights @ samples) / weights.sum()


@pytest.mark.parametrize("kind", INTERVALS)
def test_of_a_mean_is_students(kind):
    samples = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = INTERVALS[kind](mean_of(samples), 20)
    half = 2.0930 * samples.std(0) / 20**0.5  # t of 19 degrees of freedom
    rtol = 1e-4 if kind == "jackknife" else 0.15
    torch.testing.assert_close(low, samples.mean(0) - half, rtol=rtol, atol=0.01)
    torch.testing.assert_close(high, samples.mean(0) + half, rtol=rtol, atol=0.01)


@pytest.mark.parametrize("kind", INTERVALS)
def test_covers_the_truth_about_as_often_as_it_says(kind, monkeypatch):
    monkeypatch.setattr(intervals, "REPLICATES", 300)
    generator = torch.Generator().manual_seed(2)
    inside = 0
    for _ in range(60):
        pairs = torch.randn(20, 25, 2, generator=generator, dtype=torch.float64)
        pairs[..., 1] += pairs[..., 0]
        centred = pairs - pairs.mean((0, 1))
        sums = torch.einsum("fbi,fbj->fij", centred, centred)

        def correlation(weights, sums=sums):
            c = torch.tensordot(weights, sums, 1)
            return (c[0, 1] / (c[0, 0] * c[1, 1]).sqrt()).unsqueeze(0)

        low, high = INTERVALS[kind](correlation, 20)
        inside += bool(low <= 0.5**0.5 <= high)
    assert 52 <= inside <= 60


def test_the_bootstrap_follows_its_seed_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, again, other = (bootstrap(mean_of(torch.arange(9.0).double().unsqueeze(1)), 9, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(state, torch.get_rng_state())


def test_an_independent_error_widens_both_sides():
    value, error = torch.tensor(1.0), torch.tensor(1.0)
    assert widened(value, torch.tensor(0.0), error).item() == pytest.approx(1 - np.hypot(1, 1.96), abs=1e-3)
    assert widened(value, torch.tensor(3.0), 0 * error).item() == 3


class Slow(Profit):
    """Another profit by its three own methods alone, so that folds are merged one after the other."""

    def __init__(self, inner):
        self.inner = inner

    def measure(self, prediction, target):
        return self.inner.measure(prediction, target)

    def merge(self, first, second):
        return self.inner.merge(first, second)

    def value(self, statistics):
        return self.inner.value(statistics)


@pytest.mark.parametrize("inner", [Pearson(), MeanProfit(lambda p, t: -(p - t).abs().mean(0))])
def test_pooling_by_weights_equals_merging_one_by_one(inner):
    parts = [inner.measure(torch.randn(n, 3), torch.randn(n, 3)) for n in (4, 1, 7, 3)]
    folds = tuple(map(torch.stack, zip(*parts, strict=True)))
    weights = torch.tensor([1.0, 0.0, 3.0, 2.0], dtype=torch.float64)
    for a, b in zip(inner.pool(folds, weights), Slow(inner).pool(folds, weights), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("interval", [*INTERVALS, None])
@pytest.mark.parametrize("profit", ["pearson", "negative_mse"])
def test_of_contributions(interval, profit, monkeypatch):
    monkeypatch.setattr(intervals, "REPLICATES", 50)
    model = build(Concat)
    loader = loader_of(model, 9)
    result = ShapleyContribution(model, model.encoders, profit, interval=interval).evaluate(loader)
    slow = Slow(Pearson() if profit == "pearson" else MeanProfit(negative_mse))
    expected = ShapleyContribution(model, model.encoders, slow, interval=interval).evaluate(loader)
    assert dict(result) == pytest.approx(dict(expected))
    if interval is None:
        assert result.intervals is None
    else:
        for modality, (low, high) in result.intervals.items():
            assert (low, high) == pytest.approx(expected.intervals[modality])
            assert low < result[modality] < high


def test_an_unknown_interval_is_refused():
    model = build(Concat)
    with pytest.raises(ValueError, match="'jackknife', 'bootstrap'. Got 'normal'"):
        ShapleyContribution(model, model.encoders, interval="normal")


class TestBudget:
    def test_equals_all_coalitions_within_its_errors(self):
        model = build(Concat, modalities=8)
        loader = loader_of(model, 4, 16)
        exact = ShapleyContribution(model, model.encoders).evaluate(loader)
        drawn = ShapleyContribution(model, model.encoders, budget=120, seed=3).evaluate(loader)
        assert exact.errors == dict.fromkeys(model.encoders, 0.0)
        assert len(drawn.profits) <= 120
        assert all(drawn.profits[c] == pytest.approx(exact.profits[c], abs=1e-6) for c in drawn.profits)
        assert sum(drawn.values()) == pytest.approx(sum(exact.values()), abs=1e-9)
        for modality, error in drawn.errors.items():
            assert 0 < error < 0.05
            assert abs(drawn[modality] - exact[modality]) < 5 * error
            (low, high), (fewer, more) = drawn.intervals[modality], exact.intervals[modality]
            assert high - low > 0.8 * (more - fewer)

    def test_that_covers_all_is_exact(self):
        model = build(Concat, modalities=3)
        loader = loader_of(model)
        all_of_them = ShapleyContribution(model, model.encoders, budget=8).evaluate(loader)
        assert dict(all_of_them) == dict(ShapleyContribution(model, model.encoders).evaluate(loader))

    def test_more_than_sixteen_modalities(self):
        model = build(Concat, modalities=20)
        result = ShapleyContribution(model, model.encoders, budget=120).evaluate(loader_of(model, 2, 6))
        profits = result.profits
        assert sum(result.values()) == pytest.approx(profits[frozenset(model.encoders)] - profits[frozenset()])
        assert result.route == "together"
        assert len(list(profits)) == len(profits) <= 120
        with pytest.raises(KeyError):
            profits[frozenset({"unknown"})]

    def test_an_additive_head_with_many_modalities(self):
        model = build(Concat, modalities=24)
        model.head = torch.nn.Sequential(torch.nn.Linear(4 * 24, 3))
        fast, slow = (
            ShapleyContribution(model, model.encoders, budget=300, fast=fast).evaluate(loader_of(model, 3, 40))
            for fast in (True, False)
        )
        assert fast.additive
        assert dict(fast) == pytest.approx(dict(slow), abs=1e-6)
        assert fast.errors == pytest.approx(slow.errors, abs=1e-6)

    def test_drives_the_regularizer(self):
        model = build(Concat, modalities=18)
        contributions = ShapleyContribution(model, model.encoders, budget=100)
        mse = torch.nn.functional.mse_loss
        awc = AWCRegularizer(model, model.encoders, mse, contributions=contributions)
        state = torch.get_rng_state()
        awc.start_epoch(loader_of(model, 2))
        assert torch.equal(state, torch.get_rng_state())
        assert awc.contributions == dict(contributions.evaluate(loader_of(model, 2)))
        assert set(awc.groups.values()) == {"superior", "inferior"}
        with pytest.raises(ValueError, match="Got 18.*budget=2000.*contributions="):
            AWCRegularizer(model, model.encoders, mse)

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"budget": 20}, "at least 34. Got 20"), ({"budget": "all"}, "Got 'all'"), ({"seed": -1}, "`seed`.*Got -1")],
    )
    def test_bad_budgets_are_refused(self, options, words):
        model = build(Concat, modalities=8)
        with pytest.raises(ValueError, match=words):
            ShapleyContribution(model, model.encoders, **options)


class TestNeighbours:
    """Folds that follow one another, of which those of one recording are alike."""

    @staticmethod
    def margins(draw, folds=24, worlds=400):
        """Of the mean of fold values, as it is and as if folds were independent; and the error, each `[worlds]`."""
        generator = torch.Generator().manual_seed(0)
        values = draw(folds, worlds, generator)
        without = (values.sum(0) - values) / (folds - 1)
        classic = stdtrit(folds - 1, 0.975) * ((folds - 1) * without.var(0, correction=0)).sqrt()
        return jackknife_margin(without), classic, values.mean(0).abs()

    @staticmethod
    def independent(folds, worlds, generator):
        return torch.randn(folds, worlds, generator=generator, dtype=torch.float64)

    @staticmethod
    def recordings(folds, worlds, generator):
        of_each = torch.randn(folds // 4, worlds, generator=generator, dtype=torch.float64)
        return of_each.repeat_interleave(4, 0) + 0.3 * torch.randn(folds, worlds, generator=generator).double()

    def test_that_are_independent_change_little(self):
        margin, classic, error = self.margins(self.independent)
        assert (margin > 0.999999 * classic).all()
        assert (margin < 1.000001 * classic).double().mean() > 0.9
        assert (error <= margin).double().mean() == pytest.approx(0.95, abs=0.03)

    def test_that_are_alike_count_as_one(self):
        margin, classic, error = self.margins(self.recordings)
        assert (error <= classic).double().mean() < 0.75
        assert (error <= margin).double().mean() > 0.88

    def test_too_few_to_put_together_stay_as_they_are(self):
        margin, classic, _ = self.margins(self.independent, folds=9)
        torch.testing.assert_close(margin, classic)
