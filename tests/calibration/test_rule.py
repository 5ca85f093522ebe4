"""`AWCRegularizer(rule="calibration")`: whom it holds back, and that it leaves all else alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer
from awc_balance.balancers import AWC
from tests.models import Concat, build, loader_of


class Two(nn.Module):
    """A signal in few columns, and noise in many, which a network of this width learns by heart."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.encoders = nn.ModuleDict(
            {
                "signal": nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()),
                "noise": nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()),
            }
        )
        self.head = nn.Linear(32, 2)

    def forward(self, inputs):
        return self.head(torch.cat([self.encoders[m](inputs[m]) for m in self.encoders], 1))


def samples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(count, 4, generator=generator)
    target = torch.stack([signal[:, 0] * signal[:, 1], signal[:, 2]], 1) + 0.5 * torch.randn(
        count, 2, generator=generator
    )
    return {"signal": signal, "noise": torch.randn(count, 64, generator=generator)}, target


def batches_of(batch, size=16):
    inputs, target = batch
    return [
        ({m: x[i : i + size] for m, x in inputs.items()}, target[i : i + size]) for i in range(0, len(target), size)
    ]


TRAIN, HELD_OUT, TEST = batches_of(samples(96, 1)), [samples(400, 2)], samples(2000, 3)


def rule_of(model, **options):
    return AWCRegularizer(model, model.encoders, mse_loss, rule="calibration", **{"held_out": HELD_OUT, **options})


def train(model, loader, awc=None, epochs=25, loss=mse_loss, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        if awc is not None:
            awc.start_epoch(loader)
        for inputs, target in loader:
            value = loss(model(inputs), target)
            (value if awc is None else value + awc()).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_holds_back_what_overfits_and_nothing_else():
    plain, held = train(Two(), TRAIN), Two()
    awc = rule_of(held, batches=None)
    train(held, TRAIN, awc)
    assert awc.alphas["noise"] > 0.3
    assert awc.alphas["signal"] < 0.1
    inputs, target = TEST
    with torch.no_grad():
        assert mse_loss(held(inputs), target) < 0.95 * mse_loss(plain(inputs), target)


def test_says_what_it_saw():
    awc = rule_of(Two(), batches=None)
    train(awc._user.model, TRAIN, awc, epochs=20)
    row = awc.history[-1]
    assert set(row["slopes"]) == {"training", "held_out"}
    assert row["slopes"]["held_out"]["noise"] < row["slopes"]["training"]["noise"]
    assert row["alphas"] == awc.alphas
    assert row["shares"]["noise"] < awc.history[0]["shares"]["noise"]
    assert row["groups"] == {}


def test_does_bitwise_nothing_where_nothing_is_wrong():
    """On held-out data that are the training data nothing can overfit."""
    plain, watched = train(Two(), TRAIN), Two()
    train(watched, TRAIN, rule_of(watched, held_out=list(TRAIN), batches=None))
    assert torch.equal(flat(plain), flat(watched))


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_trains_the_same_in_any_unit_of_the_loss(unit):
    """Adam does not see the unit; with the paper's alphas it would."""
    runs = []
    for scale in (1.0, unit):
        model = Two().double()
        data = [({m: x.double() for m, x in inputs.items()}, target.double()) for inputs, target in TRAIN]
        others = [({m: x.double() for m, x in inputs.items()}, target.double()) for inputs, target in HELD_OUT]

        def loss(prediction, target, scale=scale):
            return scale * mse_loss(prediction, target)

        awc = AWCRegularizer(model, model.encoders, loss, rule="calibration", held_out=others, batches=None)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-30)
        runs.append(flat(train(model, data, awc, loss=loss, optimizer=optimizer)))
        assert awc.alphas["noise"] > 0
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-6, atol=1e-9)


def test_resumes_bit_for_bit_in_the_middle_of_an_epoch():
    def start():
        model = Two()
        return model, rule_of(model, batches=None), torch.optim.Adam(model.parameters(), lr=3e-3)

    model, awc, optimizer = start()
    train(model, TRAIN, awc, epochs=15, optimizer=optimizer)
    awc.start_epoch(TRAIN)
    assert any(awc.alphas.values())
    saved = copy.deepcopy([model.state_dict(), awc.state_dict(), optimizer.state_dict()])
    again, awc_again, optimizer_again = start()
    for part, state in zip((again, awc_again, optimizer_again), saved, strict=True):
        part.load_state_dict(state)
    for one, regularizer, steps in ((model, awc, optimizer), (again, awc_again, optimizer_again)):
        for inputs, target in TRAIN:
            (mse_loss(one(inputs), target) + regularizer()).backward()
            steps.step()
            steps.zero_grad()
        train(one, TRAIN, regularizer, epochs=2, optimizer=steps)
    assert torch.equal(flat(model), flat(again))
    assert awc.alphas == awc_again.alphas


