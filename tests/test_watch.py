import pytest
import torch
from torch import nn

from awc_balance.watch import Watch


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)))


CHANGES = {
    "a parameter is replaced": lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.detach().clone())),
    "a parameter is removed": lambda m: setattr(m[0], "bias", None),
    "a parameter is added": lambda m: setattr(m[1][0], "bias", nn.Parameter(torch.zeros(4))),
    "a module is replaced": lambda m: m[1].__setitem__(0, nn.Linear(4, 4, bias=False)),
    "a module is added": lambda m: m[1].append(nn.ReLU()),
    "a module is removed": lambda m: m[1].pop(1),
    "the model is cast": lambda m: m.double(),
    "the model is moved": lambda m: m.to("meta"),
    "a parameter is frozen": lambda m: m[1][1].weight.requires_grad_(False),
    "the data has another shape": lambda m: setattr(m[0].weight, "data", torch.zeros(1, 3)),
}

NO_CHANGES = {
    "nothing": lambda m: None,
    "a step of training": lambda m: [p.data.add_(1) for p in m.parameters()],
    "a forward and backward pass": lambda m: m(torch.randn(2, 3)).sum().backward(),
    "evaluation mode": lambda m: m.eval(),
    "a state that is loaded": lambda m: m.load_state_dict(model().state_dict()),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changes_are_noticed(case):
    watched = model()
    watch = Watch([watched[0], watched[1]])
    CHANGES[case](watched)
    assert not watch.unchanged()


@pytest.mark.parametrize("case", NO_CHANGES)
def test_what_training_does_is_no_change(case):
    watched = model()
    watch = Watch([watched])
    NO_CHANGES[case](watched)
    assert watch.unchanged()
