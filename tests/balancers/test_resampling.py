import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance.balancers import ModalityResampling, SampleResampling
from awc_balance.balancers.resampling import rate
from awc_balance.balancers.sample_resampling import are_right
from tests.balancers.methods import easy, optimizer_of, train
from tests.models import Attention, Concat, Convolutional, build, loader_of
from tests.reference import coalition_predictions, correlations, shapley_by_permutations, zero


@given(st.floats(-5, 5), st.integers(2, 5), st.floats(0, 100))
def test_the_rate_is_0_where_contributions_are_equal(value, modalities, alpha):
    assert rate(torch.full((modalities,), value), alpha) == 0


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=5), st.floats(0, 3))
def test_the_rate_is_a_probability_and_grows_with_the_gap(values, alpha):
    values = torch.tensor(values, dtype=torch.float64)
    gap = (values.max() - values.min()).item()
    assert rate(values, alpha).item() == pytest.approx(min(2 / 3 * alpha * gap, 1))


def worths(model, loader, criterion):
    """|S| times accuracy or correlation, by brute force over orders."""
    target = torch.cat([target for _, target in loader])
    table = []
    for k, prediction in enumerate(coalition_predictions(model, loader)):
        if criterion is cross_entropy:
            good = (prediction.argmax(1) == target).double().mean().item()
        else:
            good = max(0.0, float(np.mean(correlations(prediction, target))))
        table.append(bin(k).count("1") * good)
    return dict(zip(model.encoders, shapley_by_permutations(table, len(model.encoders)), strict=True))


@pytest.mark.parametrize(("criterion", "profit"), [(mse_loss, "pearson"), (cross_entropy, "accuracy")])
@pytest.mark.parametrize(("kind", "options"), [(Concat, {}), (Concat, {"modalities": 5}), (Attention, {})])
def test_contributions_equal_brute_force_on_features_zeroed_by_hand(kind, options, criterion, profit):
    model = build(kind, **options)
    loader = easy(model, criterion)
    train(model, loader, criterion, None, optimizer_of(model, None), epochs=10)
    balancer = ModalityResampling(model, model.encoders, criterion, profit, warmup=0, share=1.0, alpha=0.4)
    balancer.start_epoch(loader)
    expected = worths(model, loader, criterion)
    assert balancer.contributions == pytest.approx(expected, abs=1e-5)
    gap = max(expected.values()) - min(expected.values())
    assert balancer.rate == pytest.approx(min(1, 0.4 * 2 / 3 * gap), abs=1e-5)
    assert balancer.rate > 0
    assert balancer.strongest == max(expected, key=expected.get)


def test_a_fifth_of_the_batches_is_read_for_the_contributions():
    model = build(Concat)
    loader = loader_of(model, 10)
    balancer = ModalityResampling(model, model.encoders, mse_loss, "pearson", warmup=0)
    balancer.start_epoch(loader)
    assert balancer.contributions == pytest.approx(worths(model, [loader[0], loader[5]], mse_loss), abs=1e-5)


def test_a_correlation_over_too_few_samples_brings_a_warning():
    model = build(Concat)
    loader = loader_of(model, 5, samples=4)
    balancer = ModalityResampling(model, model.encoders, mse_loss, "pearson", warmup=0)
    with pytest.warns(UserWarning, match="Got 4 in a share of 0.2"):
        balancer.start_epoch(loader)
    ModalityResampling(model, model.encoders, mse_loss, "pearson", warmup=0, share=0.4).start_epoch(loader)


def test_before_contributions_are_measured_none_is_strongest():
    model = build(Concat)
    balancer = ModalityResampling(model, model.encoders, mse_loss, "pearson")
    with pytest.raises(RuntimeError, match="warmup=5"):
        _ = balancer.strongest


def test_one_number_per_sample_is_judged_as_a_row_of_one():
    predictions, target = list(torch.randn(4, 9)), torch.randn(9)
    rows = are_right([prediction.unsqueeze(1) for prediction in predictions], target.unsqueeze(1))
    assert are_right(predictions, target).equal(rows)


def test_the_warm_up_is_plain_and_reads_no_loader():
    model = build(Concat)
    batch = loader_of(model)[0]
    balancer = ModalityResampling(model, model.encoders, mse_loss, "pearson", warmup=2)
    for _ in range(2):
        balancer.start_epoch(None)
        assert torch.equal(balancer.loss(batch), mse_loss(model(batch[0]), batch[1]))
    balancer.start_epoch([batch])
    assert balancer.contributions