def test_leaves_random_state_and_the_model_alone():
    model = build(Concat)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    rule_of(model, held_out=loader_of(model, seed=1)).start_epoch(loader_of(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_encoders_have_no_strength():
    model = Two()
    train(model, TRAIN, epochs=20)
    model.encoders["noise"].requires_grad_(False)
    awc = rule_of(model, batches=None)
    awc.start_epoch(TRAIN)
    assert awc.history[-1]["slopes"]["held_out"]["noise"] < 0.9
    assert awc.alphas["noise"] == 0


def test_says_its_rule():
    assert "rule='calibration'" in repr(rule_of(Two()))


def test_ends_with_the_window():
    model = Two()
    awc = rule_of(model, window=12, batches=None)
    train(model, TRAIN, awc, epochs=12)
    assert any(awc.alphas.values())
    awc.start_epoch(TRAIN)
    assert not any(awc.alphas.values())
    assert not awc.active
    assert awc() == 0


def test_stays_open_without_a_window():
    model = Two()
    awc = rule_of(model)
    for _ in range(25):
        awc.start_epoch(TRAIN)
    assert awc.active


def test_behind_the_interface_of_the_methods():
    model = Two()
    balancer = AWC(model, model.encoders, mse_loss, rule="calibration", held_out=HELD_OUT, batches=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(25):
        balancer.start_epoch(TRAIN)
        for batch in TRAIN:
            balancer.loss(batch).backward()
            balancer.adjust_gradients_()
            optimizer.step()
            optimizer.zero_grad()
    expected = Two()
    awc = rule_of(expected, batches=None)
    train(expected, TRAIN, awc)
    assert balancer.active
    assert balancer.regularizer.alphas == pytest.approx(awc.alphas, abs=0.02)


def test_training_data_are_not_held_out():
    model = Two()
    awc = rule_of(model)
    with pytest.raises(ValueError, match="Held-out data should be some that the model is not trained on"):
        awc.start_epoch(HELD_OUT)
    assert (awc.epoch, awc.history) == (0, [])
    awc.start_epoch(TRAIN)
    with pytest.raises(ValueError, match="Held-out data should be some that the model is not trained on"):
        awc.verdict(HELD_OUT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": None}, "held_out=loader"),
        ({"held_out": iter(HELD_OUT)}, "can be read once"),
        ({"alphas": {"signal": 0.0, "noise": 1.0}}, "Got `alphas` too"),
        ({"scale": "mean"}, "Got `scale` too"),
        ({"grouping": lambda contributions: contributions}, "Got `grouping` too"),
        ({"alpha_superior": 1.0}, "Got `alpha_superior` too"),
        ({"alpha_inferior": 1.0}, "Got `alpha_inferior` too"),
        ({"fisher": "per_sample"}, "Got `fisher` too"),
        ({"contributions": {"signal": 1.0, "noise": 0.0}}, "Got `contributions` too"),
        ({"rule": "other"}, "`rule` should be one of"),
        ({"rule": "paper"}, "belongs to rule='calibration'"),
    ],
)
def test_bad_options(options, message):
    model = Two()
    options = {"rule": "calibration", "held_out": HELD_OUT, **options}
    with pytest.raises(ValueError, match=message):
        AWCRegularizer(model, model.encoders, mse_loss, **options)


@pytest.mark.parametrize("given", [{"contributions": {"signal": 1.0, "noise": 0.0}}, {"fisher": {}}])
def test_an_epoch_takes_nothing_that_the_rule_measures(given):
    awc = rule_of(Two())
    with pytest.raises(ValueError, match="measures what it needs by itself"):
        awc.start_epoch(TRAIN, **given)
    assert awc.epoch == 0


@pytest.mark.parametrize(("saved", "own"), [("paper", "calibration"), ("calibration", "paper")])
def test_refuses_the_state_of_the_other_rule(saved, own):
    model = Two()

    def regularizer(rule):
        return rule_of(model) if rule == "calibration" else AWCRegularizer(model, model.encoders, mse_loss)

    with pytest.raises(ValueError, match=f"of the same rule, '{own}'. Got '{saved}'"):
        regularizer(own).load_state_dict(regularizer(saved).state_dict())


@pytest.mark.parametrize(("held_out", "error"), [([], ValueError), (3, TypeError)])
def test_says_that_it_is_the_held_out_data(held_out, error):
    awc = rule_of(Two(), held_out=held_out)
    with pytest.raises(error, match="`held_out` could not be measured"):
        awc.start_epoch(TRAIN)


def test_reads_all_held_out_batches_and_a_few_training_batches():
    read = {"train": 0, "held out": 0}

    class Counted:
        def __init__(self, name, batches):
            self.name, self.batches = name, batches

        def __iter__(self):
            for batch in self.batches:
                read[self.name] += 1
                yield batch

    held_out = batches_of(HELD_OUT[0])
    rule_of(Two(), held_out=Counted("held out", held_out), batches=2).start_epoch(Counted("train", TRAIN))
    assert read == {"train": 2, "held out": len(held_out)}


def test_a_failure_leaves_the_epoch_before():
    model = Two()
    broken = [(HELD_OUT[0][0], torch.full_like(HELD_OUT[0][1], torch.nan))]
    awc = rule_of(model, held_out=broken)
    with pytest.raises(ValueError, match="finite"):
        awc.start_epoch(TRAIN)
    assert awc.epoch == 0
    assert awc.history == []


def test_learns_from_the_targets_that_they_are_classes():
    model = Two()
    classes = [(inputs, (target[:, 0] > 0).long()) for inputs, target in TRAIN]
    others = [(inputs, (target[:, 0] > 0).long()) for inputs, target in HELD_OUT]
    awc = AWCRegularizer(
        model, model.encoders, nn.functional.cross_entropy, rule="calibration", held_out=others, batches=None
    )
    train(model, classes, awc, epochs=2, loss=nn.functional.cross_entropy)
    assert set(awc.history[-1]["slopes"]["held_out"]) == {"signal", "noise"}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_a_handful_of_held_out_samples_holds_nobody_back_and_that_is_said(count):
    plain, watched = train(Two(), TRAIN, epochs=6), Two()
    inputs, target = HELD_OUT[0]
    few = [({m: x[:count] for m, x in inputs.items()}, target[:count])]
    with pytest.warns(UserWarning, match="Held-out batches should hold ten samples or more"):
        train(watched, TRAIN, rule_of(watched, held_out=few), epochs=6)
    assert torch.equal(flat(plain), flat(watched))
