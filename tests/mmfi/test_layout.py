import shutil

import numpy as np
import pytest

from examples.mmfi.conventions import MODALITIES, Conventions
from examples.mmfi.layout import ClipId, find_clips, frame_files, modality_frames
from tests.mmfi.raw_tree import CLIPS, Tree

DEFAULT = Conventions()


def frames_by_clip(root, modality="mmwave", conventions=DEFAULT):
    return {clip.name: sorted(modality_frames(clip, modality)) for clip in find_clips(root, conventions)}


def filtered_copy(tree, place, numbers):
    """Move some radar frames to a tree without a modality level, as the filtered release has it."""
    for clip in tree.clips:
        (place / str(clip)).mkdir(parents=True)
        for number in numbers:
            shutil.copy(tree.file(clip, "mmwave", number), place / str(clip))


def test_finds_every_clip_and_modality(tree):
    clips = find_clips(tree.root, DEFAULT)
    assert tuple(clip.name for clip in clips) == CLIPS
    assert all(set(clip.folders) == set(MODALITIES) for clip in clips)
    for modality in MODALITIES:
        assert set(map(tuple, frames_by_clip(tree.root, modality).values())) == {tuple(range(1, 10))}


def test_a_mirror_that_repeats_the_scene_is_the_same(tree):
    expected = frames_by_clip(tree.root)
    for scene in ("E01", "E04"):
        (tree.root / scene).rename(tree.root / "moved")
        (tree.root / scene).mkdir()
        (tree.root / "moved").rename(tree.root / scene / scene)
    assert frames_by_clip(tree.root) == expected


@pytest.mark.parametrize("place", ["raw/filtered_mmwave", "raw/filtered_mmwave/filtered_mmwave", "filtered_mmwave"])
def test_filtered_radar_stands_in_where_a_clip_has_none(tree, place):
    filtered_copy(tree, tree.root.parent / place, numbers=(2, 7))
    assert set(map(tuple, frames_by_clip(tree.root).values())) == {tuple(range(1, 10))}
    for clip in tree.clips:
        shutil.rmtree(tree.root / str(clip) / "mmwave")
    assert set(map(tuple, frames_by_clip(tree.root).values())) == {(2, 7)}


def test_filtered_radar_can_be_preferred(tree):
    filtered_copy(tree, tree.root / "filtered_mmwave", numbers=(2, 7))
    preferred = Conventions(prefer_filtered_mmwave=True)
    assert set(map(tuple, frames_by_clip(tree.root, conventions=preferred).values())) == {(2, 7)}


def test_the_filtered_tree_alone_is_a_root(tree, tmp_path):
    filtered_copy(tree, tmp_path / "alone", numbers=(1, 3))
    assert frames_by_clip(tmp_path / "alone") == {clip: [1, 3] for clip in CLIPS}


def test_numbers_come_from_names_not_from_positions(tree):
    clip = find_clips(tree.root, DEFAULT)[0]
    tree.file(clip.name, "lidar", 1).unlink()
    tree.file(clip.name, "lidar", 5).unlink()
    (clip.folders["lidar"] / "frame002 (1).bin").touch()
    (clip.folders["lidar"] / "frame003.bin.part").touch()
    (clip.folders["lidar"] / "Thumbs.db").touch()
    assert sorted(modality_frames(clip, "lidar")) == [2, 3, 4, 6, 7, 8, 9]
    assert {file.path.name for file in modality_frames(clip, "lidar").values()} == {
        f"frame{number:03d}.bin" for number in (2, 3, 4, 6, 7, 8, 9)
    }


def test_sizes_are_reported(tree):
    path = tree.file(CLIPS[0], "mmwave", 4)
    path.write_bytes(b"")
    sizes = {number: file.size for number, file in frame_files(path.parent, ".bin").items()}
    assert sizes[4] == 0
    assert sizes[5] == 40 * len(tree.written[CLIPS[0]]["mmwave"][5])


def test_a_repeated_frame_number_is_refused(tree):
    folder = tree.file(CLIPS[0], "rgb", 1).parent
    np.save(folder / "frame1.npy", np.zeros((17, 2)))
    with pytest.raises(ValueError, match="number should occur once"):
        frame_files(folder, ".npy")


def test_a_repeated_clip_is_refused(tree):
    (tree.root / "E01" / "E01" / "S01" / "A01").mkdir(parents=True)
    with pytest.raises(ValueError, match="A clip should occur once"):
        find_clips(tree.root, DEFAULT)


def test_wrong_roots_say_what_was_looked_for(tree, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        find_clips(tmp_path / "nowhere", DEFAULT)
    with pytest.raises(ValueError, match=r"one level deeper: pass `.*raw`"):
        find_clips(tmp_path, DEFAULT)
    with pytest.raises(ValueError, match=r"pass the folder above, `.*raw`"):
        find_clips(tree.root / "E01", DEFAULT)
    (tmp_path / "other" / "things").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"E01/S01/A01.*only things"):
        find_clips(tmp_path / "other", DEFAULT)


def test_a_clip_name_survives_its_text():
    assert ClipId.parse(str(CLIPS[2])) == CLIPS[2]


def test_other_folder_names_are_a_convention(tmp_path):
    tree = Tree(tmp_path / "raw", clips=CLIPS[:1]).write()
    (tree.root / str(CLIPS[0]) / "rgb").rename(tree.root / str(CLIPS[0]) / "infra1")
    assert frames_by_clip(tree.root, "rgb") == {CLIPS[0]: []}
    infrared = Conventions().updated(["rgb_folder=infra1"])
    assert frames_by_clip(tree.root, "rgb", infrared) == {CLIPS[0]: list(range(1, 10))}
