import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from awc_balance.contributions.moments import correlation, merge_moments, moments
from awc_balance.contributions.profits import (
    PROFITS,
    MeanProfit,
    accuracy,
    as_profit,
    negative_binary_cross_entropy,
    negative_cross_entropy,
    negative_mse,
    pearson,
)
from tests.reference import correlations

numbers = st.floats(-1e3, 1e3, width=32)


@st.composite
def pairs(draw):
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    return tuple(torch.from_numpy(draw(arrays(np.float64, shape, elements=numbers))) for _ in range(2))


@given(st.integers(0, 10**6), st.integers(2, 40))
def test_pearson_equals_numpy(seed, samples):
    generator = torch.Generator().manual_seed(seed)
    p, t = (torch.randn(samples, 2, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    np.testing.assert_allclose(pearson(p, t), correlations(p, t), atol=1e-12)


@given(pairs())
def test_pearson_is_finite_and_within_one(pair):
    values = pearson(*pair)
    assert values.isfinite().all()
    assert (values.abs() <= 1).all()


@given(pairs(), st.floats(0.01, 100), st.floats(-10, 10))
def test_pearson_does_not_know_the_unit(pair, factor, offset):
    p, t = (x.sign() + torch.arange(len(x)).unsqueeze(1) for x in pair)
    torch.testing.assert_close(pearson(p, t), pearson(p * factor + offset, t), atol=1e-9, rtol=0)


@given(pairs(), st.data())
def test_pooling_batches_equals_all_samples_at_once(pair, data):
    p, t = pair
    cut = data.draw(st.integers(0, len(p)))
    if 0 < cut < len(p):
        pooled = merge_moments(moments(p[:cut], t[:cut]), moments(p[cut:], t[cut:]))
        for part, whole in zip(pooled, moments(p, t), strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
class TestDegenerate:
    def test_constant_prediction_has_correlation_0(self, dtype):
        assert pearson(torch.full((9, 2), 0.3, dtype=dtype), torch.randn(9, 2)).tolist() == [0, 0]

    def test_constant_target_has_correlation_0(self, dtype):
        assert pearson(torch.randn(9, 2).to(dtype), torch.full((9, 2), 1.7)).tolist() == [0, 0]

    def test_last_bits_of_a_constant_are_not_a_signal(self, dtype):
        target = torch.randn(9, 1)
        constant = torch.full((9, 1), 0.7, dtype=dtype)
        constant[4] += constant[4] * torch.finfo(dtype).eps
        assert pearson(constant, target).item() == 0

    def test_batch_of_one_has_correlation_0(self, dtype):
        assert pearson(torch.randn(1, 3).to(dtype), torch.randn(1, 3)).tolist() == [0, 0, 0]

    def test_low_precision_is_close_to_the_truth(self, dtype):
        target = torch.randn(200, 1, dtype=torch.float64)
        prediction = (target + torch.randn(200, 1)).to(dtype)
        exact = correlations(prediction, target)
        np.testing.assert_allclose(pearson(prediction, target), exact, atol=1e-12)

    def test_large_offsets_do_not_cancel(self, dtype):
        target = torch.arange(16.0).unsqueeze(1)
        assert pearson((100 + target).to(dtype), target).item() == pytest.approx(1, abs=0.01)


def test_nan_is_not_hidden():
    prediction = torch.randn(5, 2)
    prediction[2, 0] = float("nan")
    assert pearson(prediction, torch.randn(5, 2)).isnan().tolist() == [True, False]


def test_values_of_the_other_profits():
    logits, classes = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    assert accuracy(logits, classes).item() == pytest.approx(2 / 3)
    assert negative_cross_entropy(logits, classes).item() == pytest.approx(
        -torch.nn.functional.cross_entropy(logits, classes).item()
    )
    probabilities = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    assert negative_cross_entropy(logits, probabilities).item() == pytest.approx(
        -torch.nn.functional.cross_entropy(logits, probabilities).item()
    )
    yes = torch.tensor([[0.0, 1.0]])
    assert negative_binary_cross_entropy(torch.zeros(1, 2), yes).tolist() == pytest.approx([-math.log(2)] * 2)
    assert negative_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])).tolist() == [-4, 0]


def test_mean_profit_weights_batches_by_their_size():
    profit = MeanProfit(lambda prediction, _: prediction.mean())
    a, b = torch.ones(1, 1), torch.zeros(3, 1)
    assert profit.value(profit.merge(profit.measure(a, a), profit.measure(b, b))).item() == 0.25


@pytest.mark.parametrize("name", PROFITS)
def test_every_name_gives_a_profit(name):
    profit = as_profit(name)
    target = torch.tensor([0, 1, 1]) if name in ("accuracy", "negative_cross_entropy") else torch.randn(3, 2)
    assert profit.value(profit.measure(torch.randn(3, 2), target)).isfinite().all()


@pytest.mark.parametrize(
    ("profit", "error", "words"),
    [("r2", ValueError, "'pearson'.*Got 'r2'"), (3, TypeError, "name or a function.*Got int")],
)
def test_unknown_profits_are_refused(profit, error, words):
    with pytest.raises(error, match=words):
        as_profit(profit)


@pytest.mark.parametrize(
    ("function", "prediction", "target"),
    [
        (pearson, torch.randn(4, 2), torch.randn(4, 3)),
        (pearson, torch.randn(4, 2), torch.randn(4)),
        (pearson, torch.randn(4, 2), [1, 2, 3, 4]),
        (negative_mse, torch.randn(4, 1), torch.randn(4)),
        (accuracy, torch.randn(4), torch.tensor([0, 1, 0, 1])),
        (accuracy, torch.randn(4, 2), torch.randn(4, 2)),
        (accuracy, torch.randn(4, 1), torch.tensor([0, 1, 0, 1])),
        (negative_cross_entropy, torch.randn(4), torch.rand(4)),
        (negative_cross_entropy, torch.randn(4, 1), torch.rand(4, 1)),
        (negative_cross_entropy, torch.randn(4, 3), torch.ones(4, 3)),
        (negative_cross_entropy, torch.randn(4, 3), torch.tensor([0, 1])),
        (negative_cross_entropy, torch.randn(4, 3), [0, 1, 2, 0]),
        (negative_binary_cross_entropy, torch.randn(4, 1), torch.rand(4)),
    ],
)
def test_a_target_that_does_not_match_is_refused(function, prediction, target):
    with pytest.raises(ValueError, match="Got"):
        function(prediction, target)


def test_correlation_of_merged_constants_is_still_0():
    batch = moments(torch.full((4, 1), 0.1), torch.randn(4, 1))
    assert correlation(merge_moments(batch, batch)).item() == 0
