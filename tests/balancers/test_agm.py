import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance.balancers import AGM
from awc_balance.balancers.agm import coefficients, decomposed
from tests.balancers.methods import late, optimizer_of, parameters, task_of, train
from tests.models import KINDS, Attention, Concat, Convolutional, build, loader_of
from tests.reference import coalition_predictions, zero


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_sum_to_the_full_prediction(kind):
    model = build(kind)
    predictions = coalition_predictions(model, loader_of(model))
    torch.testing.assert_close(decomposed(predictions[1:]).sum(0), predictions[-1], rtol=1e-4, atol=1e-5)


@given(st.integers(1, 5), st.sampled_from([1e-6, 1.0, 1e6]))
def test_any_table_of_predictions_is_decomposed_without_rest(modalities, size):
    table = list(torch.randn(2**modalities - 1, 3, 2, dtype=torch.float64) * size)
    torch.testing.assert_close(decomposed(table).sum(0), table[-1], rtol=1e-9, atol=1e-9 * size)


def test_two_modalities_have_the_papers_formula():
    a, v, full = torch.randn(3, 8, 4)
    torch.testing.assert_close(decomposed([a, v, full]), torch.stack([(full - v + a) / 2, (full - a + v) / 2]))


def test_late_linear_fusion_without_bias_is_split_into_its_slices():
    model, (inputs, _) = late(3, bias=False)
    predictions = coalition_predictions(model, [(inputs, None)])
    slices = [
        model.encoders[m](x) @ w.T for (m, x), w in zip(inputs.items(), model.head.weight.split(4, 1), strict=True)
    ]
    torch.testing.assert_close(decomposed(predictions[1:]), torch.stack(slices))


@pytest.mark.parametrize("modalities", [2, 3, 5])
@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
def test_late_linear_fusion_scales_each_encoder_and_its_slice_of_the_head(modalities, criterion):
    model, (inputs, target) = late(modalities)
    batch = (inputs, target if criterion is mse_loss else target.argmax(1))
    plain = criterion(model(batch[0]), batch[1])
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    balancer = AGM(model, model.encoders, criterion)
    balancer.start_epoch([batch])
    loss = balancer.loss(batch)
    loss.backward()
    balancer.adjust_gradients_()
    assert torch.equal(loss, plain)
    k = balancer.coefficients
    assert min(k.values()) < 1 < max(k.values())
    for name, parameter in model.encoders.named_parameters():
        wanted = expected[f"encoders.{name}"] * k[name.split(".")[0]]
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
    columns = torch.tensor([k[m] for m in model.encoders]).repeat_interleave(4)
    torch.testing.assert_close(model.head.weight.grad, expected["head.weight"] * columns, rtol=1e-4, atol=1e-6)


class Scaled(torch.autograd.Function):
    """The identity, with a scale on the way back."""

    @staticmethod
    def forward(ctx, x, k):
        ctx.k = k
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.k, None


def reference(model, loader, criterion, optimizer, alpha, cap, epochs):
    """AGM written out: parts by orders of joining, an identity that scales, running means over all steps."""
    modalities = list(model.encoders)
    count = len(modalities)
    means, steps = [0.0] * count, 0
    ratios = lambda s: [math.exp(count / (count - 1) * (sum(s) / count - x)) for x in s]  # noqa: E731
    for _ in range(epochs):
        for inputs, target in loader:
            features = model.encode(inputs)

            def predict(kept, features=features):
                if not kept:
                    return 0.0
                return model.fuse({m: f if m in kept else zero(f) for m, f in features.items()})

            parts = [0.0] * count
            orders = list(permutations(range(count)))
            for order in orders:
                kept = set()
                for i in order:
                    before = predict(kept)
                    kept = kept | {modalities[i]}
                    parts[i] = parts[i] + (predict(kept) - before) / len(orders)
            if criterion is cross_entropy:
                s = [cross_entropy(q, target).item() for q in parts]
            else:
                s = [math.log(mse_loss(q, target).item() + 1e-6 * target.square().mean().item()) for q in parts]
            k = [math.exp(alpha * min(t - r, cap)) for t, r in zip(ratios(means), ratios(s), strict=True)]
            steps += 1
            means = [mean * (steps - 1) / steps + x / steps for mean, x in zip(means, s, strict=True)]
            criterion(sum(Scaled.apply(q, ki) for q, ki in zip(parts, k, strict=True)), target).backward()
            optimizer.step()
            optimizer.zero_grad()
    return k


