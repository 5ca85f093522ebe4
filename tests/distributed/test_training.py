"""Two processes that train with AWC, each on its own shard, end where one does on the global batches."""

import copy

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from awc_balance import AWCRegularizer
from awc_balance.balancers import AWC
from tests.distributed.test_measurements import same_everywhere, shard_of
from tests.models import Concat, build, loader_of
from tests.processes import in_two_processes
from tests.reference import assert_same

STRONG = {"alpha_superior": 20.0, "alpha_inferior": 5.0, "window": 2}


def train(model, awc, loader, trained=None, epochs=3, closed_form=False):
    """The loop of the README; `trained` is the wrapped model, where there is one."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        awc.start_epoch(loader)
        for inputs, target in loader:
            loss = mse_loss((trained or model)(inputs), target)
            (loss if closed_form else loss + awc()).backward()
            if closed_form:
                awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()


def assert_alike(awc, alone):
    """Equal strengths, groups and history up to rounding, and equal buffers."""
    assert awc.groups == alone.groups
    assert [row["groups"] for row in awc.history] == [row["groups"] for row in alone.history]
    for row, expected in zip(awc.history, alone.history, strict=True):
        assert row["fisher"] == pytest.approx(expected["fisher"], rel=1e-4)
        assert row["contributions"] == pytest.approx(expected["contributions"], abs=1e-5)
    assert_same({"": dict(awc.named_buffers())}, {"": dict(alone.named_buffers())}, rtol=1e-4, atol=1e-6)


def training(rank):
    """The wrapped model or the inner one, the penalty in the loss or in closed form, every form of the diagonals."""
    model = build(Concat, modalities=3)
    loader = loader_of(model, batches=4)
    cases = [("per_batch", True, False), ("per_sample", False, True), ("corrected", False, False)]
    for fisher, give_wrapper, closed_form in cases:
        one, two = copy.deepcopy(model), copy.deepcopy(model)
        alone = AWCRegularizer(one, one.encoders, mse_loss, fisher=fisher, process_group=None, **STRONG)
        train(one, alone, loader, closed_form=closed_form)
        wrapped = DistributedDataParallel(two)
        awc = AWCRegularizer(wrapped if give_wrapper else two, two.encoders, mse_loss, fisher=fisher, **STRONG)
        train(two, awc, shard_of(loader, rank), wrapped, closed_form=closed_form)
        assert_alike(awc, alone)
        same_everywhere([awc.state_dict(), two.state_dict(), awc.history])
        assert_same({"": dict(two.named_parameters())}, {"": dict(one.named_parameters())}, rtol=1e-4, atol=1e-6)
        assert any(alpha > 0 for row in awc.history for alpha in row["alphas"].values())


def sources_of_ones_own(rank):
    """What a function finds on a shard, or what is given, is averaged."""
    model = build(Concat)
    loader = loader_of(model)
    awc = AWCRegularizer(model, model.encoders, mse_loss, contributions=lambda _: {"m0": rank, "m1": 0.25})
    awc.start_epoch(shard_of(loader, rank))
    assert awc.contributions == {"m0": 0.5, "m1": 0.25}
    awc.start_epoch(shard_of(loader, rank), contributions={"m0": 0.0, "m1": 1.0 + rank})
    assert awc.contributions == {"m0": 0.0, "m1": 1.5}
    diagonal = {m: {n: torch.full_like(p, rank) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
    awc.start_epoch(shard_of(loader, rank), fisher=diagonal)
    assert all((buffer == 0.5).all() for name, buffer in awc.named_buffers() if name.startswith("fisher"))
    assert all((value == rank).all() for named in diagonal.values() for value in named.values())
    same_everywhere([awc.state_dict(), awc.history])


def distributed_sampler(rank):
    """A sampler that deals out uneven shards, behind the interface of the methods."""
    model = build(Concat)
    inputs, target = model.batch(23)
    data = TensorDataset(*inputs.values(), target)
    sampler = DistributedSampler(data, num_replicas=2, rank=rank, shuffle=True, seed=1)
    loader = DataLoader(data, batch_size=5, sampler=sampler)
    wrapped = DistributedDataParallel(model)
    step = lambda model, batch: (model({"m0": batch[0], "m1": batch[1]}), batch[2])  # noqa: E731
    awc = AWC(wrapped, model.encoders, mse_loss, step=step, contributions="negative_mse", **STRONG)
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(2):
        sampler.set_epoch(epoch)
        awc.start_epoch(loader)
        for batch in loader:
            awc.loss(batch).backward()
            awc.adjust_gradients_()
            optimizer.step()
            optimizer.zero_grad()
    same_everywhere([awc.state_dict(), model.state_dict()])


def work(rank):
    for check in (training, sources_of_ones_own, distributed_sampler):
        check(rank)


def test_two_processes_train_as_one_does(tmp_path):
    in_two_processes(work, tmp_path)
