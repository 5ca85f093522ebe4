import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from examples.mmfi.__main__ import main
from examples.mmfi.conventions import MODALITIES, POINT_MODALITIES, Conventions
from examples.mmfi.csi import clean_csi
from examples.mmfi.pack import REPORT, pack
from examples.mmfi.packed import PackedClips
from examples.mmfi.store import INDEX, read_index
from tests.mmfi.raw_tree import CLIPS, REPOSITORY, Tree

DEFAULT = Conventions()
FIRST, SECOND, THIRD = CLIPS


def packed_frame(packed, clip, modality, number):
    """The packed values of one frame; None where the frame is absent."""
    row = packed.clips[clip].first + number - 1
    if not packed.present(modality)[row]:
        return None
    if modality not in POINT_MODALITIES:
        return packed.tables[modality][row]
    start, count = (packed.tables[f"{modality}_{what}"][row] for what in ("start", "count"))
    return packed.tables[modality][start : start + count]


def check_equal(tree, out, absent=()):
    """Every frame of every modality is where its number says, except the absent ones."""
    packed = PackedClips(out)
    assert tuple(packed.clips) == tree.clips
    for clip in tree.clips:
        first, frames = packed.clips[clip]
        poses = packed.tables["ground_truth"][first : first + frames]
        np.testing.assert_array_equal(poses, tree.ground_truth[clip].astype("f4"))
        for modality in MODALITIES:
            for number, raw in tree.written[clip][modality].items():
                frame = packed_frame(packed, clip, modality, number)
                if (clip, modality, number) in absent:
                    assert frame is None
                else:
                    expected = clean_csi(raw) if modality == "wifi" else raw
                    np.testing.assert_array_equal(frame, expected.astype("f4"))


def same_files(first, second):
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in second.iterdir()}
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_every_frame_is_where_its_number_says(packed_tree):
    check_equal(*packed_tree)


def test_reading_in_processes_writes_the_same_files(packed_tree, tmp_path):
    tree, out = packed_tree
    pack(tree.root, tmp_path / "parallel", DEFAULT, workers=2)
    assert same_files(tmp_path / "parallel", out)


def test_damaged_frames_are_absent_named_and_shift_nothing(tree, tmp_path):
    def file(*key):
        return tree.file(*key)

    file(FIRST, "mmwave", 1).write_bytes(b"")
    file(FIRST, "mmwave", 4).unlink()
    file(FIRST, "lidar", 9).write_bytes(file(FIRST, "lidar", 9).read_bytes()[:-1])
    np.save(file(SECOND, "rgb", 5), np.ones((17, 3)))
    file(SECOND, "wifi", 2).write_bytes(b"no matlab")
    shutil.copy(file(THIRD, "rgb", 1), file(THIRD, "rgb", 12))
    absent = {
        (FIRST, "mmwave", 1),
        (FIRST, "mmwave", 4),
        (FIRST, "lidar", 9),
        (SECOND, "rgb", 5),
        (SECOND, "wifi", 2),
    }
    report = pack(tree.root, tmp_path / "out", DEFAULT)
    check_equal(tree, tmp_path / "out", absent)
    assert report == json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["empty files"] == ["E01/S01/A01/mmwave/frame001.bin"]
    assert set(report["damaged files"]) == {
        "E01/S01/A01/lidar/frame009.bin",
        "E01/S02/A02/rgb/frame005.npy",
        "E01/S02/A02/wifi-csi/frame002.mat",
    }
    assert report["missing frames"] == {"E01/S01/A01": {"mmwave": "4"}}
    assert report["files of frames without ground truth"] == ["E04/S31/A02/rgb/frame012.npy"]
    assert report["present"] == {"rgb": 26, "lidar": 26, "mmwave": 25, "wifi": 26}


