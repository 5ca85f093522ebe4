import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss

from awc_balance.balancers import MMPareto, linear_heads
from awc_balance.balancers.min_norm import inner, min_norm_weights
from awc_balance.balancers.mmpareto import direction
from tests.balancers.methods import cast, task_of
from tests.models import Attention, Concat, build, loader_of

vectors = arrays(np.float64, 4, elements=st.floats(-1, 1, width=32)).map(torch.tensor)
sizes = st.sampled_from([1e-6, 1.0, 1e6])


def combined(a, b):
    weights = min_norm_weights(inner([a], [a]), inner([a], [b]), inner([b], [b]))
    return weights, weights[0] * a + weights[1] * b


@given(vectors, vectors, sizes)
def test_the_minimum_is_that_of_a_grid_search(a, b, size):
    a, b = a * size, b * size
    weights, found = combined(a, b)
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64).unsqueeze(1)
    assert sum(weights) == pytest.approx(1)
    assert found.norm() <= (grid * a + (1 - grid) * b).norm(dim=1).min() + 1e-9 * size


@given(vectors, vectors, sizes, sizes)
def test_the_direction_has_a_non_negative_inner_product_with_both_gradients(a, b, size_a, size_b):
    a, b = a * size_a, b * size_b
    weights, (h,) = direction([a], [b], gamma=1.5)
    shortest = weights[0] * a + weights[1] * b
    for gradient in (a, b):
        rounding = 1e-14 * (a.norm() + b.norm()) * gradient.norm()
        assert shortest @ gradient >= -rounding
        assert h @ gradient >= -rounding * h.norm() / shortest.norm().clamp(min=1e-300)


@given(vectors, vectors)
def test_gradients_that_agree_are_added(a, b):
    weights, (h,) = direction([a], [b], gamma=1.0)
    if a @ b > 0:
        assert weights == (0.5, 0.5)
        torch.testing.assert_close(h, a + b)


@pytest.mark.parametrize(("a", "b", "expected"), [
    ([1.0, 0.0], [0.0, 1.0], (0.5, 0.5)),
    ([1.0, 0.0], [-1.0, 0.0], (0.5, 0.5)),
    ([1.0, 0.0], [-3.0, 0.0], (0.75, 0.25)),
    ([0.0, 0.0], [0.0, 0.0], (0.5, 0.5)),
    ([0.0, 0.0], [1.0, 0.0], (0.999, 0.001)),
    ([1.0, 0.0], [2.0, 0.0], (0.999, 0.001)),
    ([5.0, 0.0], [2.0, 0.0], (0.001, 0.999)),
])  # fmt: skip
def test_known_minima(a, b, expected):
    assert combined(torch.tensor(a), torch.tensor(b))[0] == pytest.approx(expected)


def test_opposite_gradients_leave_an_encoder_where_it_is():
    _, (h,) = direction([torch.tensor([1.0, 2.0])], [torch.tensor([-1.0, -2.0])], gamma=1.5)
    assert torch.equal(h, torch.zeros(2))


def test_rounding_errors_of_opposite_gradients_are_not_blown_up():
    a = torch.tensor([0.5, 0.1, 0.3])
    _, (h,) = direction([a], [-3 * a], gamma=1.5)
    assert h.norm() < 1e-5


def test_gradients_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        direction([torch.tensor([float("nan")])], [torch.ones(1)], 1.5)


def reference(model, heads, batch, criterion, gamma):
    """The method written out, with a backward pass per loss and gradients read off `.grad`."""
    inputs, target = batch
    named = dict(model.named_parameters()) | {
        f"head of {m}.{name}": p for m, head in heads.items() for name, p in head.named_parameters()
    }

    def gradients(which):
        for parameter in named.values():
            parameter.grad = None
        features = model.encode(inputs)
        losses = {"joint": criterion(model.fuse(features), target)}
        for m, head in heads.items():
            pooled = features[m] if features[m].dim() == 2 else features[m].mean(1)
            losses[m] = criterion(head(pooled), target)
        sum(losses[name] for name in which).backward()
        return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named.items()}

    found = gradients(["joint", *heads])
    for m in heads:
        names = [name for name in named if name.startswith(f"encoders.{m}.")]
        a, b, both = gradients(["joint"]), gradients([m]), found
        flat_a, flat_b = (torch.cat([g[name].flatten() for name in names]) for g in (a, b))
        if cosine_similarity(flat_a, flat_b, dim=0) > 0:
            k = (0.5, 0.5)
        else:
            # The parabola through |w a + (1 - w) b|^2 at w = 0, 1/2 and 1.
            at_0, half, at_1 = (f.square().sum() for f in (flat_b, (flat_a + flat_b) / 2, flat_a))
            curvature = 2 * (at_0 + at_1 - 2 * half)
            best = -(at_1 - at_0 - curvature) / (2 * curvature)
            k = (best.item(), 1 - best.item())
        for name in names:
            h = 2 * k[0] * a[name] + 2 * k[1] * b[name]
            longer = both[name].norm() / h.norm()
            found[name] = gamma * h * (longer if longer > 1 else 1)
    return found


