"""The axioms of the Shapley value, for all coalitions and for a sample of them."""

import itertools
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awc_balance.contributions.designs import AllCoalitions
from awc_balance.contributions.sampling import SampledCoalitions, least_budget

EXACT = {n: AllCoalitions(n) for n in range(2, 11)}


@st.composite
def designs(draw):
    """All coalitions, or a sample of them by a random budget."""
    modalities = draw(st.integers(2, 9))
    if draw(st.booleans()):
        return EXACT[modalities]
    least = least_budget(modalities)
    return SampledCoalitions(modalities, draw(st.integers(least, 3 * least)), draw(st.integers(0, 10**6)))


def game(modalities, seed):
    """Profits of every coalition of a random game: parts, pairs, saturation and a threshold."""
    generator = torch.Generator().manual_seed(seed)
    members = EXACT[modalities].members.double()
    parts, scale = (torch.randn(modalities, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = torch.randn(modalities, modalities, generator=generator, dtype=torch.float64)
    joint = ((members @ pairs) * members).sum(1) / modalities
    return 10 ** scale[0] * (members @ parts + joint + (members @ scale).tanh() + (members.sum(1) > 2) + scale[1])


def measured(design, profits):
    return profits[torch.tensor(list(design.codes))]


def close(actual, expected, profits, **options):
    torch.testing.assert_close(actual, expected, atol=1e-9 * float(profits.abs().max()), rtol=0, **options)


@given(designs(), st.integers(0, 10**6))
def test_efficiency(design, seed):
    profits = game(design.members.shape[1], seed)
    close(design.values(measured(design, profits)).sum(), profits[-1] - profits[0], profits)


@given(designs(), st.integers(0, 10**6), st.floats(-3, 3))
def test_linearity(design, seed, factor):
    first, second = (measured(design, game(design.members.shape[1], s)) for s in (seed, seed + 1))
    combined = design.values(first + factor * second)
    close(combined, design.values(first) + factor * design.values(second), first.abs() + 3 * second.abs())


@given(designs(), st.integers(0, 10**6))
def test_an_additive_game_is_met_exactly(design, seed):
    modalities = design.members.shape[1]
    parts = torch.randn(modalities, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    profits = design.members.double() @ parts + 5
    close(design.values(profits), parts, profits)
    close(design.errors(profits), torch.zeros(modalities, dtype=torch.float64), profits)


@settings(derandomize=True)  # an error estimate holds nearly always, not always
@given(st.integers(6, 9), st.integers(0, 10**6), st.data())
def test_null_player_within_the_error(modalities, seed, data):
    null = data.draw(st.integers(0, modalities - 1))
    codes = torch.arange(2**modalities)
    profits = game(modalities, seed)[codes & ~(1 << null)]
    close(EXACT[modalities].values(profits)[null], torch.tensor(0.0, dtype=torch.float64), profits)
    design = SampledCoalitions(modalities, 6 * modalities, seed)
    value, error = (f(measured(design, profits))[null] for f in (design.values, design.errors))
    assert abs(value) <= 8 * error + 1e-9 * profits.abs().max()


@settings(derandomize=True)  # an error estimate holds nearly always, not always
@given(st.integers(6, 9), st.integers(0, 10**6))
def test_symmetry_within_the_error(modalities, seed):
    codes = torch.arange(2**modalities)
    swapped = codes & ~3 | (codes & 1) << 1 | (codes >> 1) & 1
    profits = game(modalities, seed)
    profits = (profits + profits[swapped]) / 2
    exact = EXACT[modalities].values(profits)
    close(exact[0], exact[1], profits)
    design = SampledCoalitions(modalities, 6 * modalities, seed)
    values, errors = (f(measured(design, profits)) for f in (design.values, design.errors))
    assert abs(values[0] - values[1]) <= 8 * errors[:2].norm() + 1e-9 * profits.abs().max()


@pytest.mark.parametrize("modalities", [6, 9])
def test_samples_are_unbiased_and_as_far_off_as_they_say(modalities):
    profits, misses, errors = game(modalities, 3), [], []
    exact = EXACT[modalities].values(profits)
    for seed in range(150):
        design = SampledCoalitions(modalities, 7 * modalities, seed)
        misses.append(design.values(measured(design, profits)) - exact)
        errors.append(design.errors(measured(design, profits)))
    misses, errors = torch.stack(misses), torch.stack(errors)
    assert 0.85 < errors.square().mean().sqrt() / misses.square().mean().sqrt() < 1.25
    assert (misses.mean(0).abs() < 0.35 * misses.std(0)).all()
    assert 0.9 < (misses.abs() < 1.96 * errors).double().mean() <= 1


def test_errors_fall_with_the_budget():
    profits = game(10, 0)
    exact = EXACT[10].values(profits)

    def miss(budget):
        sampled = [SampledCoalitions(10, budget, seed) for seed in range(20)]
        return torch.stack([d.values(measured(d, profits)) - exact for d in sampled]).square().mean().sqrt()

    assert miss(42) > 1.5 * miss(120) > 2 * miss(480)


def test_a_sample_equals_weighted_least_squares_under_the_constraint():
    modalities, budget = 7, 60
    design, profits = SampledCoalitions(modalities, budget), game(7, 1)
    v = measured(design, profits).numpy()
    members = design.members.numpy().astype(float)
    sizes = members.sum(1)[1:-1].astype(int)
    share = np.array([1 / (s * (modalities - s)) for s in range(1, modalities)])
    share /= share.sum()
    taken = {s: np.sum(sizes == s) == comb(modalities, s) for s in range(1, modalities)}
    rest = sum(share[s - 1] for s in taken if not taken[s])
    drawn = sum(not taken[s] for s in sizes)
    times = dict(zip(map(tuple, design.members[1:-1].tolist()), weights_by_hand(design), strict=True))
    w = np.array([share[s - 1] / comb(modalities, s) if taken[s] else 0.0 for s in sizes])
    w[w == 0] = rest * np.array(
        [times[tuple(m)] for m, s in zip(members[1:-1] > 0, sizes, strict=True) if not taken[s]]
    )
    assert drawn > 0
    z, y = members[1:-1], v[1:-1] - v[0]
    system = np.block(
        [[z.T @ (w[:, None] * z), np.ones((modalities, 1))], [np.ones((1, modalities)), np.zeros((1, 1))]]
    )
    expected = np.linalg.solve(system, np.append(z.T @ (w * y), v[-1] - v[0]))[:-1]
    np.testing.assert_allclose(design.values(measured(design, profits)), expected, atol=1e-9)


def weights_by_hand(design):
    """The share of the draws of every coalition, 0 for those of sizes that were taken whole."""
    times = design._times / design._times.sum() / 2
    half = torch.cat([torch.zeros((len(design.members) - 2) // 2 - len(times), dtype=torch.float64), times])
    return torch.cat([half, half.flip(0)]).tolist()


@pytest.mark.parametrize(("modalities", "budget"), [(5, 22), (6, 40), (17, 70), (18, 900), (40, 500), (200, 1500)])
def test_coalitions_are_pairs_without_repetition_within_the_budget(modalities, budget):
    design = SampledCoalitions(modalities, budget)
    assert len(set(design.codes)) == len(design.codes) <= budget
    assert design.codes[0] == 0
    assert design.codes[-1] == 2**modalities - 1
    assert {2**modalities - 1 - code for code in design.codes} == set(design.codes)
    assert all(1 << m in set(design.codes) for m in range(modalities))
    assert (design.members[5].nonzero().flatten().tolist()) == [
        i for i in range(modalities) if design.codes[5] >> i & 1
    ]


@pytest.mark.parametrize("modalities", [5, 6, 7])
def test_a_budget_for_all_is_exact(modalities):
    design = SampledCoalitions(modalities, 2**modalities)
    profits = measured(design, game(modalities, 0))
    close(design.values(profits), EXACT[modalities].values(game(modalities, 0)), profits)
    assert design.errors(profits).tolist() == [0] * modalities


def test_samples_follow_the_seed_and_leave_the_global_random_state_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (SampledCoalitions(20, 300, seed) for seed in (1, 1, 2))
    assert first.codes == again.codes != other.codes
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_output_coordinates_pass_through():
    design = SampledCoalitions(6, 30)
    profits = torch.randn(len(design.codes), 3, 2, dtype=torch.float64)
    values = design.values(profits)
    assert values.shape == (6, 3, 2)
    for i, j in itertools.product(range(3), range(2)):
        torch.testing.assert_close(values[:, i, j], design.values(profits[:, i, j]))


@pytest.mark.parametrize(
    ("modalities", "budget", "words"),
    [(17, 69, "at least 70. Got 69"), (6, 2.5, "Got 2.5"), (6, True, "Got True"), (1, 100, "at least 2. Got 1")],
)
def test_budgets_that_are_too_small_are_refused(modalities, budget, words):
    with pytest.raises(ValueError, match=words):
        SampledCoalitions(modalities, budget)
