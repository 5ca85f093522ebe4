"""How the size of features hangs on that of parameters, and the pull that follows from it."""

import copy
from math import log

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer
from awc_balance.batches import default_step
from awc_balance.calibration.elasticity import elasticities
from awc_balance.calibration.pull import pull_to_zero
from tests.models import Concat, build


class Net(nn.Module):
    """Encoders of one input each, and a linear head."""

    def __init__(self, **encoders):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        return self.head(torch.cat([encoder(x).flatten(1) for encoder in self.encoders.values()], 1))


def net(*layers, seed=0):
    torch.manual_seed(seed)
    model = Net(a=nn.Sequential(*layers)).double()
    model(torch.randn(8, 4).double())
    return model


def batch(seed=1, samples=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 4, generator=generator).double(), torch.randn(samples, 2, generator=generator).double()


def found(model, of=None):
    values = elasticities(model, dict(model.encoders), default_step, batch() if of is None else of)
    return {name: value.item() for name, value in values["a"].items()}


def spread(model, x):
    model = copy.deepcopy(model).train()
    torch.manual_seed(7)
    feature = model.encoders["a"](x)
    return (feature - feature.mean(0)).square().sum().sqrt().item()


@pytest.mark.parametrize("layers", [
    (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
    (nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Sigmoid()),
    (nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
    (nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)),
])  # fmt: skip
def test_equals_the_derivative_by_finite_differences(layers):
    model = net(*layers)
    x, small = batch()[0], 1e-5
    for name, value in found(model).items():
        ends = []
        for factor in (1 + small, 1 - small):
            scaled = copy.deepcopy(model)
            with torch.no_grad():
                dict(scaled.encoders["a"].named_parameters())[name].mul_(factor)
            ends.append(log(spread(scaled, x)))
        assert value == pytest.approx((ends[0] - ends[1]) / (2 * small), abs=1e-4), name


def test_of_a_last_linear_layer_is_1():
    assert found(net(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False)))["2.weight"] == pytest.approx(1.0)


def test_of_every_layer_without_bias_before_a_relu_is_1():
    model = net(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.ReLU())
    assert list(found(model).values()) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), nn.LayerNorm(6)])
def test_of_what_a_normalisation_follows_is_0(norm):
    values = found(net(nn.Linear(4, 6, bias=False), norm, nn.ReLU(), nn.Linear(6, 3)))
    assert values["0.weight"] == pytest.approx(0.0, abs=1e-4)
    assert values["3.weight"] == pytest.approx(1.0)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_an_additive_constant_counts_for_nothing(samples):
    """Only what varies between samples can fit noise."""
    assert found(net(nn.Linear(4, 3)), batch(samples=samples))["0.bias"] == pytest.approx(0.0)


def test_frozen_parameters_have_none():
    model = net(nn.Linear(4, 3))
    model.encoders["a"][0].weight.requires_grad_(False)
    assert found(model) == {"0.weight": 0.0, "0.bias": 0.0}


def test_of_features_that_are_all_the_same_there_is_none():
    model = net(nn.Linear(4, 3))
    nn.init.zeros_(model.encoders["a"][0].weight)
    assert found(model) == {"0.weight": 0.0, "0.bias": 0.0}


def test_the_model_itself_predicts_as_when_it_is_measured():
    """Some put out losses, or more than a prediction, in training mode."""

    class Own(Net):
        def forward(self, x):
            return {"loss": 0.0} if self.training else super().forward(x)

    torch.manual_seed(0)
    model = Own(a=nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3))).double()
    model.eval()(batch()[0])
    model.train()
    assert found(model)["0.weight"] == pytest.approx(0.0, abs=1e-3)


def test_leaves_everything_as_it_was():
    model = net(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).eval()
    before, random, given = copy.deepcopy(model.state_dict()), torch.get_rng_state(), batch()
    found(model, given)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(given, batch(), strict=True))


def diagonal_of(model, value=4.0):
    return {
        m: {n: torch.full_like(p, value) for n, p in encoder.named_parameters()}
        for m, encoder in model.encoders.items()
    }


def test_the_pull_is_as_strong_as_the_gradient_at_strength_1():
    model = build(Concat)
    alike = {m: {n: torch.tensor(1.0) for n, _ in e.named_parameters()} for m, e in model.encoders.items()}
    for modality, named in pull_to_zero(model.encoders, diagonal_of(model), alike).items():
        parameters = dict(model.encoders[modality].named_parameters())
        pull = torch.cat([2 * weight.flatten() * parameters[name].flatten() for name, weight in named.items()])
        assert pull.square().mean().sqrt().item() == pytest.approx(2.0, rel=1e-5)


def test_zero_parameters_are_not_pulled():
    model = net(nn.Linear(4, 3))
    for parameter in model.encoders.parameters():
        nn.init.zeros_(parameter)
    known = elasticities(model, dict(model.encoders), default_step, batch())
    assert not any(weight.any() for weight in pull_to_zero(model.encoders, diagonal_of(model), known)["a"].values())


def test_what_a_normalisation_follows_is_not_pulled():
    """A pull would leave its features as they are, and only make its steps longer."""
    model = net(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    known = elasticities(model, dict(model.encoders), default_step, batch())
    weights = pull_to_zero(model.encoders, diagonal_of(model), known)["a"]
    assert weights["0.weight"].abs().max() < 1e-3 * weights["3.weight"].abs().max()


def test_a_regularizer_pulls_by_it():
    """One step of plain descent along the pull alone: features shrink, and normalised weights stay."""
    model = net(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    awc = AWCRegularizer(model, model.encoders, mse_loss, rule="calibration", held_out=[batch(2)])
    awc._rule.decide = lambda before, loader: Pulled({"a": 1.0})
    awc.start_epoch([batch()])
    awc.add_gradient_()
    gradients = {name: parameter.grad for name, parameter in model.encoders["a"].named_parameters()}
    assert gradients["3.weight"].abs().max() > 300 * gradients["0.weight"].abs().max()
    assert (gradients["3.weight"] * model.encoders["a"][3].weight).sum() > 0


class Pulled:
    """A decision."""

    def __init__(self, strengths):
        self.strengths = strengths

    def row(self):
        return {}
