"""What two processes measure on shards equals what one measures on the global batches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

from awc_balance import FisherDiagonal, ShapleyContribution
from awc_balance.processes import Processes
from tests.models import Concat, Convolutional, build, loader_of
from tests.processes import in_two_processes
from tests.reference import assert_same

FORMS = ["per_sample", "per_batch", "corrected"]


def shard_of(loader, rank, cut=None):
    """The first samples of every batch for process 0, the rest for process 1."""

    def part(x):
        at = len(x) // 2 if cut is None else cut
        return x[:at] if rank == 0 else x[at:]

    return [({m: part(x) for m, x in inputs.items()}, part(target)) for inputs, target in loader]


def same_everywhere(value):
    found = Processes().gathered(value)
    assert all(torch.utils._pytree.tree_all(lambda equal: equal, equal_trees(found[0], other)) for other in found[1:])


def equal_trees(first, second):
    def equal(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return torch.utils._pytree.tree_map(equal, first, second)


def close(result, expected):
    assert dict(result) == pytest.approx(dict(expected), abs=1e-6)
    assert result.profits == pytest.approx(expected.profits, abs=1e-6)
    for modality, value in expected.per_output.items():
        torch.testing.assert_close(result.per_output[modality], value, rtol=1e-5, atol=1e-6)
    for modality, interval in expected.intervals.items():
        assert result.intervals[modality] == pytest.approx(interval, abs=1e-5)


def contributions(rank):
    """Also of uneven shards, in a loop, and where both read the same."""
    model = build(Concat, modalities=3)
    loader = loader_of(model, batches=5)
    for profit in ("pearson", "negative_mse"):
        alone = ShapleyContribution(model, model.encoders, profit, process_group=None).evaluate(loader)
        together = ShapleyContribution(model, model.encoders, profit)
        result = together.evaluate(shard_of(loader, rank))
        same_everywhere(dict(result))
        close(result, alone)
        close(together.evaluate(shard_of(loader, rank, cut=3)), alone)
        close(together.evaluate(loader), alone)
        wrapped = ShapleyContribution(DistributedDataParallel(model), model.encoders, profit)
        close(wrapped.evaluate(shard_of(loader, rank)), alone)
        for batch in shard_of(loader, rank):
            together.update(batch)
        close(together.compute(), alone)
        whole = loader[:3] if rank == 0 else loader[3:]
        assert dict(together.evaluate(whole)) == pytest.approx(dict(alone), abs=1e-6)


def additive_in_one_process_only(rank):
    """Covariances stand for all coalitions only where the head adds up in every process."""
    model = build(Concat, modalities=4).double()
    loader = [({m: x.double() for m, x in inputs.items()}, y.double()) for inputs, y in loader_of(model, batches=3)]
    linear = copy.deepcopy(model)
    linear.head[1] = nn.Identity()
    bent = copy.deepcopy(linear)
    if rank == 1:
        bent.head[1] = nn.ReLU()
    for each, route in ((linear, "additive"), (bent, "together")):
        table = ShapleyContribution(each, each.encoders, fast=False).evaluate(shard_of(loader, rank))
        result = ShapleyContribution(each, each.encoders).evaluate(shard_of(loader, rank))
        same_everywhere([dict(result), result.route])
        assert result.route == route
        close(result, table)


def fisher_diagonals(rank):
    model = build(Concat, modalities=3)
    loader = loader_of(model, batches=4)
    for form in FORMS:
        alone = FisherDiagonal(model.encoders, form, process_group=None).estimate(loader, model, mse_loss)
        fisher = FisherDiagonal(model.encoders, form)
        diagonal = fisher.estimate(shard_of(loader, rank), model, mse_loss)
        same_everywhere(diagonal)
        assert_same(diagonal, alone)
        assert_same(fisher.estimate(shard_of(loader, rank, cut=3), DistributedDataParallel(model), mse_loss), alone)
        assert_same(fisher.estimate(loader, model, mse_loss), alone)  # the same batches in both


def fewer_batches_in_one_process(rank):
    """A global batch is what the processes that still have a batch make of it."""
    model = build(Concat, modalities=3)
    loader = loader_of(model, batches=5)
    halves = shard_of(loader, rank)
    own = halves if rank == 0 else halves[:3]
    joint = loader[:3] + shard_of(loader, 0)[3:]
    for form in FORMS:
        alone = FisherDiagonal(model.encoders, form, process_group=None).estimate(joint, model, mse_loss)
        diagonal = FisherDiagonal(model.encoders, form).estimate(own, model, mse_loss)
        same_everywhere(diagonal)
        assert_same(diagonal, alone)


def limited_samples(rank):
    model = build(Concat)
    loader = loader_of(model, batches=4)
    for form in FORMS:
        first = loader[:2]
        alone = FisherDiagonal(model.encoders, form, process_group=None).estimate(first, model, mse_loss)
        fisher = FisherDiagonal(model.encoders, form, samples=16)
        assert_same(fisher.estimate(shard_of(loader, rank), model, mse_loss), alone)
    one = FisherDiagonal(model.encoders, samples=1).estimate(shard_of(loader, rank), model, mse_loss)
    only = [({m: x[:1] for m, x in loader[0][0].items()}, loader[0][1][:1])]
    assert_same(one, FisherDiagonal(model.encoders, process_group=None).estimate(only, model, mse_loss))


def buffers_of_process_0(rank):
    """Batch-norm statistics that differ are those of process 0 while measuring, and its own again afterwards."""
    model = build(Convolutional).eval()
    first = copy.deepcopy(model)
    loader = loader_of(model, batches=4)
    model.encoders["image"][1].running_mean.add_(rank)
    before = model.encoders["image"][1].running_mean.clone()
    pending = mse_loss(model(loader[0][0]), loader[0][1])
    alone = FisherDiagonal(first.encoders, process_group=None).estimate(loader, first, mse_loss)
    assert_same(FisherDiagonal(model.encoders).estimate(shard_of(loader, rank), model, mse_loss), alone)
    close(
        ShapleyContribution(model, model.encoders).evaluate(shard_of(loader, rank)),
        ShapleyContribution(first, first.encoders, process_group=None).evaluate(loader),
    )
    assert torch.equal(model.encoders["image"][1].running_mean, before)
    pending.backward()  # its graph is whole


def updates_from_exchanged_gradients(rank):
    """`update` takes the gradients that DistributedDataParallel left, which are those of the global batch."""
    model = build(Concat)
    wrapped, loader = DistributedDataParallel(model), loader_of(model)
    for form in ("per_batch", "corrected"):
        fisher = FisherDiagonal(model.encoders, form)
        for inputs, target in shard_of(loader, rank):
            model.zero_grad()
            mse_loss(wrapped(inputs), target).backward()
            fisher.update(batch_size=8)
        alone = FisherDiagonal(model.encoders, form, process_group=None).estimate(loader, model, mse_loss)
        assert_same(fisher.compute(), alone)
        same_everywhere(fisher.trace())


def work(rank):
    for check in (
        contributions,
        additive_in_one_process_only,
        fisher_diagonals,
        fewer_batches_in_one_process,
        limited_samples,
        buffers_of_process_0,
        updates_from_exchanged_gradients,
    ):
        check(rank)


def test_two_processes_measure_what_one_does(tmp_path):
    in_two_processes(work, tmp_path)
