import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance.balancers import GBlending, Losses, g_blending_weights, linear_heads
from tests.balancers.methods import optimizer_of, task_of, train
from tests.models import Attention, Concat, Convolutional, build, loader_of
from tests.test_nothing_is_changed import picture, same

losses = st.builds(Losses, st.floats(0.01, 10), st.floats(0.01, 10))
curves = st.dictionaries(st.sampled_from(["rgb", "wifi", "lidar", "joint"]), st.tuples(losses, losses), min_size=1)


@given(curves)
def test_weights_sum_to_1_and_none_is_lost(curve):
    weights = g_blending_weights(curve)
    assert set(weights) == set(curve)
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) >= 0.9e-3


@given(curves, st.sampled_from([1e-3, 1e3]))
def test_weights_do_not_depend_on_the_unit_of_the_loss(curve, unit):
    scaled = {s: tuple(Losses(*(unit * loss for loss in losses)) for losses in pair) for s, pair in curve.items()}
    assert g_blending_weights(scaled) == pytest.approx(g_blending_weights(curve), rel=1e-6)


@given(st.floats(0.1, 0.5), st.floats(0.1, 0.5), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_weights_have_the_ratio_of_the_papers_formula(gain_a, gain_b, gap_a, gap_b):
    start = Losses(1.0, 1.0)
    curve = {
        "a": (start, Losses(1 - gain_a - gap_a, 1 - gain_a)),
        "b": (start, Losses(1 - gain_b - gap_b, 1 - gain_b)),
    }
    weights = g_blending_weights(curve)
    expected = (gain_a / gap_a**2) / (gain_b / gap_b**2)
    assert weights["a"] / weights["b"] == pytest.approx(expected, rel=0.15)  # the guard is a thousandth of the mean


def test_the_stream_that_generalises_is_preferred():
    start = Losses(train=1.0, held_out=1.0)
    weights = g_blending_weights(
        {
            "generalises": (start, Losses(0.5, 0.55)),
            "overfits": (start, Losses(0.1, 0.9)),
            "gets worse": (start, Losses(0.2, 1.3)),
        }
    )
    assert weights["generalises"] > 0.9
    assert weights["overfits"] > weights["gets worse"] * 0.999
    assert weights["gets worse"] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("end", [Losses(1.0, 1.0), Losses(0.5, 1.5)])
def test_where_none_got_better_all_weigh_the_same(end):
    start = Losses(1.0, 1.0)
    assert g_blending_weights({"a": (start, end), "b": (start, end)}) == {"a": 0.5, "b": 0.5}


def test_streams_that_do_not_overfit_at_all_are_weighed_by_their_gain():
    start = Losses(1.0, 1.0)
    weights = g_blending_weights({"a": (start, Losses(0.25, 0.25)), "b": (start, Losses(0.75, 0.75))})
    assert weights == pytest.approx({"a": 0.75, "b": 0.25})


@pytest.mark.parametrize("curve", [{}, {"a": (Losses(1.0, 1.0), Losses(float("nan"), 1.0))}])
def test_bad_curves_are_refused(curve):
    with pytest.raises(ValueError, match="Got"):
        g_blending_weights(curve)


def streams(model, heads, batch, criterion):
    """The loss of every stream, written out."""
    features = model.encode(batch[0])
    single = {
        m: criterion(heads[m](features[m] if features[m].dim() == 2 else features[m].mean(1)), batch[1]) for m in heads
    }
    return {**single, "joint": criterion(model.fuse(features), batch[1])}


@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize("kind", [Concat, Attention])
def test_the_loss_and_its_gradients_are_those_of_the_weighted_sum(kind, criterion):
    model = build(kind)
    batch = task_of(loader_of(model), criterion)[0]
    heads = linear_heads(model, model.encoders, batch)
    weights = {**{m: 0.1 * (i + 1) for i, m in enumerate(heads)}, "joint": 0.7}
    expected = sum(weights[s] * loss for s, loss in streams(model, heads, batch, criterion).items())
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    balancer = GBlending(model, model.encoders, criterion, heads, weights=weights)
    balancer.start_epoch([batch])
    loss = balancer.loss(batch)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_measure_is_the_mean_over_samples_and_changes_nothing():
    model = build(Convolutional).train()
    loader = [*loader_of(model, 2), *loader_of(model, 1, samples=3, seed=5)]
    heads = linear_heads(model, model.encoders, loader[0])
    balancer = GBlending(model, model.encoders, mse_loss, heads, held_out=loader)
    before = picture(model)
    found = balancer.measure(loader)
    same(before, picture(model))
    model.eval()
    whole = ({m: torch.cat([x[m] for x, _ in loader]) for m in model.encoders}, torch.cat([y for _, y in loader]))
    assert found == pytest.approx({s: loss.item() for s, loss in streams(model, heads, whole, mse_loss).items()})


def test_measure_counts_the_samples_of_the_prediction_whatever_else_a_batch_holds():
    model = build(Concat)

    def step(model, batch):
        return model(batch["inputs"]), batch["target"]

    pairs = [*loader_of(model, 2), *loader_of(model, 1, samples=3, seed=5)]
    loader = [{"inputs": x, "target": y, "weights of classes": torch.ones(5)} for x, y in pairs]
    heads = linear_heads(model, model.encoders, pairs[0])
    found = GBlending(model, model.encoders, mse_loss, heads, held_out=loader, step=step).measure(loader)
    assert found == GBlending(model, model.encoders, mse_loss, heads, held_out=pairs).measure(pairs)


def test_measure_runs_heads_in_evaluation_mode_too():
    model = build(Concat)
    loader = loader_of(model)
    heads = {m: torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)) for m in model.encoders}
    balancer = GBlending(model, model.encoders, mse_loss, heads, held_out=loader)
    assert balancer.measure(loader) == balancer.measure(loader)
    assert all(head.training for head in heads.values())


