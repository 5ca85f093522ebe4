import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from awc_balance.penalty import Pulled, add_pull_gradient_, pull


def terms(seed, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def values(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shapes = [(3, 2), (4,), (), (2, 1, 2)]
    return [
        Pulled(
            nn.Parameter(values(*s).to(dtype)),
            values(*s).to(dtype),
            (values(*s) ** 2 * scale).to(torch.float64 if dtype == torch.float64 else torch.float32),
        )
        for s in shapes
    ]


seeds = st.integers(0, 10**6)


@given(seeds)
def test_is_the_weighted_squared_distance(seed):
    expected = sum((f * (p - a) ** 2).sum() for p, a, f in terms(seed))
    torch.testing.assert_close(pull(terms(seed)), expected)


@given(seeds)
def test_is_0_with_gradient_0_at_the_anchor(seed):
    at_anchor = [Pulled(p, p.detach().clone(), f) for p, _, f in terms(seed)]
    value = pull(at_anchor)
    value.backward()
    assert value.item() == 0
    assert all(p.grad.count_nonzero() == 0 for p, *_ in at_anchor)


@given(seeds, st.floats(1e-6, 1e6), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_closed_form_gradient_equals_autograd(seed, alpha, dtype):
    by_autograd, in_closed_form = terms(seed, 1e-3, dtype), terms(seed, 1e-3, dtype)
    (alpha * pull(by_autograd)).backward()
    add_pull_gradient_(in_closed_form, alpha)
    for a, b in zip(by_autograd, in_closed_form, strict=True):
        torch.testing.assert_close(
            a.parameter.grad,
            b.parameter.grad,
            rtol=0.02 if dtype in (torch.bfloat16, torch.float16) else 1e-5,
            atol=1e-5,
        )


def test_closed_form_adds_to_what_is_there():
    (term,) = terms(0)[:1]
    term.parameter.grad = torch.ones_like(term.parameter)
    add_pull_gradient_([term], 2.0)
    torch.testing.assert_close(term.parameter.grad, 1 + 4 * term.fisher * (term.parameter - term.anchor).detach())


def test_is_in_float32_for_half_precision_parameters():
    half = terms(0, dtype=torch.float16)
    assert pull(half).dtype == torch.float32


def test_without_parameters_it_is_0():
    assert pull([]).item() == 0


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="dense"):
        add_pull_gradient_([Pulled(embedding.weight, torch.zeros(4, 2), torch.ones(4, 2))], 1.0)
