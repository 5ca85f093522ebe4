from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi import processes
from examples.mmfi.batches import EpochOrder, evenly, method_batches, training_batches
from examples.mmfi.dataset import PoseFrames
from examples.mmfi.packed import PackedClips
from tests.mmfi.training.runs import awc, settings_for

sizes = st.tuples(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))


def batches_of(order, size):
    frames = list(order)
    assert len(frames) == len(order)
    return [frames[i : i + size] for i in range(0, len(frames), size)]


@given(sizes=sizes, epoch=st.integers(0, 3))
def test_processes_share_the_batches_of_a_single_one(sizes, epoch):
    frames, ranks, share, seed = sizes
    alone = EpochOrder(frames, ranks * share, seed)
    alone.begin(epoch)
    shares = [EpochOrder(frames, ranks * share, seed, rank, ranks) for rank in range(ranks)]
    for order in shares:
        order.begin(epoch)
    whole = batches_of(alone, ranks * share)
    parts = [batches_of(order, share) for order in shares]
    assert len(whole) == alone.steps
    assert [sorted(batch) for batch in whole] == [sorted(chain(*step)) for step in zip(*parts, strict=True)]


@given(sizes=sizes, done=st.integers(0, 60))
def test_skipped_batches_are_the_first_ones(sizes, done):
    frames, ranks, share, seed = sizes
    order = EpochOrder(frames, ranks * share, seed, 0, ranks)
    all_of_it = batches_of(order, share)
    order.begin(0, min(done, order.steps))
    assert batches_of(order, share) == all_of_it[done:]


@given(sizes=sizes)
def test_an_epoch_reads_no_frame_twice_and_leaves_out_less_than_a_batch(sizes):
    frames, _, size, seed = sizes
    read = list(EpochOrder(frames, size, seed))
    assert len(read) == len(set(read)) > frames - size
    assert set(read) <= set(range(frames))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = set()
    for seed in range(3):
        order = EpochOrder(50, 10, seed)
        for epoch in range(3):
            order.begin(epoch)
            orders.add(tuple(order))
    assert len(orders) == 9


@pytest.fixture(scope="module")
def frames(simulated):
    packed = PackedClips(simulated[1])
    return PoseFrames(packed, packed.clips, ("rgb", "wifi"))


def batches(make, frames, **changes):
    return make(frames, settings_for("packed", **changes), torch.device("cpu"))


@pytest.mark.parametrize("make", [training_batches, method_batches])
def test_parts_are_the_batch_in_order(frames, make):
    whole, parted = (batches(make, frames, accumulation=parts, **awc()) for parts in (1, 4))
    assert len(whole) == len(parted) == 5
    for (batch,), parts in zip(whole, parted, strict=True):
        assert [len(target) for _, target in parts] == [4] * 4
        assert torch.equal(torch.cat([target for _, target in parts]), batch[1])
        assert torch.equal(torch.cat([inputs["rgb"] for inputs, _ in parts]), batch[0]["rgb"])


def test_fewer_frames_for_awc_are_the_first_batches(frames):
    limited, whole = (batches(method_batches, frames, method_frames=count) for count in (17, None))
    for _ in range(2):  # an iterator that was not read to its end starts again
        read = list(limited)
        assert len(read) == len(limited) == 2
        for (first,), (second,) in zip(read, whole, strict=False):
            assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("method", [awc(), {"method": "Modality-level"}])
def test_processes_measure_on_their_shares_of_a_batch(frames, monkeypatch, method):
    """As in training: so each measures in a part of the time, and together what one would."""

    def targets():
        return [torch.cat([target for _, target in parts]) for parts in batches(method_batches, frames, **method)]

    alone = targets()
    monkeypatch.setattr(processes, "count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(targets())
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)


@pytest.mark.parametrize("method", [{"method": "Modality-level"}, awc(fisher="per_sample")])
def test_where_no_gradient_of_a_batch_is_squared_a_part_is_a_batch(frames, method):
    whole, parted = (batches(method_batches, frames, accumulation=parts, **method) for parts in (1, 4))
    assert {len(parts) for parts in parted} == {1}
    targets = [torch.cat([part[1] for parts in read for part in parts]) for read in (whole, parted)]
    assert torch.equal(targets[0], targets[1][: len(targets[0])])


def test_processes_that_do_not_divide_a_batch_are_refused(frames, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(ValueError, match="Got `16`, `2` and 3"):
        batches(training_batches, frames, accumulation=2)


@given(frames=st.integers(1, 100), count=st.integers(1, 120))
def test_evenly_spaced_frames_are_distinct_and_in_order(frames, count):
    chosen = evenly(range(frames), count)
    assert len(chosen) == min(frames, count)
    assert chosen == sorted(set(chosen))
