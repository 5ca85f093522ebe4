"""The measures of the pose examples against plain computations on all frames at once."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from awc_balance import ShapleyContribution
from examples.measures import contributions, error_sums, evaluated, mean_errors, pose_pairs, spread
from examples.pose_metrics import mpjpe, pa_mpjpe

JOINTS = 5


class Fused(nn.Module):
    """Two encoders with batch norm and dropout, so that training mode shows."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))})
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3 * JOINTS))

    def forward(self, inputs):
        features = [encoder(inputs[name]) for name, encoder in self.encoders.items()]
        return self.head(torch.cat(features, 1)).reshape(-1, JOINTS, 3)


def data(frames=24):
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(frames, width, generator=generator) for name, width in (("a", 3), ("b", 2))}
    return inputs, torch.randn(frames, JOINTS, 3, generator=generator)


def split(batch, sizes):
    inputs, target = batch
    parts = {name: values.split(sizes) for name, values in inputs.items()}
    return [({name: parts[name][i] for name in parts}, part) for i, part in enumerate(target.split(sizes))]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Fused()


@given(cuts=st.sets(st.integers(1, 23), max_size=5))
def test_errors_do_not_depend_on_the_batches(model, cuts):
    edges = [0, *sorted(cuts), 24]
    sizes = [b - a for a, b in pairwise(edges)]
    errors = mean_errors(error_sums(model, split(data(), sizes)))
    with evaluated(model):
        prediction, target = model(data()[0]), data()[1]
    assert errors["mpjpe_mm"] == pytest.approx(1000 * mpjpe(prediction, target).item(), rel=1e-6)
    assert errors["pa_mpjpe_mm"] == pytest.approx(1000 * pa_mpjpe(prediction, target).item(), rel=1e-6)


def test_sums_of_shares_add_up(model):
    parts = split(data(), [9, 7, 8])
    shares = error_sums(model, parts[:1]) + error_sums(model, parts[1:])
    torch.testing.assert_close(shares, error_sums(model, parts))


def test_spread_is_the_standard_deviation_of_predictions_from_one_modality(model):
    measured = spread(model, model.encoders, split(data(), [10, 2, 12]))
    with evaluated(model):
        inputs, target = data()
        features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
        for name in features:
            kept = [value if other == name else torch.zeros_like(value) for other, value in features.items()]
            expected = 1000 * model.head(torch.cat(kept, 1)).std(0).mean()
            assert measured[name] == pytest.approx(expected.item(), rel=1e-5)
    assert measured["target"] == pytest.approx(1000 * target.std(0).mean().item(), rel=1e-5)


def test_contributions_are_those_of_the_library(model):
    batches = split(data(), [12, 12])
    for profit, values in contributions(model, model.encoders, batches).items():
        assert values == dict(ShapleyContribution(model, model.encoders, profit).evaluate(batches))


def test_measuring_leaves_the_model_as_it_was(model):
    model.train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    batches = split(data(), [12, 12])
    error_sums(model, batches)
    spread(model, model.encoders, batches)
    pose_pairs(model, batches[0])
    assert model.training
    assert not model.head.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_poses_are_whole_millimetres(model):
    pairs = pose_pairs(model, data(2))
    assert pairs["true"][1][2][0] == round(1000 * data(2)[1][1, 2, 0].item())
    assert [len(pairs["predicted"]), len(pairs["predicted"][0])] == [2, JOINTS]
