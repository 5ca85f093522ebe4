import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss, softmax

from awc_balance.balancers import InfoReg
from awc_balance.balancers.inforeg import grows, pulls
from tests.balancers.methods import optimizer_of, step, task_of, train
from tests.models import Attention, Concat, build, loader_of
from tests.reference import correlations, zero


def scores_of(model, batch, criterion):
    """The mean probability of the true class, or the mean correlation of at least 0, of each modality alone."""
    inputs, target = batch
    found = {}
    with torch.no_grad():
        features = model.encode(inputs)
        for m in features:
            prediction = model.fuse({other: f if other == m else zero(f) for other, f in features.items()})
            if criterion is cross_entropy:
                found[m] = sum(softmax(p, 0)[y].item() for p, y in zip(prediction, target, strict=True)) / len(target)
            else:
                found[m] = max(0.0, correlations(prediction, target).mean())
    return found


@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize(("kind", "options"), [(Concat, {}), (Concat, {"modalities": 5}), (Attention, {})])
def test_the_gradient_equals_the_formula(kind, options, criterion):
    model = build(kind, **options)
    loader = task_of(loader_of(model), criterion)
    balancer = InfoReg(model, model.encoders, criterion, beta=0.7)
    optimizer = optimizer_of(model, balancer)
    balancer.start_epoch(loader)
    anchors = {m: [p.detach().clone() for p in e.parameters()] for m, e in model.encoders.items()}
    step(model, loader[0], criterion, balancer, optimizer)
    batch = loader[1]
    criterion(model(batch[0]), batch[1]).backward()
    plain = {m: [p.grad.clone() for p in e.parameters()] for m, e in model.encoders.items()}
    model.zero_grad()
    s = scores_of(model, batch, criterion)
    dominant = max(s, key=s.get)
    others = [value for m, value in s.items() if m != dominant]
    strength = 0.7 * math.exp(math.tanh(s[dominant] - sum(others) / len(others)))
    balancer.loss(batch).backward()
    balancer.adjust_gradients_()
    assert balancer.dominant == dominant
    for m, encoder in model.encoders.items():
        for p, gradient, anchor in zip(encoder.parameters(), plain[m], anchors[m], strict=True):
            expected = gradient + strength * (p.detach() - anchor) if m == dominant else gradient
            torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6)


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1), min_size=1), st.floats(0.01, 2))
@example(dict.fromkeys("abcd", 0.9265731925484448), 1.0)  # whose mean is smaller
def test_at_most_the_dominant_modality_is_pulled(scores, beta):
    found = pulls(scores, beta)
    assert set(found) <= {max(scores, key=scores.get)}
    for strength in found.values():
        assert beta <= strength <= beta * math.e
    if len(set(scores.values())) == 1:
        assert not found


def test_the_first_step_of_an_epoch_has_no_pull():
    model = build(Concat)
    batch = loader_of(model)[0]
    balancer = InfoReg(model, model.encoders, mse_loss)
    mse_loss(model(batch[0]), batch[1]).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    balancer.adjust_gradients_()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


def test_the_window_closes_when_the_trace_stops_growing_and_may_open_again():
    traces = [1.0, 1.5, 2.0] + [2.0] * 12
    opened = [grows(traces[: i + 1], 0.04, 10) for i in range(len(traces))]
    assert all(opened[:10])
    assert not any(opened[12:])
    assert grows([*traces, 9.0], 0.04, 10)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.sampled_from([1e-8, 1e8]))
def test_the_window_does_not_depend_on_the_unit_of_the_loss(traces, unit):
    now, before = sum(traces[-10:]), sum(traces[-11:-1])
    if not math.isclose((now - before) / now, 0.04, rel_tol=1e-6):
        assert grows(traces, 0.04, 10) == ((now - before) / now > 0.04)
        assert grows([unit * trace for trace in traces], 0.04, 10) == grows(traces, 0.04, 10)


@pytest.mark.parametrize("traces", [[], [0.0, 0.0]])
def test_without_any_trace_the_window_is_open_and_with_none_left_it_is_closed(traces):
    assert grows(traces, 0.04, 10) == (not traces)


def test_traces_are_mean_squared_gradients_of_weights_by_modality():
    model = build(Concat)
    loader = loader_of(model)
    balancer = InfoReg(model, model.encoders, mse_loss, beta=0.5)
    optimizer = optimizer_of(model, balancer)
    balancer.start_epoch(loader)
    expected = dict.fromkeys(model.encoders, 0.0)
    for batch in loader:
        mse_loss(model(batch[0]), batch[1]).backward()
        for m, encoder in model.encoders.items():
            expected[m] += encoder[0].weight.grad.square().mean().item() / len(loader)
        model.zero_grad()
        step(model, batch, mse_loss, balancer, optimizer)
    balancer.start_epoch(loader)
    assert {m: traces[0] for m, traces in balancer.traces.items()} == pytest.approx(expected, rel=1e-5)


def test_a_closed_window_is_plain_training():
    model = build(Concat)
    loader = loader_of(model)
    balancer = InfoReg(model, model.encoders, mse_loss, growth=0.0)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer), epochs=1)
    balancer.traces = {m: [1.0] * 20 for m in model.encoders}
    balancer._trace_steps = 0
    balancer.start_epoch(loader)
    assert not any(balancer.open.values())
    step(model, loader[0], mse_loss, balancer, optimizer_of(model, balancer))
    mse_loss(model(loader[1][0]), loader[1][1]).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    balancer.loss(loader[1]).backward()
    balancer.adjust_gradients_()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


def test_scores_are_means_so_that_the_strength_does_not_saturate():
    """Doubling the batch leaves the strength as it is; the tanh of a sum over it would be 1."""
    model = build(Concat)
    inputs, target = task_of(loader_of(model), cross_entropy)[0]
    twice = ({m: torch.cat([x, x]) for m, x in inputs.items()}, torch.cat([target, target]))
    one, two = (pulls(scores_of(model, batch, cross_entropy), 1.0) for batch in ((inputs, target), twice))
    assert one == pytest.approx(two)
    assert next(iter(one.values())) < 0.9 * math.e


def test_a_step_whose_gradient_is_not_finite_is_left_alone_with_a_warning_and_never_kept():
    model = build(Concat)
    batch = loader_of(model)[0]
    balancer = InfoReg(model, model.encoders, mse_loss)
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    model.encoders["m1"][0].weight.grad[0, 0] = float("inf")
    before = str(balancer.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    with pytest.warns(UserWarning, match=r"0\.weight of `m1`"):
        balancer.adjust_gradients_()
    assert str(balancer.state_dict()) == before
    assert all(p.grad.equal(gradient) for p, gradient in zip(model.parameters(), gradients, strict=True))
    with pytest.raises(RuntimeError, match="scores of a batch"):  # those of this step are not taken for the next's
        balancer.adjust_gradients_()