@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize("kind", [Concat, Attention])
def test_the_loss_is_that_of_the_batch_with_samples_added_without_the_strongest(kind, criterion):
    model = build(kind)
    inputs, target = batch = easy(model, criterion)[0]
    profit = "pearson" if criterion is mse_loss else "accuracy"
    balancer = ModalityResampling(model, model.encoders, criterion, profit, warmup=0)
    balancer.start_epoch([batch])
    strongest = list(model.encoders)[1]
    balancer.contributions = {m: float(m == strongest) for m in model.encoders}
    balancer.rate = 0.5
    loss = balancer.loss(batch)
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    chosen = torch.rand(8, generator=torch.Generator().manual_seed(0)) < 0.5
    assert 0 < chosen.sum() < 8
    features = model.encode(inputs)
    again = model.fuse({**features, strongest: zero(features[strongest])})[chosen]
    expected = criterion(torch.cat([model.fuse(features), again]), torch.cat([target, target[chosen]]))
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate_of_all", [0.0, 1.0])
def test_extreme_rates_show_nothing_or_everything_again(rate_of_all):
    model = build(Concat)
    batch = loader_of(model)[0]
    seen = []

    def criterion(prediction, target):
        seen.append(len(prediction))
        return mse_loss(prediction, target)

    balancer = ModalityResampling(model, model.encoders, criterion, "pearson", warmup=0)
    balancer.start_epoch([batch])
    balancer.contributions, balancer.rate = {"m0": 1.0, "m1": 0.0}, rate_of_all
    balancer.loss(batch)
    assert seen == [8 + 8 * int(rate_of_all)]


@pytest.mark.parametrize("modalities", [2, 3, 5])
@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
def test_sample_level_equals_the_method_written_out(modalities, criterion):
    model = build(Concat, modalities=modalities)
    loader = easy(model, criterion)
    inputs, target = batch = (
        {m: torch.cat([x[m] for x, _ in loader]) for m in model.encoders},
        torch.cat([y for _, y in loader]),
    )
    train(model, [batch], criterion, None, optimizer_of(model, None, "Adam"), epochs=60)
    balancer = SampleResampling(model, model.encoders, criterion, alpha=0.7, warmup=0)
    balancer.start_epoch([batch])
    loss = balancer.loss(batch)
    predictions = coalition_predictions(model, [batch])
    if criterion is cross_entropy:
        right = [p.argmax(1) == target for p in predictions]
    else:
        errors = [(p - target).square().mean(1) for p in predictions]
        right = [e < errors[-1].median() for e in errors]
    table = [bin(k).count("1") * r.double().numpy() for k, r in enumerate(right)]
    phi = shapley_by_permutations(table, modalities).round(6)
    draws = torch.rand(len(target), generator=torch.Generator().manual_seed(0))
    features = model.encode(inputs)
    shown, targets = [model.fuse(features)], [target]
    for i, m in enumerate(model.encoders):
        for sample in range(len(target)):
            share = min(1, 2 / 3 * 0.7 * (phi[:, sample].max() - phi[:, sample].min()))
            if phi[:, sample].argmax() == i and draws[sample] < share:
                shown.append(model.fuse({**features, m: zero(features[m])})[sample : sample + 1])
                targets.append(target[sample : sample + 1])
    torch.testing.assert_close(loss, criterion(torch.cat(shown), torch.cat(targets)))
    assert len(shown) > 1


def test_nested_targets_are_shown_again_with_their_samples():
    model = build(Concat)
    inputs, target = loader_of(model)[0]
    seen = {}

    def criterion(prediction, target):
        seen.update(target)
        return mse_loss(prediction, target["pose"])

    balancer = ModalityResampling(model, model.encoders, criterion, "pearson", warmup=1)
    balancer.start_epoch(None)
    balancer.warmup, balancer.contributions, balancer.rate = 0, {"m0": 1.0, "m1": 0.0}, 1.0
    balancer.loss((inputs, {"pose": target, "unit": 2.0, "scale": torch.tensor(3.0)}))
    assert torch.equal(seen["pose"], torch.cat([target, target]))
    assert (seen["unit"], seen["scale"].item()) == (2.0, 3.0)


def test_showing_again_leaves_batch_norm_and_random_state_to_the_training_pass():
    model = build(Convolutional).train()
    batch = loader_of(model)[0]
    torch.manual_seed(0)
    model(batch[0])
    expected = {name: b.clone() for name, b in model.named_buffers()}, torch.get_rng_state()
    model = build(Convolutional).train()
    balancer = SampleResampling(model, model.encoders, mse_loss, alpha=9.0, warmup=0)
    balancer.start_epoch([batch])
    torch.manual_seed(0)
    balancer.loss(batch).backward()
    assert all(torch.equal(b, expected[0][name]) for name, b in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), expected[1])


@pytest.mark.parametrize("target", [torch.randn(8, 2), torch.randint(3, (8, 3)), "pose"])
def test_targets_that_do_not_fit_are_refused(target):
    with pytest.raises(ValueError, match="one shape"):
        are_right([torch.randn(8, 3)], target)


def test_a_prediction_per_place_is_right_where_all_places_are():
    logits = torch.tensor([[[2.0, 2.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]])  # [batch, classes, places]
    assert are_right([logits], torch.zeros(2, 2, dtype=torch.long)).tolist() == [[True, False]]