def test_a_clip_without_readable_poses_is_left_out_and_named(tree, tmp_path):
    (tree.root / str(FIRST) / "ground_truth.npy").unlink()
    (tree.root / str(THIRD) / "ground_truth.npy").write_bytes(b"")
    report = pack(tree.root, tmp_path / "out", DEFAULT)
    assert report["clips that were not packed"] == {
        str(FIRST): "ground_truth.npy is missing",
        str(THIRD): "ground_truth.npy is empty (0 bytes)",
    }
    assert tuple(PackedClips(tmp_path / "out").clips) == (SECOND,)
    np.save(tree.root / str(FIRST) / "ground_truth.npy", tree.ground_truth[FIRST])
    pack(tree.root, tmp_path / "out", DEFAULT)
    assert tuple(PackedClips(tmp_path / "out").clips) == (FIRST, SECOND)


def test_a_copy_of_which_nothing_can_be_packed_is_a_fault(tree, tmp_path, capsys):
    for clip in tree.clips:
        (tree.root / str(clip) / "ground_truth.npy").unlink()
    assert main(["pack", str(tree.root), str(tmp_path / "out"), "--workers", "1"]) == 1
    assert f"{FIRST} was not packed: ground_truth.npy is missing" in capsys.readouterr().out


def test_clips_may_have_any_number_of_frames(tmp_path):
    tree = Tree(tmp_path / "raw", frames=1, clips=CLIPS[:1]).write()
    Tree(tmp_path / "raw", frames=3, clips=CLIPS[1:2]).write()
    pack(tree.root, tmp_path / "out", DEFAULT)
    assert [rows.frames for rows in PackedClips(tmp_path / "out").clips.values()] == [1, 3]


def test_a_modality_that_a_clip_lacks_is_absent_there(tree, tmp_path):
    shutil.rmtree(tree.root / str(SECOND) / "wifi-csi")
    report = pack(tree.root, tmp_path / "out", DEFAULT)
    check_equal(tree, tmp_path / "out", {(SECOND, "wifi", number) for number in range(1, 10)})
    assert report["missing frames"] == {str(SECOND): {"wifi": "1-9"}}


def test_packing_again_adds_what_is_new_and_retries_what_was_broken(tree, tmp_path):
    out = tmp_path / "out"
    shutil.move(tree.root / str(SECOND), tmp_path / "later")
    path = tree.file(FIRST, "rgb", 3)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    pack(tree.root, out, DEFAULT)
    assert tuple(PackedClips(out).clips) == (FIRST, THIRD)
    shutil.move(tmp_path / "later", tree.root / str(SECOND))
    path.write_bytes(content)
    pack(tree.root, out, DEFAULT)
    check_equal(tree, out, {(FIRST, "rgb", 3)})
    report = pack(tree.root, out, DEFAULT, retry=True)
    check_equal(tree, out)
    assert not report["damaged files"]


def test_a_clip_of_another_copy_is_refused(tree, tmp_path):
    out = tmp_path / "out"
    pack(tree.root, out, DEFAULT)
    np.save(tree.root / str(SECOND) / "ground_truth.npy", tree.ground_truth[SECOND] + 1)
    for retry in (False, True):
        with pytest.raises(ValueError, match=f"{SECOND} has other ground_truth than .* Name another folder, or delete"):
            pack(tree.root, out, DEFAULT, retry=retry)


def test_files_fetched_later_need_a_retry(tree, tmp_path):
    path, out = tree.file(FIRST, "rgb", 3), tmp_path / "out"
    path.rename(tmp_path / "later")
    pack(tree.root, out, DEFAULT)
    (tmp_path / "later").rename(path)
    with pytest.raises(ValueError, match=f"{FIRST} has other files than .* add --retry"):
        pack(tree.root, out, DEFAULT)
    pack(tree.root, out, DEFAULT, retry=True)
    check_equal(tree, out)


