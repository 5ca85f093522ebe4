"""Samples are said to be kept apart only where that follows from the operations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from awc_balance import FisherDiagonal
from awc_balance.fisher.apart import Apart, constants_of
from awc_balance.fisher.calls import Calls
from awc_balance.fisher.proof import LayerRules

X = torch.randn(5, 5)
WEIGHT, BIAS, TABLE = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5, 5))
MAPS = torch.randn(5, 3, 6, 6)


def kept(function, x):
    """Whether a function is known to keep the samples of its input, and its output, apart."""
    x = x.clone()
    apart = Apart([x], constants_of([WEIGHT, BIAS, TABLE]))
    with Calls({}, lambda call: call.run(), apart):
        out = function(x)
    return apart.kept and apart.knows(out)


KEEPING = {
    "linear": (lambda x: F.linear(x, WEIGHT, BIAS), X),
    "layers": (lambda x: F.softplus(torch.tanh(F.relu(F.linear(x, WEIGHT), inplace=True))), X),
    "arithmetic": (lambda x: 2 * (x + x * x - 1) / 3 + BIAS, X),
    "norm": (lambda x: F.layer_norm(x, (5,), BIAS, BIAS), X),
    "dropout that is off": (lambda x: F.dropout(x, 0.5, training=False), X),
    "flat": (lambda x: x.flatten(1), MAPS),
    "pools": (lambda x: F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1), MAPS),
    "kind": (lambda x: x.to(x.device) if x.dim() == 2 else x, X),
}

MIXING = {
    "mean": lambda x: x - x.mean(0),
    "largest": lambda x: x / x.abs().max().clamp(min=10),
    "number": lambda x: x / len(x),
    "shape": lambda x: x / x.shape[0],
    "look": lambda x: x if x.sum() > 0 else 2 * x,
    "all in a row": lambda x: x.flatten(),
    "turned round": lambda x: F.linear(x.T, WEIGHT).T,
    "two kinds": lambda x: x + F.adaptive_avg_pool1d(x, 1).flatten(1).squeeze(1),
    "as a weight": lambda x: F.linear(x, x),
    "as a bias": lambda x: F.linear(x, WEIGHT, x),
    "sample by sample": lambda x: x + TABLE,
    "new numbers": lambda x: x + torch.ones(5),
    "random": lambda x: x + torch.randn(5),
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "norm over all": lambda x: F.layer_norm(x, (5, 5)),
    "batch norm": lambda x: F.batch_norm(x, BIAS.detach(), BIAS.detach(), training=True),
    "written to": lambda x: x.sub_(x.mean(0)),
    "written to aside": lambda x: [x.data.mul_(2), F.relu(x)][1],
    "given output": lambda x: torch.add(x, x, out=x.clone()),
    "another tensor": lambda x: F.relu(X),
    "not a tensor": lambda x: 1.0,
}


@pytest.mark.parametrize("name", KEEPING)
def test_operations_that_keep_samples_apart(name):
    assert kept(*KEEPING[name])


@pytest.mark.parametrize("name", MIXING)
def test_what_may_mix_them(name):
    assert not kept(MIXING[name], X)


def test_what_torch_does_not_report():
    def hidden(x):
        with torch._C.DisableTorchFunction():
            return x - x.mean(0)

    def hidden_write(x):
        with torch._C.DisableTorchFunction():
            x.sub_(x.mean(0))
        return F.relu(x)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x - x.mean(0)

    for function in (hidden, hidden_write, Function.apply, lambda x: F.relu(hidden(x))):
        assert not kept(function, X)


def test_a_constant_that_was_written_to():
    bias = torch.zeros(5)
    constants = constants_of([bias])
    bias.add_(1)
    x = X.clone()
    apart = Apart([x], constants)
    with Calls({}, lambda call: call.run(), apart):
        x + bias
    assert not apart.kept


@pytest.mark.parametrize(("centred", "checks"), [(False, 0), (True, 2)])
def test_only_other_passes_are_checked_by_a_sample_alone(centred, checks, monkeypatch):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            x = self.norm(self.encoder(x)).relu()
            return x - 0 * x.mean(0) if centred else x

    numbers = []
    alone = LayerRules._stands_alone
    monkeypatch.setattr(LayerRules, "_stands_alone", lambda *args: numbers.append(1) or alone(*args))
    model = Model()
    fisher = FisherDiagonal({"m": model})
    fisher.estimate([(torch.randn(7, 6), torch.randn(7, 4)) for _ in range(3)], model, F.mse_loss)
    assert len(numbers) == checks
    assert set(fisher.coverage["m"].values()) == {"rule"}
