import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, softmax

from awc_balance.balancers import OGMGE
from awc_balance.balancers.ogm_ge import modulation
from awc_balance.balancers.scores import clipped_pearson, inverse_mse, log_mse, probability
from tests.balancers.methods import late
from tests.models import Concat, Convolutional, TwoPart, build, loader_of

scores = st.dictionaries(st.sampled_from("abcde"), st.floats(1e-6, 1e6), min_size=2)


def gradients_of(model, batch, criterion, **options):
    """Plain gradients, and those that the method leaves."""
    criterion(model(batch[0]), batch[1]).backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    balancer = OGMGE(model, model.encoders, criterion, **options)
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    balancer.adjust_gradients_()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return plain, found, balancer


@given(scores, st.floats(0.01, 2.0))
def test_the_weaker_modalities_keep_1_and_the_strongest_is_slowed_down(values, alpha):
    found = modulation(values, alpha)
    mean = sum(values.values()) / len(values)
    for modality, value in values.items():
        assert 0 <= found[modality] <= 1
        if value <= mean * (1 - 1e-9):
            assert found[modality] == 1
        if value > mean * (1 + 1e-9):
            assert found[modality] < 1


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(0.01, 2.0), st.sampled_from([1e-6, 1.0, 1e6]))
def test_two_modalities_have_the_papers_formula_in_any_unit(a, v, alpha, unit):
    def k(own, other):
        ratio = own / other
        return 1 - math.tanh(alpha * max(ratio, 0)) if ratio > 1 else 1.0

    found = modulation({"a": a * unit, "v": v * unit}, alpha)
    if not math.isclose(a, v, rel_tol=1e-9):
        assert found == pytest.approx({"a": k(a, v), "v": k(v, a)}, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("values", [{"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, {"a": 3.0}])
def test_nobody_ahead_and_nobody_is_slowed_down(values):
    assert set(modulation(values, 1.0).values()) == {1.0}


def test_a_modality_ahead_of_nothing_stands_still():
    assert modulation({"a": 1.0, "b": 0.0}, 0.1) == {"a": 0.0, "b": 1.0}


def test_more_than_two_are_compared_with_the_mean_of_the_others():
    found = modulation({"a": 6.0, "b": 1.0, "c": 2.0}, 0.3)
    assert found == pytest.approx({"a": 1 - math.tanh(0.3 * 4), "b": 1, "c": 1})


def test_negative_scores_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        modulation({"a": -1.0, "b": 1.0}, 0.1)


def test_equals_the_papers_steps_on_a_concatenation():
    """Slices of the head with half the bias, sums of probabilities, a scale of gradients: written out."""
    model, (inputs, target) = late()
    classes = target.argmax(1)
    with torch.no_grad():
        features = model.encode(inputs)
        w, b = model.head.weight, model.head.bias
        logits = {"m0": features["m0"] @ w[:, :4].T + b / 2, "m1": features["m1"] @ w[:, 4:].T + b / 2}
        s = {m: sum(softmax(out, 1)[i][classes[i]].item() for i in range(16)) for m, out in logits.items()}
    ratio = {"m0": s["m0"] / s["m1"], "m1": s["m1"] / s["m0"]}
    k = {m: 1 - math.tanh(0.8 * r) if r > 1 else 1.0 for m, r in ratio.items()}
    plain, found, balancer = gradients_of(
        model, (inputs, classes), cross_entropy, alpha=0.8, noise=False, head=model.head
    )
    assert balancer.coefficients == pytest.approx(k, rel=1e-5)
    for name, gradient in found.items():
        scale = next((k[m] for m in k if f".{m}." in name), 1.0)
        torch.testing.assert_close(gradient, plain[name] * scale)
    assert sorted(k.values())[0] < sorted(k.values())[1] == 1


def test_zeroing_the_others_equals_the_slice_without_bias():
    model, batch = late(3, bias=False)
    found = [
        gradients_of(model, batch, mse_loss, alpha=0.5, noise=False, **options)[2].coefficients
        for options in ({}, {"head": model.head})
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_head_of_another_width_is_refused():
    model = build(Concat, modalities=3)
    balancer = OGMGE(model, model.encoders, mse_loss, head=model.head[2])
    balancer.start_epoch([])
    with pytest.raises(ValueError, match=r"4 \+ 4 \+ 4"):
        balancer.loss(loader_of(model)[0])


def test_encoders_in_another_order_than_the_head_takes_them_bring_a_warning():
    model, batch = late(3)
    encoders = dict(reversed(model.encoders.items()))
    balancer = OGMGE(model, encoders, mse_loss, head=model.head)
    balancer.start_epoch([])
    with pytest.warns(UserWarning, match="another order"):
        balancer.loss(batch)


class Wide(TwoPart):
    """Gradients of many numbers, for statistics."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({m: nn.Linear(200, 200) for m in ("m0", "m1")})
        self.head = nn.Linear(400, 3)

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1))


def test_noise_has_mean_0_and_the_deviation_of_the_gradient_on_every_modality():
    torch.manual_seed(0)
    model = Wide()
    batch = ({m: torch.randn(16, 200) for m in model.encoders}, torch.randn(16, 3))
    plain, found, balancer = gradients_of(model, batch, mse_loss, alpha=0.5)
    for modality, k in balancer.coefficients.items():
        name = f"encoders.{modality}.weight"
        noise = found[name] - k * plain[name]
        assert noise.std().item() == pytest.approx(plain[name].std().item(), rel=0.02)
        assert abs(noise.mean()) < 4 * noise.std() / 200
        assert torch.corrcoef(torch.stack([noise.flatten(), plain[name].flatten()]))[0, 1].abs() < 0.03
    assert torch.equal(found["head.weight"], plain["head.weight"])


def test_noise_comes_from_the_seed_and_leaves_the_global_random_state_alone():
    model, batch = late()
    torch.manual_seed(5)
    first = gradients_of(model, batch, mse_loss, alpha=0.5)[1]
    after = torch.rand(1)
    second = gradients_of(model, batch, mse_loss, alpha=0.5)[1]
    other = gradients_of(model, batch, mse_loss, alpha=0.5, seed=1)[1]
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoders.m0.weight"], other["encoders.m0.weight"])


def test_a_gradient_of_one_number_is_scaled_and_stays_finite():
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})

    def step(model, batch):
        return model["a"](batch[0]) + model["b"](batch[0]), batch[1]

    balancer = OGMGE(model, dict(model.items()), mse_loss, step=step)
    batch = (torch.randn(8, 1), torch.randn(8, 1))
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    balancer.adjust_gradients_()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_convolutions_only_as_in_the_paper():
    model = build(Convolutional).eval()
    plain, found, _ = gradients_of(model, loader_of(model)[0], mse_loss, alpha=0.5, tensors="convolutions")
    changed = {name for name in plain if not torch.equal(plain[name], found[name])}
    assert changed == {"encoders.image.0.weight"}


def test_accumulated_batches_have_the_scores_of_one():
    model, (inputs, target) = late()
    whole = gradients_of(model, (inputs, target.argmax(1)), cross_entropy, alpha=0.8, noise=False)[1]
    balancer = OGMGE(model, model.encoders, cross_entropy, alpha=0.8, noise=False)
    balancer.start_epoch([])
    for part in (slice(0, 8), slice(8, 16)):
        batch = ({m: x[part] for m, x in inputs.items()}, target[part].argmax(1))
        (balancer.loss(batch) / 2).backward()
    balancer.adjust_gradients_()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name])


def test_sparse_gradients_are_refused():
    model = nn.ModuleDict({"a": nn.EmbeddingBag(5, 3, sparse=True), "b": nn.Linear(2, 3)})

    def step(model, batch):
        return model["a"](batch[0]) + model["b"](batch[1]), batch[2]

    balancer = OGMGE(model, dict(model.items()), mse_loss, step=step)
    batch = (torch.randint(5, (8, 2)), torch.randn(8, 2), torch.randn(8, 3))
    balancer.start_epoch([batch])
    balancer.loss(batch).backward()
    with pytest.raises(ValueError, match="dense"):
        balancer.adjust_gradients_()


def test_a_score_that_is_not_finite_is_refused_with_the_modality():
    model = build(Concat)
    (inputs, target), *_ = loader_of(model)
    balancer = OGMGE(model, model.encoders, mse_loss)
    balancer.start_epoch([])
    with pytest.raises(ValueError, match="`m1`"):
        balancer.loss(({"m0": inputs["m0"], "m1": inputs["m1"] * float("nan")}, target))


def test_a_target_that_is_no_tensor_needs_a_score_of_ones_own():
    model = build(Concat)
    (inputs, target), *_ = loader_of(model)

    def criterion(prediction, target):
        return mse_loss(prediction, target["pose"])

    balancer = OGMGE(model, model.encoders, criterion)
    balancer.start_epoch([])
    with pytest.raises(TypeError, match="score="):
        balancer.loss((inputs, {"pose": target}))
    balancer = OGMGE(model, model.encoders, criterion, score=lambda p, t: 1 / mse_loss(p, t["pose"]))
    balancer.start_epoch([])
    balancer.loss((inputs, {"pose": target})).backward()
    balancer.adjust_gradients_()
    assert min(balancer.coefficients.values()) < 1


@pytest.mark.parametrize("score", [inverse_mse, log_mse])
def test_a_target_of_another_shape_is_not_spread_over_the_prediction(score):
    with pytest.raises(ValueError, match=r"\(8, 1\) and \(8,\)"):
        score(torch.randn(8, 1), torch.randn(8))


def test_classes_that_the_cross_entropy_ignores_are_not_scored():
    logits, classes = torch.randn(6, 3, 2), torch.randint(0, 3, (6, 2))
    ignored = torch.cat([classes, torch.full((2, 2), -100)])
    torch.testing.assert_close(
        probability(torch.cat([logits, torch.randn(2, 3, 2)]), ignored), probability(logits, classes)
    )
    assert probability(logits, torch.full((6, 2), -100)) == 0


def test_scores():
    logits, classes = torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0])
    assert probability(logits, classes).item() == pytest.approx(0.75)
    assert probability(torch.zeros(2, 4, 3), torch.zeros(2, 3, dtype=torch.long)).item() == pytest.approx(0.25)
    assert inverse_mse(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).item() == pytest.approx(0.4)
    assert math.isfinite(inverse_mse(torch.ones(3), torch.ones(3)))
    line = torch.arange(10.0).unsqueeze(1)
    assert clipped_pearson(line, 2 * line + 1).item() == pytest.approx(1)
    assert clipped_pearson(line, -line).item() == 0
