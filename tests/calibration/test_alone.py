"""What features tell that were learned on one modality alone: `train_alone`, `measure_alone`."""

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from awc_balance import Calibration
from awc_balance.calibration import Estimate, measure_alone, train_alone, verdict
from awc_balance.contributions.features import Features
from tests.diagnose import mixed, sets
from tests.diagnose.families import judged

mse = nn.functional.mse_loss


def drawn(samples=120, seed=0):
    """The target is what `a` tells plus what `b` tells."""
    torch.manual_seed(seed)
    return sets.batches(*sets.both(samples), size=30)


def model(seed=0):
    torch.manual_seed(seed)
    return sets.Fused({"a": 3, "b": 3}, 1, 4, 8)


class Reads(nn.Module):
    """One modality as it is: a model of `b` alone whose features are known."""

    def __init__(self, modality, factor=1.0):
        super().__init__()
        self.encoder, self.modality, self.factor = nn.Identity(), modality, factor

    def forward(self, inputs):
        return self.factor * self.encoder(inputs[self.modality]).sum(1, keepdim=True)


# What is measured.


def test_features_that_are_the_target_add_all_but_its_noise_and_noise_adds_nothing():
    torch.manual_seed(0)
    target = torch.randn(300, 1)
    inputs = {"a": torch.randn(300, 3), "b": torch.randn(300, 3), "target": target + 0.1 * torch.randn(300, 1)}
    held_out, joint = sets.batches(inputs, target), model()
    given_alone = {"a": (told := Reads("target"), told.encoder), "b": (deaf := Reads("b"), deaf.encoder)}
    found = measure_alone(joint, joint.encoders, given_alone, held_out)
    assert 0.98 < found["a"].low < found["a"].high < 0.995  # a hundredth is the noise
    assert found["b"].high < 0.05


def test_a_copy_of_what_the_model_has_adds_nothing():
    data, held_out = drawn(400), drawn(400, 1)
    joint = sets.fit(model(), data, 30, mse, slow=False)
    same = copy.deepcopy(joint)
    found = measure_alone(joint, joint.encoders, {m: (same, same.encoders[m]) for m in ("a", "b")}, held_out)
    assert all(abs(one.value) < 0.05 for one in found.values())


def test_what_is_added_is_what_would_be_lost_without_it():
    """The same numbers from a model that has the features as one more modality, written down in full."""
    held_out = drawn(200)
    joint = model()
    other = model(1)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.extra, self.joint = nn.ModuleList(joint.encoders.values()), other.encoders["b"], joint

        def forward(self, inputs):
            return self.joint(inputs) + 0.0 * self.extra(inputs["b"]).sum()

    whole = Both()
    slopes = Calibration(whole, {"own": whole.own, "extra": whole.extra}).evaluate(held_out)
    found = measure_alone(joint, joint.encoders, {"b": (other, other.encoders["b"])}, held_out)["b"]
    assert found == pytest.approx(slopes.added["extra"], abs=1e-6)
    assert 1 / (1 - found.value) == pytest.approx(1 + slopes.costs["extra"].value)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([1e-3, 0.1, 7.0, 1e4]))
def test_nothing_depends_on_the_unit_of_the_target(unit):
    held_out = drawn(60)
    scaled = [(inputs, unit * target) for inputs, target in held_out]
    known = {"b": (other := Reads("b"), other.encoder)}
    in_unit = {"b": (other_scaled := Reads("b", unit), other_scaled.encoder)}
    parts = {"a": (joint := Reads("a")).encoder}
    parts_in_unit = {"a": (joint_in_unit := Reads("a", unit)).encoder}
    with pytest.raises(ValueError, match="should be some of a"):
        measure_alone(joint, parts, known, held_out)
    found = measure_alone(joint, parts, {"a": known["b"]}, held_out)["a"]
    again = measure_alone(joint_in_unit, parts_in_unit, {"a": in_unit["b"]}, scaled)["a"]
    assert np.allclose(found, again, atol=1e-4)


