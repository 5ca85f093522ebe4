import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data.distributed import DistributedSampler

from examples.mmfi.conventions import MMWAVE_COLUMNS, MODALITIES, Conventions
from examples.mmfi.csi import clean_csi
from examples.mmfi.dataset import PoseFrames, frame_loader
from examples.mmfi.gather import (
    blocks,
    clear_padding_,
    nearest_present,
    padded_frames,
    phases_of,
    point_indices,
    screen_coordinates,
)
from examples.mmfi.pack import pack
from examples.mmfi.packed import PackedClips
from tests.mmfi.raw_tree import CLIPS

FIRST, SECOND, THIRD = CLIPS
SMALL_WINDOW = Conventions(rgb_window=7)


@pytest.fixture(scope="module")
def packed(packed_tree):
    return PackedClips(packed_tree[1])


def frames_of(packed, modalities=MODALITIES, clips=CLIPS, conventions=SMALL_WINDOW, seed=0):
    return PoseFrames(packed, clips, modalities, conventions=conventions, seed=seed)


def reference_sample(tree, clip, number, conventions):
    """One frame straight from the arrays that were written, in plain Python."""
    raw, frames = tree.written[clip], tree.frames
    half = conventions.rgb_window // 2
    window = [min(max(n, 1), frames) for n in range(number - half, number + half + 1)]
    radar = {name: raw["mmwave"][number][:, i] for i, name in enumerate(conventions.mmwave_columns)}
    return {
        "rgb": np.stack([raw["rgb"][n] / 640 * 2 - [1, 480 / 640] for n in window]),
        "lidar": raw["lidar"][number],
        "mmwave": np.column_stack([radar[name] for name in MMWAVE_COLUMNS]),
        "wifi": clean_csi(raw["wifi"][number]),
    }


def test_a_batch_holds_what_the_files_hold(packed_tree, packed):
    tree, _ = packed_tree
    frames = frames_of(packed)
    chosen = [0, 26, 8, 9, 13]
    inputs, target = frames.__getitems__(chosen)
    for place, index in enumerate(chosen):
        clip, number = frames.frame(index)
        expected = reference_sample(tree, clip, number, SMALL_WINDOW)
        np.testing.assert_allclose(target[place], tree.ground_truth[clip][number - 1], rtol=1e-6)
        for name in ("rgb", "wifi"):
            np.testing.assert_allclose(inputs[name][place], expected[name], atol=1e-6)
        for name in ("lidar", "mmwave"):
            points, mask = inputs[name]
            np.testing.assert_allclose(points[place][mask[place]], expected[name], rtol=1e-6)
            assert (points[place][~mask[place]] == 0).all()


def test_every_frame_of_every_clip_is_there_once(packed):
    frames = frames_of(packed)
    assert len(frames) == 27
    assert {frames.frame(index) for index in range(27)} == {(clip, n) for clip in CLIPS for n in range(1, 10)}


@pytest.mark.parametrize("every", [1, 2, 4, 9, 100])
def test_thinned_frames_are_the_same_frames(packed, every):
    """Also their windows of keypoints, which keep the frames between."""
    whole = frames_of(packed)
    thin = PoseFrames(packed, CLIPS, MODALITIES, conventions=SMALL_WINDOW, every=every)
    kept = [index for index in range(len(whole)) if (whole.frame(index)[1] - 1) % every == 0]
    assert [thin.frame(index) for index in range(len(thin))] == [whole.frame(index) for index in kept]
    torch.testing.assert_close(thin.__getitems__(range(len(kept))), whole.__getitems__(kept), rtol=0, atol=0)


def test_kinds_and_shapes(packed):
    inputs, target = frames_of(packed, conventions=Conventions(lidar_points=6)).__getitems__([0, 1, 2, 3])
    assert inputs["rgb"].shape == (4, 81, 17, 2)
    assert inputs["lidar"][0].shape == (4, 6, 3)
    assert inputs["lidar"][1].shape == (4, 6)
    assert inputs["mmwave"][0].shape[2] == 5
    assert inputs["wifi"].shape == (4, 3, 114, 10)
    assert target.shape == (4, 17, 3)
    tensors = [target, inputs["rgb"], inputs["lidar"][0], inputs["mmwave"][0], inputs["wifi"]]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert inputs["lidar"][1].dtype == inputs["mmwave"][1].dtype == torch.bool


@pytest.mark.parametrize("points", [None, 4])
def test_a_sample_does_not_depend_on_its_batch(packed, points):
    frames = frames_of(packed, conventions=Conventions(lidar_points=points, mmwave_points=points))
    batch, targets = frames.__getitems__(list(range(27)))
    for index in range(27):
        single, target = frames[index]
        assert torch.equal(target, targets[index])
        for name in ("rgb", "wifi"):
            assert torch.equal(single[name], batch[name][index])
        for name in ("lidar", "mmwave"):
            (points_alone, mask_alone), (points_there, mask_there) = (
                single[name],
                [x[index] for x in batch[name]],
            )
            assert torch.equal(points_alone[mask_alone], points_there[mask_there])


