import math

import pytest
import torch
from torch import nn

from awc_balance.calibration import Calibration
from awc_balance.calibration.parts import by_coalition, by_modality
from awc_balance.calibration.refit import MOST_SAMPLES
from tests.models import Concat, build, loader_of


class Formula(nn.Module):
    """A function of inputs that encoders pass on as they are."""

    def __init__(self, formula, names):
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Identity() for name in names})
        self.formula = formula

    def forward(self, inputs):
        return self.formula(*(self.encoders[name](x) for name, x in inputs.items()))


def evaluate(formula, inputs, target, loss="auto", size=50):
    """With one column by modality."""
    model = Formula(formula, list(inputs))
    starts = range(0, len(target), size)
    batches = [({m: x[i : i + size] for m, x in inputs.items()}, target[i : i + size]) for i in starts]
    return Calibration(model, model.encoders, loss).evaluate(batches)


def columns(names, samples=200):
    torch.manual_seed(0)
    return {name: torch.randn(samples, 1) for name in names}


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_the_parts_of_coalitions_sum_to_the_prediction_and_shared_alike_are_shapley_values(modalities):
    table = torch.randn(2**modalities, 7, dtype=torch.float64)
    together, each = by_coalition(modalities), by_modality(modalities)
    parts = together.weights @ table
    assert torch.allclose(table[0] + parts.sum(0), table[-1])
    assert torch.allclose(together.owners.T @ parts, each.weights @ table)
    assert torch.allclose(together.owners.sum(1), torch.ones(2**modalities - 1, dtype=torch.float64))


def test_what_is_told_only_together_is_lost_without_either():
    inputs = columns("ab")
    target = inputs["a"] * inputs["b"] + 0.5 * torch.randn(200, 1)
    found = evaluate(lambda a, b: a * b, inputs, target)
    lost = found.joint_costs[frozenset("ab")].value
    assert lost > 1.5
    for modality in "ab":
        assert found.costs[modality].value > 0.7 * lost


def test_of_two_copies_either_stands_in_for_the_other():
    inputs = columns("ac")
    inputs["b"] = inputs["a"].clone()
    target = inputs["a"] + inputs["c"] + 0.5 * torch.randn(200, 1)
    found = evaluate(lambda a, c, b: 0.9 * a + c + 0.1 * b, inputs, target)
    assert abs(found.costs["a"].value) < 0.05
    assert abs(found.costs["b"].value) < 0.05
    assert found.costs["c"].value > 2
    assert found.joint_costs[frozenset("ab")].value > 2


def test_what_two_idle_ones_cost_together_is_known():
    inputs = columns("abc")
    found = evaluate(lambda a, b, c: a + 0.01 * (b + c), inputs, inputs["a"] + 0.5 * torch.randn(200, 1))
    assert abs(found.joint_costs[frozenset("bc")].value) < 0.05


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "binary_cross_entropy"])
def test_what_a_modality_could_tell_beyond_the_prediction_is_found(loss):
    inputs = columns("ab")
    signal = 2 * inputs["a"] + 2 * (2 * inputs["b"]).sin()
    target = signal + 0.5 * torch.randn(200, 1)
    if loss != "squared":
        target = (signal + torch.randn(200, 1) > 0).float()
    formula = lambda a, b: 2 * a + 0.0 * b  # noqa: E731
    if loss == "cross_entropy":
        target = target.squeeze(1).long()
        formula = lambda a, b: torch.cat([0 * b, 2 * a], 1)  # noqa: E731
    found = evaluate(formula, inputs, target, loss)
    assert found.unused["b"].low > 0.1
    assert found.unused["a"].value < 0.05
    assert found.costs["b"].value > 0.1


def test_shares_and_slopes_do_not_depend_on_whether_costs_are_wanted():
    model = build(Concat, modalities=3)
    calibration = Calibration(model, model.encoders)
    with_costs, without = (calibration.evaluate(loader_of(model, 6), costs=costs) for costs in (True, False))
    assert dict(with_costs) == pytest.approx(dict(without))
    assert with_costs.shares == pytest.approx(without.shares)
    assert (without.costs, without.joint_costs, without.unused) == ({}, {}, {})


def test_of_few_samples_or_many_modalities_or_large_predictions_costs_are_not_told():
    inputs = columns("ab", 39)
    assert evaluate(lambda a, b: a + b, inputs, inputs["a"]).costs == {}
    inputs = columns("abcdefg", 60)
    assert evaluate(lambda *x: sum(x), inputs, inputs["a"]).costs == {}
    inputs = columns("ab", 60)
    assert evaluate(lambda a, b: (a + b).expand(-1, 1025), inputs, inputs["a"].expand(-1, 1025)).costs == {}


def test_of_many_samples_some_are_taken_from_all_over():
    inputs = columns("ab", 3 * MOST_SAMPLES)
    inputs["b"][MOST_SAMPLES:] = 0.0
    found = evaluate(lambda a, b: a, inputs, inputs["a"] + 0.1 * torch.randn_like(inputs["a"]), size=33)
    assert found.costs["a"].value > 50


def test_features_without_spread_and_targets_without_error_are_no_trouble():
    inputs = columns("ab")
    inputs["b"] = torch.ones(200, 1)
    found = evaluate(lambda a, b: a + b, inputs, inputs["a"])
    assert found.costs["a"].value > 1
    assert all(abs(one.value) < 1 for one in found.unused.values())


def test_a_model_that_predicts_the_same_whatever_it_is_given_has_finite_numbers():
    inputs = columns("ab", 60)
    found = evaluate(lambda a, b: 0 * a * b, inputs, inputs["a"])
    numbers = [*found.values(), found.whole, *found.shares.values()]
    numbers += [number for one in (*found.costs.values(), *found.unused.values()) for number in one]
    assert all(math.isfinite(number) for number in numbers)