# How it is trained.


def test_a_starved_modality_shows_in_classes():
    assert judged(sets.classes, "starved", 0).kind == "cannot tell"
    found = judged(sets.classes, "starved", 0, alone=True)
    assert (found.kind, found.modalities) == ("starves", ("x",))


def test_a_starved_modality_shows_in_a_model_with_attention_that_adam_trained():
    found = judged(mixed.attentive, "starved", 1, alone=True)
    assert (found.kind, found.modalities) == ("starves", ("numbers",))


@pytest.mark.parametrize("name", ["balanced", "duplicate", "noise, many", "together"])
def test_nothing_is_starved_where_nothing_is(name):
    found = judged(sets.regression, name, 1, alone=True)
    assert (found.kind, set(found.modalities)) in sets.RIGHT[name]
    assert all(one.alone is not None and one.starved == "no" for one in found.judgements)


def test_only_its_own_encoder_learns_and_the_others_put_out_zeros():
    seen, joint = {}, model()

    def step(some, batch):
        inputs, target = batch
        features = {m: encoder(inputs[m]) for m, encoder in some.encoders.items()}
        if some is not joint and torch.is_grad_enabled():
            seen.setdefault("zero", []).append({m: bool((x == 0).all()) for m, x in features.items()})
            seen["model"] = some
        return some.head(torch.cat([*features.values()], 1)), target

    before = copy.deepcopy(joint.state_dict())
    train_alone(joint, joint.encoders, drawn(), drawn(120, 1), modalities=["b"], epochs=2, step=step)
    trained = seen["model"].state_dict()
    assert all(once == {"a": True, "b": False} for once in seen["zero"])
    assert {name.split(".")[1] for name in trained if not torch.equal(trained[name], before[name])} >= {"b"}
    assert all(torch.equal(trained[name], before[name]) for name in trained if name.startswith("encoders.a."))


def test_frozen_parameters_stay_frozen():
    joint, seen = model(), []
    joint.encoders["b"].requires_grad_(False)

    def adam(parameters):
        seen.extend(parameters)
        return torch.optim.Adam(parameters)

    train_alone(joint, joint.encoders, drawn(), drawn(120, 1), modalities="b", epochs=1, optimizer=adam)
    assert len(seen) == len([p for p in joint.parameters() if p.requires_grad])


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_model_its_gradients_and_the_random_state_stay_as_they_are():
    joint = mixed.Normed({"a": torch.randn(2, 3), "b": torch.randn(2, 3)}, 1)
    mse(joint(drawn()[0][0]), drawn()[0][1]).backward()
    before, gradients = state_of(joint), [p.grad.clone() for p in joint.parameters()]
    generator = torch.Generator().manual_seed(3)
    inputs, target = sets.both(90)
    rows = torch.utils.data.TensorDataset(inputs["a"], inputs["b"], target)
    loader = torch.utils.data.DataLoader(rows, 30, shuffle=True, generator=generator)

    def step(model, batch):
        a, b, target = batch
        return model({"a": a, "b": b}), target

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), generator.get_state()
    first = train_alone(joint, joint.encoders, loader, copy.copy(loader), epochs=2, step=step)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert torch.equal(states[3], generator.get_state())
    assert joint.training
    assert all(torch.equal(before[name], value) for name, value in joint.state_dict().items())
    assert all(torch.equal(old, p.grad) for old, p in zip(gradients, joint.parameters(), strict=True))
    assert first == train_alone(joint, joint.encoders, loader, copy.copy(loader), epochs=2, step=step)


def test_an_interrupted_training_leaves_nothing_behind():
    joint = model()
    before, state, calls = state_of(joint), torch.get_rng_state(), []

    def criterion(prediction, target):
        calls.append(torch.rand(1))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return mse(prediction, target)

    with pytest.raises(KeyboardInterrupt):
        train_alone(joint, joint.encoders, drawn(), drawn(120, 1), criterion=criterion)
    torch.set_rng_state(state)
    assert all(torch.equal(before[name], value) for name, value in joint.state_dict().items())
    assert not any(module._forward_hooks for module in joint.modules())