def test_sampled_points_are_seeded_and_change_with_the_epoch(packed):
    sampled = Conventions(lidar_points=3)
    frames, again, other = (frames_of(packed, ["lidar"], conventions=sampled, seed=seed) for seed in (0, 0, 1))
    rows = list(range(27))
    first = frames.__getitems__(rows)[0]["lidar"][0]
    torch.manual_seed(1)
    assert torch.equal(first, again.__getitems__(rows)[0]["lidar"][0])
    assert not torch.equal(first, other.__getitems__(rows)[0]["lidar"][0])
    frames.set_epoch(1)
    assert not torch.equal(first, frames.__getitems__(rows)[0]["lidar"][0])
    frames.set_epoch(0)
    assert torch.equal(first, frames.__getitems__(rows)[0]["lidar"][0])


def test_windows_never_cross_clips(packed_tree, packed):
    tree, _ = packed_tree
    frames = frames_of(packed, ["rgb"], conventions=Conventions(rgb_window=81))
    for index in range(len(frames)):
        clip, _ = frames.frame(index)
        own = np.stack([screen_coordinates(k, "pixels", 640, 480) for k in tree.written[clip]["rgb"].values()])
        distance = np.abs(frames[index][0]["rgb"].numpy()[:, None] - own).max(axis=(2, 3)).min(axis=1)
        assert distance.max() < 1e-6


def test_a_frame_that_lacks_one_modality_serves_the_others(tree, tmp_path):
    tree.file(FIRST, "mmwave", 2).write_bytes(b"")
    tree.file(FIRST, "rgb", 3).unlink()
    pack(tree.root, tmp_path / "out", Conventions())
    packed = PackedClips(tmp_path / "out")

    def numbers(*modalities):
        frames = frames_of(packed, modalities, clips=[FIRST])
        return [frames.frame(index)[1] for index in range(len(frames))]

    assert numbers("lidar", "wifi") == list(range(1, 10))
    assert numbers("mmwave") == [1, 3, 4, 5, 6, 7, 8, 9]
    assert numbers("rgb", "wifi") == [1, 2, 4, 5, 6, 7, 8, 9]
    assert numbers("rgb", "mmwave") == [1, 4, 5, 6, 7, 8, 9]
    window = frames_of(packed, ["rgb"], clips=[FIRST])[1][0]["rgb"]
    assert torch.equal(window[4], window[3])  # frame 3 is missing: frame 2 stands in


