import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from awc_balance import shapley_values
from awc_balance.contributions import coalitions
from tests.reference import shapley_by_permutations

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=64)


@st.composite
def games(draw, largest=5):
    players = draw(st.integers(1, largest))
    return players, draw(arrays(float, 2**players, elements=numbers))


def close(actual, expected, scale):
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-12 * (1 + np.abs(scale).max()), rtol=0)


@given(games())
def test_equals_brute_force_over_permutations(game):
    players, profits = game
    close(shapley_values(profits), shapley_by_permutations(profits, players), profits)


@given(games())
def test_efficiency(game):
    _, profits = game
    close(shapley_values(profits).sum(), profits[-1] - profits[0], profits)


@given(games(), st.data())
def test_symmetry(game, data):
    players, profits = game
    i, j = (data.draw(st.integers(0, players - 1)) for _ in range(2))

    def swapped(k):
        rest = k & ~(1 << i) & ~(1 << j)
        return rest | (k >> i & 1) << j | (k >> j & 1) << i

    profits = np.array([(profits[k] + profits[swapped(k)]) / 2 for k in range(len(profits))])
    values = shapley_values(profits)
    close(values[i], float(values[j]), profits)


@given(games(), st.data())
def test_null_player(game, data):
    players, profits = game
    null = data.draw(st.integers(0, players - 1))
    profits = np.array([profits[k & ~(1 << null)] for k in range(len(profits))])
    close(shapley_values(profits)[null], 0.0, profits)


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(*(arrays(float, 2**n, elements=numbers) for _ in range(2)))), numbers
)
def test_linearity(pair, factor):
    v, w = pair
    combined = shapley_values(v + factor * w)
    close(combined, shapley_values(v) + factor * shapley_values(w), np.abs(v) + np.abs(factor * w))


@pytest.mark.parametrize("players", range(1, 9))
def test_further_axes_pass_through(players):
    profits = torch.randn(2**players, 3, 2, dtype=torch.float64)
    values = shapley_values(profits)
    assert values.shape == (players, 3, 2)
    torch.testing.assert_close(values[:, 2, 1], shapley_values(profits[:, 2, 1]))


def test_sixteen_players_stay_exact():
    members = torch.arange(2**16).unsqueeze(1) >> torch.arange(16) & 1
    worth = torch.linspace(-1, 2, 16, dtype=torch.float64)
    torch.testing.assert_close(shapley_values(members.double() @ worth), worth)


def test_is_differentiable():
    profits = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shapley_values, profits)


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.int64, torch.float64),
    ],
)
def test_dtypes(given_dtype, dtype):
    values = shapley_values(torch.tensor([0, 1, 2, 4]).to(given_dtype))
    assert values.dtype == dtype
    assert values.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("profits", [[], [1.0], [0.0, 1.0, 2.0], 3.0, torch.zeros(2**17)])
def test_a_table_of_another_length_is_refused(profits):
    with pytest.raises(ValueError, match=r"2\^"):
        shapley_values(profits)


def test_coalitions_follow_the_bits():
    assert coalitions(["a", "b"]) == [set(), {"a"}, {"b"}, {"a", "b"}]