def test_progress_is_shown_over_epochs_and_the_users_criterion_is_used():
    shown, used = [], []

    def progress(epochs):
        shown.append(len(list(epochs)))
        return range(3)

    def criterion(prediction, target):
        used.append(1)
        return mse(prediction, target)

    joint, data = model(), drawn()
    settings = {"epochs": 3, "criterion": criterion, "progress": progress}
    train_alone(joint, joint.encoders, data, drawn(120, 1), modalities=["a", "b"], **settings)
    assert shown == [3, 3]
    assert len(used) == 2 * 3 * len(data)


@pytest.mark.parametrize("loss", ["auto", "cross_entropy", "binary_cross_entropy"])
def test_losses_for_classes(loss):
    torch.manual_seed(0)
    outputs = 1 if loss == "binary_cross_entropy" else 2
    joint = sets.Fused({"a": 3, "b": 3}, outputs, 4, 8)
    data = [(inputs, (target > 0).float() if outputs == 1 else (target[:, 0] > 0).long()) for inputs, target in drawn()]
    found = train_alone(joint, joint.encoders, data, list(data), loss=loss, epochs=20)
    assert found["a"].low <= found["a"].value <= found["a"].high


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float16])
def test_yes_or_no_targets_of_any_kind(dtype):
    joint = model()
    data = [(inputs, (target > 0).to(dtype)) for inputs, target in drawn()]
    expected = [(inputs, target.float()) for inputs, target in data]
    settings = {"loss": "binary_cross_entropy", "epochs": 2}
    found = train_alone(joint, joint.encoders, data, list(data), **settings)
    assert found == train_alone(joint, joint.encoders, expected, list(expected), **settings)


def test_measured_without_gradients_and_in_inference_mode():
    joint, data = model(), drawn(60)
    expected = train_alone(joint, joint.encoders, data, list(data), epochs=1)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert train_alone(joint, joint.encoders, data, list(data), epochs=1) == expected