@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize(("kind", "options"), [(Concat, {}), (Concat, {"modalities": 3}), (Attention, {})])
def test_training_equals_the_method_written_out(kind, options, criterion):
    model = build(kind, **options)
    loader = task_of(loader_of(model), criterion)
    k = reference(model, loader, criterion, optimizer_of(model, None), 1.5, 10.0, epochs=3)
    other = build(kind, **options)
    balancer = AGM(other, other.encoders, criterion, alpha=1.5)
    train(other, loader, criterion, balancer, optimizer_of(other, balancer), epochs=3)
    assert list(balancer.coefficients.values()) == pytest.approx(k, rel=1e-3)
    torch.testing.assert_close(parameters(other), parameters(model), rtol=1e-3, atol=1e-5)


def test_the_first_step_slows_down_the_modality_that_is_ahead():
    found = coefficients({"ahead": 0.1, "behind": 2.0}, {"ahead": 0.0, "behind": 0.0}, alpha=1.0, cap=10.0)
    assert found["ahead"] < 1 < found["behind"]


def test_a_lead_as_always_has_coefficient_1():
    lead = {"ahead": 0.1, "behind": 2.0, "third": 1.0}
    assert coefficients(lead, dict(lead), alpha=4.0, cap=10.0) == pytest.approx(dict.fromkeys(lead, 1.0))


def test_the_cap_bounds_the_coefficient():
    found = coefficients({"a": 9.0, "b": 0.0}, {"a": 0.0, "b": 9.0}, alpha=1.0, cap=2.0)
    assert found["a"] == pytest.approx(math.exp(2))
    assert found["b"] == 0


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=5), st.floats(0, 10))
def test_extreme_scores_neither_overflow_nor_turn_to_nan(values, alpha):
    scores = {str(i): value for i, value in enumerate(values)}
    for found in coefficients(scores, dict.fromkeys(scores, 0.0), alpha, 10.0).values():
        assert 0 <= found < math.inf


@pytest.mark.parametrize(("dtype", "alpha"), [(torch.float16, 1.5), (torch.float32, 10.0)])
def test_coefficients_beyond_the_largest_float_of_the_prediction_leave_the_loss_finite(dtype, alpha):
    model = build(Concat)
    balancer, batch = AGM(model, model.encoders, mse_loss, alpha=alpha), loader_of(model)[0]
    balancer.start_epoch([batch])
    balancer.running_scores = {"m0": -30.0, "m1": 30.0}
    with torch.autocast("cpu", dtype, enabled=dtype == torch.float16):
        loss, expected = balancer.loss(batch), mse_loss(model(batch[0]), batch[1])
    assert max(balancer.coefficients.values()) > 1e5
    torch.testing.assert_close(loss, expected)


def test_the_scores_do_not_depend_on_the_unit_of_the_target():
    found = []
    for unit in (1.0, 1000.0):
        model = build(Concat)
        with torch.no_grad():
            model.head[-1].weight.mul_(unit)
            model.head[-1].bias.mul_(unit)
        balancer = AGM(model, model.encoders, mse_loss)
        balancer.start_epoch([])
        for inputs, target in loader_of(model):
            balancer.loss((inputs, target * unit))
        found.append(balancer.coefficients)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_coalitions_are_predicted_in_evaluation_mode_and_the_prediction_as_it_is():
    """The loss is that of the training pass, dropout and batch norm included, and they run once."""
    model = build(Convolutional).train()
    batch = loader_of(model)[0]
    torch.manual_seed(0)
    expected = mse_loss(model(batch[0]), batch[1])
    seen = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model = build(Convolutional).train()
    balancer = AGM(model, model.encoders, mse_loss)
    balancer.start_epoch([])
    torch.manual_seed(0)
    assert torch.equal(balancer.loss(batch), expected)
    assert all(torch.equal(buffer, seen[name]) for name, buffer in model.named_buffers())


def test_too_many_modalities_are_refused():
    model = build(Concat, modalities=17)
    with pytest.raises(ValueError, match="at most 16"):
        AGM(model, model.encoders, mse_loss)