def test_clips_that_the_copy_lacks_are_counted(tree, tmp_path, capsys):
    pack(tree.root, tmp_path / "out", DEFAULT)
    shutil.rmtree(tree.root / str(THIRD))
    assert main(["pack", str(tree.root), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "1 clips packed earlier that the copy lacks" in capsys.readouterr().out


def test_retrying_in_vain_writes_nothing(tree, tmp_path):
    tree.file(FIRST, "rgb", 3).unlink()
    pack(tree.root, tmp_path / "out", DEFAULT)
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    pack(tree.root, tmp_path / "out", DEFAULT, retry=True)
    assert same_files(tmp_path / "out", tmp_path / "before")


def has_a_clip(out):
    return (out / INDEX).exists() and bool(read_index(out)["entries"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_pack_continues_to_the_same_result(packed_tree, tmp_path, workers):
    tree, complete = packed_tree
    out = tmp_path / "out"
    command = [sys.executable, "-m", "examples.mmfi", "pack", tree.root, out, "--workers", str(workers)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=quiet, stderr=quiet)
    deadline = time.monotonic() + 30
    while not has_a_clip(out) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    pack(tree.root, out, DEFAULT)
    assert same_files(out, complete)


def test_an_interrupted_pack_says_how_to_continue(tree, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.mmfi.pack.read_clip", interrupt)
    assert main(["pack", str(tree.root), str(tmp_path / "out"), "--workers", "1"]) == 130
    assert "run the same command again" in capsys.readouterr().out


def test_only_the_named_modalities_are_packed(tree, tmp_path):
    pack(tree.root, tmp_path / "out", DEFAULT, modalities=["lidar", "rgb"])
    packed = PackedClips(tmp_path / "out")
    assert packed.modalities == ("rgb", "lidar")
    assert set(packed.tables) == {"ground_truth", "present", "rgb", "lidar", "lidar_start", "lidar_count"}


def test_wrong_calls_name_the_rule(tree, tmp_path):
    pack(tree.root, tmp_path / "out", DEFAULT, modalities=["rgb"])
    with pytest.raises(ValueError, match=r"modalities from \['rgb'\] to"):
        pack(tree.root, tmp_path / "out", DEFAULT)
    with pytest.raises(ValueError, match="rgb_window from 81 to 27"):
        pack(tree.root, tmp_path / "out", Conventions(rgb_window=27), modalities=["rgb"])
    with pytest.raises(ValueError, match="`workers` should be"):
        pack(tree.root, tmp_path / "new", DEFAULT, workers=0)
    for clip in CLIPS:
        shutil.rmtree(tree.root / str(clip) / "lidar")
    with pytest.raises(ValueError, match=r"Got `lidar`. Found: mmwave, rgb, wifi"):
        pack(tree.root, tmp_path / "new", DEFAULT, modalities=["lidar"])


def test_the_command_packs_and_reports(tree, tmp_path, capsys):
    tree.file(FIRST, "mmwave", 1).write_bytes(b"")
    assert main(["pack", str(tree.root), str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "3 clips, 27 frames" in printed
    assert "mmwave  26 frames" in printed
    assert "1 empty files" in printed
    assert REPORT in printed


def test_the_command_refuses_a_wrong_path_in_one_line(tmp_path, capsys):
    assert main(["pack", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [[], ["pack"], ["doctor"]])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "pack" in capsys.readouterr().out or command == ["doctor"]


def test_frames_numbered_from_0_are_never_shifted(tree, tmp_path):
    tree.number_from_0(CLIPS[0], "lidar")
    report = pack(tree.root, tmp_path / "assumed", Conventions())
    assert report["damaged files"] == {
        "E01/S01/A01/lidar": "does not number its frames from 1: see --convention first_frame=NUMBER"
    }
    assert report["present"] == {"rgb": 27, "lidar": 18, "mmwave": 27, "wifi": 27}
    for clip in CLIPS:
        for modality in ("rgb", "lidar", "mmwave", "wifi"):
            tree.number_from_0(clip, modality)
    report = pack(tree.root, tmp_path / "told", Conventions(first_frame=0))
    assert report["damaged files"] == {}
    assert report["present"] == {"rgb": 27, "lidar": 27, "mmwave": 27, "wifi": 27}
    packed = PackedClips(tmp_path / "told")
    assert np.allclose(packed.tables["rgb"][0], tree.written[CLIPS[0]]["rgb"][1])