def test_encoders_outside_a_coalition_put_out_zeros_until_it_is_left():
    joint, (inputs, _) = model(), drawn()[0]
    features = Features(joint.encoders)

    def outputs():
        return {m: encoder(inputs[m]) for m, encoder in joint.encoders.items()}

    before = outputs()
    with features.only({"a"}):
        inside = outputs()
    assert torch.equal(inside["a"], before["a"])
    assert not inside["b"].any()
    assert all(torch.equal(x, before[m]) for m, x in outputs().items())


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"model": 3}, TypeError, "`model` should be an nn.Module"),
        ({"encoders": {}}, ValueError, "at least one modality"),
        ({"modalities": ["c"]}, ValueError, "`modalities` should be some of a, b. Got c."),
        ({"epochs": 0}, ValueError, "`epochs`"),
        ({"epochs": 1.5}, ValueError, "`epochs`"),
        ({"loss": "mae"}, ValueError, "`loss`"),
        ({"criterion": 3}, TypeError, "`criterion`"),
        ({"optimizer": 3}, TypeError, "`optimizer`"),
        ({"step": 3}, TypeError, "`step`"),
        ({"training": iter([])}, ValueError, "`training` should be a loader, which is read more than once"),
        ({"held_out": iter([])}, ValueError, "`held_out` should be a loader, which is read more than once"),
        ({"training": []}, ValueError, "should yield at least one batch"),
        ({"held_out": []}, ValueError, "should yield at least one batch"),
        ({"held_out": drawn(39)}, ValueError, "`held_out` should hold 40 samples or more"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(changes, error, match):
    joint, trained = model(), []
    arguments = {"model": joint, "encoders": joint.encoders, "training": drawn(60), "held_out": drawn(60)} | changes
    criterion = changes.get("criterion", lambda *pair: trained.append(1) or mse(*pair))
    with pytest.raises(error, match=match):
        train_alone(**arguments | {"criterion": criterion})
    assert not trained


def test_training_data_are_not_held_out():
    joint, data = model(), drawn(60)
    with pytest.raises(ValueError, match="Got one list for both"):
        train_alone(joint, joint.encoders, data, data)


class InUnits(sets.Fused):
    """Predicts in another unit, with the same parameters."""

    unit = 1.0

    def forward(self, inputs):
        return self.unit * super().forward(inputs)


@pytest.mark.parametrize("unit", [2.0**20, 2.0**-20])
def test_a_small_unit_does_not_keep_a_copy_from_learning(unit):
    """Adam adds a constant to the size of gradients, which those of small units never reach."""

    def added(unit):
        torch.manual_seed(0)
        joint = InUnits({"a": 3, "b": 3}, 1, 4, 8)
        joint.unit = unit
        data = ([(inputs, unit * target) for inputs, target in drawn(*some)] for some in ((120, 0), (120, 1)))
        return train_alone(joint, joint.encoders, *data, epochs=5)

    expected, found = added(1.0), added(unit)
    assert expected["a"].value > 0.1
    for modality, one in expected.items():
        assert list(found[modality]) == pytest.approx(list(one), rel=1e-4, abs=1e-6)


class Keeps(sets.Fused):
    """A model that keeps its last output."""

    def forward(self, inputs):
        self.last = super().forward(inputs)
        return self.last


def test_what_cannot_be_copied_can_be_measured():
    joint = Keeps({"a": 3, "b": 3}, 1, 4, 8)
    joint(drawn()[0][0])
    with pytest.raises(RuntimeError, match=r"copy.deepcopy takes.*measure_alone"):
        train_alone(joint, joint.encoders, drawn(), drawn(120, 1))
    assert not any(module._forward_hooks for module in joint.modules())


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"criterion": lambda *pair: torch.tensor(float("nan"))}, ValueError, "Trained on `a` alone it is nan"),
        ({"criterion": lambda p, t: (p - t).square()}, ValueError, r"Trained on `a` alone it is \(30, 1\)"),
        ({"optimizer": lambda parameters: None}, TypeError, "`optimizer` should make an optimizer. Got NoneType"),
    ],
)
def test_training_that_fails_says_of_whom(changes, error, match):
    joint = model()
    with pytest.raises(error, match=match):
        train_alone(joint, joint.encoders, drawn(60), drawn(60), **changes)


def test_nothing_can_be_trained_where_all_is_frozen():
    joint = model().requires_grad_(False)
    with pytest.raises(ValueError, match="Some parameters should be trained. All of the model's are frozen"):
        train_alone(joint, joint.encoders, drawn(60), drawn(60))


@pytest.mark.parametrize(
    ("alone", "error", "match"),
    [
        (lambda m: {"a": m.encoders["a"]}, TypeError, r"should hold pairs \(model, encoder\). Got Sequential for `a`"),
        (lambda m: {"a": (m, m.encoders["a"])}, ValueError, "Got one for `a` that shares parameters with the model"),
        (lambda m: {"c": (model(), m.encoders["a"])}, ValueError, "should be some of a, b. Got c."),
    ],
)
def test_models_of_one_modality_are_given_with_their_encoders(alone, error, match):
    joint = model()
    with pytest.raises(error, match=match):
        measure_alone(joint, joint.encoders, alone(joint), drawn(60))


def test_what_it_gives_is_what_verdict_takes():
    data, held_out = drawn(400), drawn(400, 1)
    joint = sets.fit(model(), data, 20, mse, slow=False)
    calibration = Calibration(joint, joint.encoders)
    alone = train_alone(joint, joint.encoders, data, held_out, epochs=2)
    assert all(isinstance(one, Estimate) for one in alone.values())
    found = verdict(calibration.evaluate(data, costs=False), calibration.evaluate(held_out), alone)
    assert {one.modality: one.alone for one in found.judgements} == alone