def test_weights_are_estimated_at_the_start_of_every_super_epoch():
    model = build(Concat)
    loader, held_out = loader_of(model), loader_of(model, 2, seed=7)
    heads = linear_heads(model, model.encoders, loader[0])
    balancer = GBlending(model, model.encoders, mse_loss, heads, held_out=held_out, super_epoch=2)
    optimizer = optimizer_of(model, balancer)
    seen, measured = [], []
    for epoch in range(5):
        if epoch % 2 == 0:
            train_losses, held_losses = (
                {
                    s: sum(streams(model, heads, b, mse_loss)[s].item() for b in part) / len(part)
                    for s in balancer.streams
                }
                for part in (loader, held_out)
            )
            measured.append({s: Losses(train_losses[s], held_losses[s]) for s in balancer.streams})
        train(model, loader, mse_loss, balancer, optimizer, epochs=1)
        seen.append(dict(balancer.weights))
    assert set(seen[0].values()) == {1 / 3}
    assert seen[0] == seen[1]
    assert seen[2] == seen[3] != seen[4]
    for weights, start, end in [(seen[2], *measured[:2]), (seen[4], *measured[1:])]:
        expected = g_blending_weights({s: (start[s], end[s]) for s in balancer.streams})
        assert weights == pytest.approx(expected, rel=1e-3)


def test_the_papers_own_estimate_can_be_had_from_a_loop_of_ones_own():
    """A copy of the model is trained on one stream at a time with fixed weights."""
    model = build(Concat)
    loader, held_out = loader_of(model), loader_of(model, 2, seed=7)
    curve = {}
    for stream in [*model.encoders, "joint"]:
        one = copy.deepcopy(model)
        heads = linear_heads(one, one.encoders, loader[0])
        weights = {s: float(s == stream) for s in [*model.encoders, "joint"]}
        balancer = GBlending(one, one.encoders, mse_loss, heads, weights=weights)
        start = Losses(balancer.measure(loader)[stream], balancer.measure(held_out)[stream])
        train(one, loader, mse_loss, balancer, optimizer_of(one, balancer), epochs=2)
        curve[stream] = (start, Losses(balancer.measure(loader)[stream], balancer.measure(held_out)[stream]))
    weights = g_blending_weights(curve)
    GBlending(model, model.encoders, mse_loss, linear_heads(model, model.encoders, loader[0]), weights=weights)
    assert sum(weights.values()) == pytest.approx(1)


def test_a_modality_called_joint_is_refused():
    model = build(Concat)
    encoders = {"joint": model.encoders["m0"], "m1": model.encoders["m1"]}
    with pytest.raises(ValueError, match="Rename"):
        GBlending(model, encoders, mse_loss, linear_heads(model, encoders, loader_of(model)[0]), held_out=[])
