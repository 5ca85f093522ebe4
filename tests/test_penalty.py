import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from awc_balance import penalty as module
from awc_balance.penalty import Pulled, add_penalty_gradient_, add_pull_gradient_, bundles, penalty
from tests.reference import penalty_by_loop

SHAPES = [(3, 2), (4,), (), (2, 1, 2), (0, 3)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]


def pulled(seed, scale=1.0, dtype=torch.float64):
    """Parameters with anchors of their dtype and Fisher diagonals in float32 or better."""
    generator = torch.Generator().manual_seed(seed)

    def values(shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64)

    fine = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
    return [
        Pulled(
            nn.Parameter(values(shape, dtype).to(dtype)),
            values(shape, dtype).to(dtype),
            (values(shape) ** 2 * scale).to(fine),
        )
        for shape in SHAPES
    ]


def with_alpha(terms, alpha=1.0):
    return [(alpha, term) for term in terms]


def gradients(terms):
    return [parameter.grad for _, (parameter, *_) in terms]


seeds = st.integers(0, 10**6)
dtypes = st.sampled_from(DTYPES)


def close(found, expected, dtype=torch.float64):
    tolerance = 0.02 if dtype in (torch.bfloat16, torch.float16) else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-5)


@given(seeds, st.floats(1e-3, 1e3), dtypes)
def test_value_and_both_gradients_equal_the_loop(seed, alpha, dtype):
    slow, fast, closed = (with_alpha(pulled(seed, 1e-3, dtype), alpha) for _ in range(3))
    expected, value = penalty_by_loop(slow), penalty(bundles(fast))
    expected.backward()
    value.backward()
    add_penalty_gradient_(bundles(closed))
    close(value, expected.detach())
    for wanted, by_autograd, in_closed_form in zip(*map(gradients, (slow, fast, closed)), strict=True):
        close(by_autograd, wanted, dtype)
        close(in_closed_form, wanted, dtype)


@given(seeds, dtypes, st.sampled_from([None, torch.bfloat16]))
def test_is_0_with_gradient_0_at_the_anchor(seed, dtype, fisher_dtype):
    at_anchor = [
        (3.0, Pulled(p, p.detach().clone(), f.to(fisher_dtype or f.dtype))) for p, _, f in pulled(seed, dtype=dtype)
    ]
    value = penalty(bundles(at_anchor))
    value.backward()
    assert value.item() == 0
    add_penalty_gradient_(bundles(at_anchor))
    assert all(gradient.count_nonzero() == 0 for gradient in gradients(at_anchor))


@given(seeds, dtypes, st.integers(0, 8))
def test_does_not_depend_on_how_much_is_worked_on_at_once(seed, dtype, chunk):
    together, apart = with_alpha(pulled(seed, dtype=dtype)), with_alpha(pulled(seed, dtype=dtype))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        parts = bundles(apart)
    assert len(parts) > len(bundles(together))
    close(penalty(parts), penalty(bundles(together)))
    for each in (together, parts):
        add_penalty_gradient_(each if each is parts else bundles(each))
    for found, wanted in zip(gradients(apart), gradients(together), strict=True):
        assert torch.equal(found, wanted)


def test_mixed_alphas_dtypes_and_devices_go_apart():
    terms = [
        *with_alpha(pulled(0), 2.0),
        *with_alpha(pulled(1), 3.0),
        *with_alpha(pulled(2, dtype=torch.bfloat16), 2.0),
        *with_alpha([Pulled(p, a, f.bfloat16()) for p, a, f in pulled(3, dtype=torch.float32)], 2.0),
    ]
    assert [len(part.parameters) for part in bundles(terms)] == [len(SHAPES)] * 4
    assert [part.alpha for part in bundles(terms)] == [2, 3, 2, 2]
    close(penalty(bundles(terms)), penalty_by_loop(terms).detach())


def test_what_is_kept_in_bfloat16_pulls_in_float32():
    (term,) = pulled(0, dtype=torch.float32)[:1]
    coarse = Pulled(term.parameter, term.anchor, term.fisher.bfloat16())
    add_pull_gradient_([coarse], 1.0)
    exact = 2 * coarse.fisher.float() * (term.parameter - term.anchor).detach()
    torch.testing.assert_close(term.parameter.grad, exact)


class TestAsALoss:
    def test_a_scaled_loss_scales_its_gradient(self):
        once, scaled = with_alpha(pulled(0)), with_alpha(pulled(0))
        penalty(bundles(once)).backward()
        (penalty(bundles(scaled)) * 2.0**16).backward()
        assert all(torch.equal(2.0**16 * a, b) for a, b in zip(gradients(once), gradients(scaled), strict=True))

    def test_may_be_used_twice(self):
        once, twice = with_alpha(pulled(0)), with_alpha(pulled(0))
        penalty(bundles(once)).backward()
        value = penalty(bundles(twice))
        value.backward(retain_graph=True)
        value.backward()
        (penalty(bundles(twice)) - penalty(bundles(twice))).backward()
        assert all(torch.equal(2 * a, b) for a, b in zip(gradients(once), gradients(twice), strict=True))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_derivatives_of_first_and_second_order(self, dtype):
        terms = pulled(0, dtype=dtype)[:2]

        def value(*parameters):
            return penalty(bundles((1.5, Pulled(p, a, f)) for p, (_, a, f) in zip(parameters, terms, strict=True)))

        parameters = [parameter for parameter, *_ in terms]
        assert gradcheck(value, parameters)
        assert gradgradcheck(value, parameters)

    def test_a_parameter_changed_before_the_backward_pass_is_noticed(self):
        terms = with_alpha(pulled(0))
        value = penalty(bundles(terms))
        with torch.no_grad():
            terms[0][1].parameter.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


def test_closed_form_adds_to_what_is_there():
    (term,) = pulled(0)[:1]
    term.parameter.grad = torch.ones_like(term.parameter)
    add_pull_gradient_([term], 2.0)
    torch.testing.assert_close(term.parameter.grad, 1 + 4 * term.fisher * (term.parameter - term.anchor).detach())


def test_one_weight_for_all_of_a_parameter():
    term, other = pulled(0)[:1] * 2
    add_pull_gradient_([Pulled(term.parameter, term.anchor, torch.full((), 2.0))], 0.5)
    torch.testing.assert_close(term.parameter.grad, 2 * (other.parameter - other.anchor).detach())


def test_is_in_float32_for_half_precision_parameters():
    assert penalty(bundles(with_alpha(pulled(0, dtype=torch.float16)))).dtype == torch.float32


def test_without_parameters_it_is_0():
    assert penalty([]).item() == 0


def test_sparse_gradients_are_refused_before_anything_is_added():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    (good,) = pulled(0)[:1]
    with pytest.raises(ValueError, match="dense"):
        add_pull_gradient_([good, Pulled(embedding.weight, torch.zeros(4, 2), torch.ones(4, 2))], 1.0)
    assert good.parameter.grad is None


def test_an_empty_parameter_alone():
    empty = with_alpha(pulled(0)[-1:])
    assert penalty(bundles(empty)).item() == 0
