import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from awc_balance.contributions import CompetitionStrength, competition_strength
from tests.models import KINDS, Concat, Nested, build, loader_of
from tests.test_nothing_is_changed import picture, same


def reference(z, c, alpha, seed=0):
    """The normal equations, on standardised halves."""
    order = np.random.default_rng(seed).permutation(len(z))
    fit, test = order[: len(z) // 2], order[len(z) // 2 :]
    z, c = ((v - v[fit].mean(0)) / v[fit].std(0) for v in (z.double().numpy(), c.double().numpy()))
    weights = np.linalg.solve(z[fit].T @ z[fit] + alpha * np.eye(z.shape[1]), z[fit].T @ c[fit])
    missed = c[test] - z[test] @ weights
    return (missed**2).sum() / ((c[test] - c[test].mean(0)) ** 2).sum()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 120.0])
@pytest.mark.parametrize("outputs", [1, 3])
def test_equals_the_normal_equations(alpha, outputs):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 5, generator=generator)
    c = z[:, :outputs] + torch.randn(300, outputs, generator=generator)
    assert competition_strength(z, c, alpha=alpha) == pytest.approx(reference(z, c, alpha), rel=1e-6)


@given(st.integers(0, 100), st.sampled_from([1e-6, 1.0, 1e6]), st.sampled_from([1e-6, 1.0, 1e6]))
def test_no_competition_is_0_and_units_do_not_matter(seed, unit, other):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    c = z @ torch.randn(4, 2, generator=generator, dtype=torch.float64) + 3
    assert competition_strength(z * unit, c * other, alpha=0.0) == pytest.approx(0, abs=1e-9)


def test_features_that_know_nothing_have_1_and_less_knowledge_is_more_competition():
    generator = torch.Generator().manual_seed(0)
    concept = torch.randn(2000, 2, generator=generator)
    noise = torch.randn(2000, 2, generator=generator)
    found = [competition_strength(concept * (1 - lost) + noise * lost, concept) for lost in (0.0, 0.3, 0.6, 1.0)]
    assert found == sorted(found)
    assert found[0] < 0.02
    assert found[-1] == pytest.approx(1, abs=0.02)


def test_a_concept_that_is_constant_tells_nothing_to_lose():
    assert competition_strength(torch.randn(300, 3), torch.full((300, 2), 0.1)) == 0


def test_too_few_samples_for_the_penalty():
    with pytest.warns(UserWarning, match="outweighs the 50 samples"):
        competition_strength(torch.randn(100, 3), torch.randn(100, 1))


@pytest.mark.parametrize(
    ("z", "c", "match"),
    [
        (torch.randn(3, 2), torch.randn(3, 1), "4 samples"),
        (torch.randn(300, 2), torch.randn(200, 1), "as many"),
        (torch.randn(300, 2) * float("nan"), torch.randn(300, 1), "finite"),
        (torch.randn(300, 2), torch.randn(300, 1) / 0, "finite"),
    ],
)
def test_bad_numbers_are_refused(z, c, match):
    with pytest.raises(ValueError, match=match):
        competition_strength(z, c)


def test_evaluate_takes_pooled_features_and_the_concepts_predictions():
    model, concepts = build(Concat), {f"m{i}": build(Concat, i + 1) for i in range(2)}
    loader = loader_of(model, 40)
    found = CompetitionStrength(model, model.encoders, concepts, alpha=1.0).evaluate(loader)
    for m, concept in concepts.items():
        with torch.no_grad():
            z = torch.cat([model.encode(x)[m] for x, _ in loader])
            c = torch.cat([concept(x) for x, _ in loader])
        assert found[m] == pytest.approx(reference(z, c, 1.0), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_takes_every_kind_of_model_and_changes_nothing(kind):
    model = build(kind).train()
    concept = build(kind, 1).train()
    loader = loader_of(model, 4)
    before = picture(model), picture(concept)
    strength = CompetitionStrength(model, model.encoders, dict.fromkeys(model.encoders, concept), alpha=1.0)
    found = strength(loader)
    same(before[0], picture(model))
    same(before[1], picture(concept))
    assert list(found) == list(model.encoders)
    assert all(np.isfinite(value) for value in found.values())


def test_a_joint_model_with_the_encoder_of_the_concept_competes_less_than_one_without():
    model = build(Concat)
    concept = nn.Sequential(copy.deepcopy(model.encoders["m0"]), nn.Linear(4, 3))
    loader = loader_of(model, 60)
    other = build(Concat, 5)
    nn.init.zeros_(other.encoders["m0"][0].weight)

    def step(module, batch):
        return (module(batch[0]["m0"]) if module is concept else module(batch[0])), batch[1]

    found = [
        CompetitionStrength(m, {"m0": m.encoders["m0"]}, {"m0": concept}, step=step, alpha=0.1).evaluate(loader)["m0"]
        for m in (model, other)
    ]
    assert found[0] < 1e-3
    assert found[1] > 0.9


def test_a_missing_concept_is_refused():
    model = build(Nested)
    with pytest.raises(ValueError, match="concepts"):
        CompetitionStrength(model, model.encoders, {"points": model})
