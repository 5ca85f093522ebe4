"""Models that fully_shard spread over processes: what is done element by element works, the rest is refused."""

import copy

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.distributed.test_measurements import same_everywhere, shard_of
from tests.distributed.test_training import STRONG
from tests.models import Concat, build, loader_of
from tests.processes import in_two_processes

OPTIONS = {**STRONG, "alphas": {"m0": 20.0, "m1": 5.0}}


def spread(model, parts):
    """The whole model, or each encoder by itself and then the rest."""
    if parts:
        for encoder in model.encoders.values():
            fully_shard(encoder)
    return fully_shard(model)


def whole(tensors):
    return {name: getattr(value, "full_tensor", lambda value=value: value)().clone() for name, value in tensors.items()}


def close(actual, expected):
    actual, expected = whole(dict(actual)), dict(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


def train(model, awc, loader, closed_form, epochs=3):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        awc.start_epoch(loader)
        for inputs, target in loader:
            loss = mse_loss(model(inputs), target)
            (loss if closed_form else loss + awc()).backward()
            if closed_form:
                awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            model(inputs)  # leaves the outermost module whole


def training(rank):
    model = build(Concat, outputs=5)
    loader = loader_of(model, batches=4)
    for fisher, closed_form, parts in [
        ("per_batch", False, True),
        ("corrected", True, False),
        ("per_batch", False, False),
    ]:
        one, two = copy.deepcopy(model), spread(copy.deepcopy(model), parts)
        alone = AWCRegularizer(one, one.encoders, mse_loss, fisher=fisher, process_group=None, **OPTIONS)
        awc = AWCRegularizer(two, two.encoders, mse_loss, fisher=fisher, **OPTIONS)
        train(one, alone, loader, closed_form)
        train(two, awc, shard_of(loader, rank), closed_form)
        two.reshard()
        close(awc.named_buffers(), alone.named_buffers())
        close(two.named_parameters(), one.named_parameters())
        for row, expected in zip(awc.history, alone.history, strict=True):
            assert row["fisher"] == pytest.approx(expected["fisher"], rel=1e-4)
        same_everywhere(awc.history)


def penalties(rank):
    """The value is the sum over all shards, on every process."""
    model = build(Concat)
    sharded = spread(copy.deepcopy(model), parts=True)
    loader = loader_of(model)
    found = []
    for each, batches in ((model, loader), (sharded, shard_of(loader, rank))):
        group = None if each is model else "auto"
        awc = AWCRegularizer(each, each.encoders, mse_loss, process_group=group, **OPTIONS)
        awc.start_epoch(batches)
        assert float(awc()) == 0
        with torch.no_grad():
            for parameter in each.parameters():
                parameter.add_(0.1)
        state = awc.state_dict()
        again = AWCRegularizer(each, each.encoders, mse_loss, process_group=group, **OPTIONS)
        again.load_state_dict(state)
        assert float(awc()) == float(again()) > 0
        found.append(float(awc()))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    same_everywhere(found[1])


def gradients_are_as_before(rank):
    model = build(Concat)
    model.encoders["m0"][0].bias.requires_grad_(False)
    model = spread(model, parts=True)
    loader = shard_of(loader_of(model), rank)
    mse_loss(model(loader[0][0]), loader[0][1]).backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = whole({name: parameter.grad for name, parameter in trained.items()})
    FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, mse_loss)
    close({name: parameter.grad for name, parameter in trained.items()}, before)
    model.zero_grad()
    FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, mse_loss)
    assert all(parameter.grad is None for parameter in model.parameters())


def updates(rank):
    model = build(Concat)
    loader = loader_of(model)
    alone = FisherDiagonal(model.encoders, "corrected", process_group=None).estimate(loader, model, mse_loss)
    sharded = spread(copy.deepcopy(model), parts=False)
    fisher = FisherDiagonal(sharded.encoders, "corrected")
    for inputs, target in shard_of(loader, rank):
        sharded.zero_grad()
        mse_loss(sharded(inputs), target).backward()
        fisher.update(batch_size=8)
    for modality, named in fisher.compute().items():
        close(named, alone[modality])
    same_everywhere(fisher.trace())
    awc = AWCRegularizer(sharded, sharded.encoders, mse_loss, **OPTIONS)
    awc.start_epoch([], fisher=fisher.compute())
    close(
        {n: b for n, b in awc.named_buffers() if "weight" in n and "fisher/m0" in n},
        {"fisher/m0/0/weight": alone["m0"]["0.weight"]},
    )


def refusals(rank):
    model = spread(build(Concat), parts=True)
    loader = shard_of(loader_of(model), rank)
    with pytest.raises(RuntimeError, match="Contributions should have the whole model"):
        ShapleyContribution(model, model.encoders).evaluate(loader)
    with pytest.raises(RuntimeError, match="Per-sample gradients should have the whole model"):
        FisherDiagonal(model.encoders).estimate(loader, model, mse_loss)
    fisher = FisherDiagonal(model.encoders, "per_batch")
    with pytest.raises(ValueError, match="equally many batches"):
        fisher.estimate(loader[rank:], model, mse_loss)
    with pytest.raises(ValueError, match="batches of one size"):
        fisher.estimate(shard_of(loader_of(model), rank, cut=3), model, mse_loss)
    with pytest.raises(RuntimeError, match="spread by fully_shard over the processes"):
        FisherDiagonal(model.encoders, "per_batch", process_group=None).estimate(loader, model, mse_loss)
    fisher.estimate(loader, model, mse_loss)


def work(rank):
    for check in (training, penalties, gradients_are_as_before, updates, refusals):
        check(rank)


def test_sharded_models(tmp_path):
    in_two_processes(work, tmp_path)
