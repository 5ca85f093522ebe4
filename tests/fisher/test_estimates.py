import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awc_balance.fisher.estimates import CorrectedBatches, MeanSquare

KEY = ("m", "w")


def corrected(gradients, sizes):
    estimate = CorrectedBatches()
    for gradient, size in zip(gradients, sizes, strict=True):
        estimate.add({KEY: gradient.clone()}, size)
    return estimate.result()[KEY]


@given(st.integers(0, 10**6), st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_running_form_equals_the_formula(seed, sizes):
    g = torch.randn(len(sizes), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    b = torch.tensor(sizes, dtype=torch.float64).unsqueeze(1)
    mean = (b * g).sum(0) / b.sum()
    variance = (b * (g - mean) ** 2).sum(0) / (len(sizes) - 1)
    expected = (mean**2 - variance / b.sum()).clamp(min=0) + variance
    torch.testing.assert_close(corrected(g, sizes), expected)


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 50))
def test_equal_batches_give_the_form_with_two_moments(seed, count, size):
    g = torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    m1, m2 = g.mean(0), (g**2).mean(0)
    s2 = count / (count - 1) * (m2 - m1**2)
    torch.testing.assert_close(corrected(g, [size] * count), (m1**2 - s2 / count).clamp(min=0) + size * s2)


def test_is_unbiased_where_nothing_is_clamped():
    torch.manual_seed(0)
    mean, deviation = torch.tensor([2.0, 1.0]), torch.tensor([0.5, 3.0])
    sizes = [16, 16, 8]
    found = torch.stack(
        [corrected([mean + deviation * torch.randn(n, 2).mean(0) for n in sizes], sizes) for _ in range(4000)]
    ).mean(0)
    torch.testing.assert_close(found, mean**2 + deviation**2, rtol=0.1, atol=0)


def test_single_samples_give_the_mean_square():
    g = 1 + torch.randn(200, 3, dtype=torch.float64)
    torch.testing.assert_close(corrected(g, [1] * 200), (g**2).mean(0))


def test_small_noise_on_a_large_mean_does_not_cancel():
    g = 1e4 + torch.randn(50, 3)
    torch.testing.assert_close(corrected(g, [8] * 50), (g**2).mean(0), rtol=1e-5, atol=0)


def test_too_little_is_refused():
    with pytest.raises(RuntimeError, match="at least two batches. Got 0"):
        CorrectedBatches().result()
    with pytest.raises(RuntimeError, match="at least two batches. Got 1"):
        corrected([torch.ones(2)], [4])
    with pytest.raises(RuntimeError, match="at least one batch"):
        MeanSquare().result()


def test_mean_square():
    estimate = MeanSquare()
    estimate.add({KEY: torch.tensor([3.0])}, 2)
    estimate.add({KEY: torch.tensor([5.0])}, 2)
    assert estimate.result()[KEY].item() == 2