@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize(("kind", "options"), [(Concat, {}), (Concat, {"modalities": 5}), (Attention, {})])
def test_gradients_equal_the_method_written_out(kind, options, criterion):
    conflicts = 0
    for seed in range(4):
        model = build(kind, seed, **options).double()
        batch = task_of(cast(loader_of(model), torch.float64), criterion)[0]
        heads = linear_heads(model, model.encoders, batch)
        expected = reference(copy.deepcopy(model), copy.deepcopy(heads), batch, criterion, 1.5)
        balancer = MMPareto(model, model.encoders, criterion, heads)
        balancer.start_epoch([batch])
        balancer.loss(batch).backward()
        balancer.adjust_gradients_()
        conflicts += sum(weights != (0.5, 0.5) for weights in balancer.weights.values())
        found = dict(model.named_parameters()) | {
            f"head of {m}.{name}": p for m, head in heads.items() for name, p in head.named_parameters()
        }
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name].grad, gradient, rtol=1e-3, atol=1e-6)
    if kind is Concat:
        assert conflicts > 0


def test_small_gradients_do_not_underflow_in_float16_nor_large_ones_overflow():
    for size in (1e-7, 1.0, 1e4):
        found = []
        for dtype in (torch.float16, torch.float32):
            model = build(Concat)
            loader = loader_of(model)
            heads = linear_heads(model, model.encoders, loader[0])
            balancer = MMPareto(model, model.encoders, lambda p, y, size=size: size * mse_loss(p.float(), -y), heads)
            balancer.start_epoch(loader)
            with torch.autocast("cpu", dtype, enabled=dtype == torch.float16):
                loss = balancer.loss(loader[0])
            (loss / size).backward()
            found.append([parameter.grad for parameter in model.encoders.parameters()])
        for half, full in zip(*found, strict=True):
            torch.testing.assert_close(half, full, rtol=0.02, atol=0.01 * full.abs().max().item())


def test_the_loss_is_the_sum_of_all_losses():
    model = build(Concat)
    batch = loader_of(model)[0]
    heads = linear_heads(model, model.encoders, batch)
    balancer = MMPareto(model, model.encoders, mse_loss, heads)
    balancer.start_epoch([batch])
    features = model.encode(batch[0])
    expected = mse_loss(model.fuse(features), batch[1]) + sum(mse_loss(heads[m](features[m]), batch[1]) for m in heads)
    torch.testing.assert_close(balancer.loss(batch), expected)


def test_accumulated_gradients_are_means_of_directions():
    model = build(Concat)
    loader = loader_of(model)[:2]
    balancer = MMPareto(model, model.encoders, mse_loss, linear_heads(model, model.encoders, loader[0]))
    balancer.start_epoch(loader)
    single = []
    for batch in loader:
        balancer.loss(batch).backward()
        single.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for batch in loader:
        (balancer.loss(batch) / 2).backward()
    for parameter, a, b in zip(model.parameters(), *single, strict=True):
        torch.testing.assert_close(parameter.grad, (a + b) / 2)


def test_parameters_that_no_loss_reaches_get_no_gradient():
    model = build(Concat)
    model.encoders["m0"].register_parameter("spare", torch.nn.Parameter(torch.ones(2)))
    batch = loader_of(model)[0]
    balancer = MMPareto(model, model.encoders, mse_loss, linear_heads(model, model.encoders, batch))
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    assert model.encoders["m0"].spare.grad is None