def test_conventions_of_the_pack_are_the_default_and_can_be_replaced(packed):
    assert PoseFrames(packed, CLIPS, ["rgb"])[0][0]["rgb"].shape[0] == 81
    millimetres = PoseFrames(packed, CLIPS, ["rgb"], conventions=Conventions(metres_per_unit=0.001))
    torch.testing.assert_close(millimetres[0][1] * 1000, PoseFrames(packed, CLIPS, ["rgb"])[0][1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_every_frame_once_and_the_same_order_for_a_seed(packed, workers):
    frames = frames_of(packed)

    def targets(seed):
        loader = frame_loader(frames, 8, shuffle=True, seed=seed, workers=workers)
        return torch.cat([target for _, target in loader])

    first = targets(0)
    assert torch.equal(first, targets(0))
    if workers == 0:
        assert not torch.equal(first, targets(1))
    in_order = torch.cat([target for _, target in frame_loader(frames, 8)])
    assert torch.equal(first.flatten(1).sort(0).values, in_order.flatten(1).sort(0).values)


def test_several_processes_share_the_frames(packed):
    frames = frames_of(packed, ["rgb"])
    parts = [
        torch.cat([target for _, target in frame_loader(frames, 4, sampler=sampler)])
        for sampler in (DistributedSampler(frames, num_replicas=3, rank=rank, shuffle=True) for rank in range(3))
    ]
    everything = frames.__getitems__(range(27))[1]
    assert torch.equal(torch.cat(parts).flatten(1).sort(0).values, everything.flatten(1).sort(0).values)


def test_a_packed_copy_travels_as_its_path(packed):
    data = pickle.dumps(packed)
    assert len(data) < 500
    np.testing.assert_array_equal(pickle.loads(data).tables["rgb"], packed.tables["rgb"])


def test_an_epoch_reaches_workers_that_are_kept(packed):
    frames = frames_of(packed, ["lidar"], conventions=Conventions(lidar_points=3))
    loader = frame_loader(frames, 27, workers=1)
    first = next(iter(loader))[0]["lidar"][0].clone()
    frames.set_epoch(1)
    second = next(iter(loader))[0]["lidar"][0]
    assert not torch.equal(first, second)
    assert torch.equal(second, frames.__getitems__(range(27))[0]["lidar"][0])


@pytest.mark.parametrize(
    ("clips", "modalities", "message"),
    [
        (
            CLIPS,
            ["radar"],
            "`modalities` should name what is packed, at least one. Got radar. 4 are packed: lidar",
        ),
        (CLIPS, [], "`modalities` should .* Got none"),
        ([CLIPS[0]._replace(action="A27")], ["rgb"], "`clips` should .* Got E01/S01/A27"),
        ([], ["rgb"], "`clips` should"),
    ],
)
def test_bad_choices_name_the_rule(packed, clips, modalities, message):
    with pytest.raises(ValueError, match=message):
        PoseFrames(packed, clips, modalities)


def test_clips_without_a_usable_frame_are_refused(tree, tmp_path):
    for number in range(1, 10):
        tree.file(FIRST, "wifi", number).unlink()
    pack(tree.root, tmp_path / "out", Conventions())
    with pytest.raises(ValueError, match="should hold a frame with all of rgb, wifi"):
        PoseFrames(PackedClips(tmp_path / "out"), [FIRST], ["rgb", "wifi"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
def test_the_nearest_present_frame_is_nearest(present):
    known = [index for index, there in enumerate(present) if there]
    expected = [min(known, key=lambda other: (abs(other - index), other)) for index in range(len(present))]
    assert nearest_present(np.array(present)).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(present=st.lists(st.booleans(), min_size=1, max_size=20).filter(any), margin=st.integers(0, 30))
def test_a_padded_clip_repeats_its_ends(present, margin):
    inside = nearest_present(np.array(present)).tolist()
    expected = [inside[0]] * margin + inside + [inside[-1]] * margin
    assert padded_frames(np.array(present), margin).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    records=st.integers(1, 20),
    length=st.integers(1, 25),
    columns=st.sampled_from([(), (3,), (2, 2)]),
    data=st.data(),
)
def test_blocks_are_the_records_from_each_start(records, length, columns, data):
    table = np.arange(records * int(np.prod(columns)), dtype="f4").reshape(records, *columns)
    starts = np.array(data.draw(st.lists(st.integers(0, records - 1), max_size=6)), dtype=np.int64)
    expected = [[table[min(start + i, records - 1)] for i in range(length)] for start in starts]
    copied = blocks(table, starts, length)
    np.testing.assert_array_equal(copied, np.array(expected, "f4").reshape(copied.shape))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    width=st.integers(1, 9),
    columns=st.integers(1, 5),
)
def test_padding_is_cleared_and_points_are_not(counts, width, columns):
    points = np.ones((len(counts), width, columns), "f4")
    mask = clear_padding_(points, np.array(counts))
    expected = [[slot < count for slot in range(width)] for count in counts]
    assert mask.tolist() == expected
    np.testing.assert_array_equal(points, np.repeat(np.array(expected, "f4")[..., None], columns, axis=2))


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
    width=st.integers(1, 600),
    seed=st.integers(0, 2**40),
)
def test_chosen_points_are_different_and_as_many_as_possible(counts, width, seed):
    counts = np.array(counts)
    indices = point_indices(counts, width, phases_of(np.arange(len(counts)), seed))
    for count, chosen in zip(counts, indices, strict=True):
        points = chosen[:count]
        assert len(points) == min(count, width)
        assert (np.diff(points) > 0).all()
        assert ((points >= 0) & (points < count)).all()
        if count <= width:
            assert points.tolist() == list(range(count))


def test_every_point_is_sampled_equally_often():
    counts = np.full(20_000, 10)
    indices = point_indices(counts, 4, phases_of(np.arange(20_000), seed=3))
    share = np.bincount(indices.ravel(), minlength=10) / 20_000
    np.testing.assert_allclose(share, 0.4, atol=0.02)


def test_the_image_spans_minus_one_to_one_in_every_unit():
    corners = np.array([[0.0, 0.0], [640.0, 480.0], [320.0, 240.0]])
    expected = [[-1, -0.75], [1, 0.75], [0, 0]]
    np.testing.assert_allclose(screen_coordinates(corners, "pixels", 640, 480), expected)
    np.testing.assert_allclose(screen_coordinates(corners / [640, 480], "unit", 640, 480), expected)
    np.testing.assert_allclose(screen_coordinates(np.array(expected), "screen", 640, 480), expected)


def test_an_index_that_points_beyond_the_tables_is_refused(tree, tmp_path):
    pack(tree.root, tmp_path / "packed", Conventions())
    index = tmp_path / "packed" / "index.json"
    content = json.loads(index.read_text())
    next(iter(content["entries"].values()))["first"] = 4000
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the index is damaged"):
        PackedClips(tmp_path / "packed")
