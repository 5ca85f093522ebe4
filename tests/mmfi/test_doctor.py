import shutil

import numpy as np
import pytest

from examples.mmfi.__main__ import main
from examples.mmfi.checks import keypoint_unit_of, signed_columns
from examples.mmfi.conventions import Conventions
from examples.mmfi.pack import pack
from tests.mmfi.raw_tree import CLIPS, Tree, write_frame

FIRST, SECOND, THIRD = CLIPS


@pytest.fixture
def doctor(tree, capsys):
    def look(*options):
        status = main(["doctor", str(tree.root), *options])
        return status, capsys.readouterr().out

    return look


def rewrite(tree, modality, change):
    for clip in tree.clips:
        for number, value in tree.written[clip][modality].items():
            write_frame(tree.file(clip, modality, number), modality, change(value))


def rewrite_poses(tree, change):
    for clip in tree.clips:
        np.save(tree.root / str(clip) / "ground_truth.npy", change(tree.ground_truth[clip]))


def test_a_sound_copy_has_nothing_to_fix_and_fits_a_screen(doctor):
    status, text = doctor("--convention", "frames_per_clip=9")
    assert status == 0
    assert "FIX" not in text
    assert "every ground truth has 9 frames" in text
    assert "1077 of 1080 clips are not there" in text
    assert len(text.splitlines()) < 40
    for line in ("rgb              3      27       0      0     0/27", "wifi             3      27       0"):
        assert line in text


def test_missing_empty_and_surplus_files_are_counted(tree, doctor):
    tree.file(FIRST, "mmwave", 2).write_bytes(b"")
    tree.file(FIRST, "mmwave", 3).unlink()
    shutil.copy(tree.file(FIRST, "rgb", 1), tree.file(FIRST, "rgb", 10))
    status, text = doctor()
    assert status == 0
    assert "mmwave           3      26       1      1" in text
    assert "1 files are empty (0 bytes), such as " + str(tree.file(FIRST, "mmwave", 2)) in text
    assert "1 files belong to frames without ground truth" in text


def test_damaged_samples_are_named(tree, doctor):
    rewrite(tree, "wifi", lambda amplitude: amplitude[:2])
    status, text = doctor()
    assert status == 1
    assert "27 of 27 sampled files are damaged" in text
    assert "shape (2, 114, 10)" in text


@pytest.mark.parametrize("unusable", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_clip_without_poses_is_named(tree, doctor, unusable):
    unusable(tree.root / str(SECOND) / "ground_truth.npy")
    status, text = doctor()
    assert status == 1
    assert "1 clips lack a readable ground_truth.npy, such as E01/S02/A02" in text


WRONG = {
    "keypoint unit": ("rgb", lambda k: k / [640, 480], "keypoint_unit=unit"),
    "screen unit": ("rgb", lambda k: k / 320 - [1, 0.75], "keypoint_unit=screen"),
    "radar columns": ("mmwave", lambda p: p[:, [0, 1, 2, 4, 3]], "mmwave_columns=x,y,z,doppler,intensity"),
}


@pytest.mark.parametrize(("modality", "change", "option"), WRONG.values(), ids=WRONG)
def test_a_wrong_assumption_is_found_and_its_remedy_works(tree, doctor, modality, change, option):
    rewrite(tree, modality, change)
    status, text = doctor()
    assert status == 1
    assert f"--convention {option}" in text
    assert doctor("--convention", option)[0] == 0


def test_points_of_float32_are_found_and_the_remedy_works(tree, doctor):
    for modality in ("lidar", "mmwave"):
        rewrite(tree, modality, lambda points: np.repeat(points, 2, axis=0).astype("f4"))
    status, text = doctor()
    assert status == 1
    assert "written as float32, or with another number of columns?" in text
    assert "--convention point_dtype=float32" in text
    assert doctor("--convention", "point_dtype=float32")[0] == 0


def test_the_remedy_for_float32_does_not_hang_on_the_first_file_read(tree, doctor):
    """An odd number of float32 fills no row of float64, which says nothing of the dtype; other files tell."""
    rewrite(tree, "mmwave", lambda points: points.astype("f4"))
    status, text = doctor()
    assert status == 1
    assert "--convention point_dtype=float32" in text


def test_a_damaged_file_alone_is_not_taken_for_another_dtype(tree, doctor):
    points = tree.written[FIRST]["lidar"][3].copy()
    points[0, 0] = np.nan
    write_frame(tree.file(FIRST, "lidar", 3), "lidar", points)
    status, text = doctor("--sample", "all")
    assert status == 1
    assert "frame003.bin holds nan" in text
    assert "point_dtype" not in text


def test_frames_numbered_from_0_are_found_and_the_remedy_works(tree, doctor):
    tree.number_from_0(FIRST, "rgb")
    status, text = doctor()
    assert status == 1
    assert f"numbering starts at 0 in 1 folders, such as rgb of {FIRST}; number - 1 is assumed" in text
    for clip in CLIPS:
        for modality in ("rgb", "lidar", "mmwave", "wifi"):
            tree.number_from_0(clip, modality)
    status, text = doctor("--convention", "first_frame=0")
    assert status == 0
    assert "without ground truth" not in text


def test_a_numbering_from_1_is_found_where_0_is_assumed(doctor):
    status, text = doctor("--convention", "first_frame=0")
    assert status == 1
    assert "numbering starts at 1 in 12 folders" in text


def test_a_link_to_nowhere_is_missing_and_a_folder_damaged(tree, doctor):
    link, folder = tree.file(FIRST, "lidar", 2), tree.file(FIRST, "mmwave", 3)
    link.unlink()
    link.symlink_to("nowhere")
    folder.unlink()
    folder.mkdir()
    status, text = doctor("--sample", "all")
    assert status == 1
    assert f"1 frames of lidar are missing in 1 clips, such as {FIRST}" in text
    assert f"1 of 27 sampled files are damaged: {folder} is a folder" in text
    report = pack(tree.root, tree.root.parent / "out", Conventions())
    assert report["missing frames"] == {str(FIRST): {"lidar": "2"}}
    assert report["damaged files"] == {f"{FIRST}/mmwave/frame003.bin": "is a folder"}


@pytest.mark.parametrize(("asked", "read"), [("2", 2), ("7", 7), ("all", 27)])
def test_as_many_files_are_read_as_asked_for(doctor, asked, read):
    assert f"rgb              3      27       0      0 {f'0/{read}':>8}" in doctor("--sample", asked)[1]


def test_a_modality_that_some_clips_lack_is_noted(tree, doctor):
    shutil.rmtree(tree.root / str(SECOND) / "wifi-csi")
    assert f"1 clips lack wifi, such as {SECOND}" in doctor()[1]


def test_a_copy_without_any_modality_is_not_ready(tree, doctor):
    for clip in CLIPS:
        for folder in ("rgb", "lidar", "mmwave", "wifi-csi"):
            shutil.rmtree(tree.root / str(clip) / folder)
    status, text = doctor()
    assert status == 1
    assert "no clip has frames of any modality" in text


def test_one_clip_in_millimetres_is_named(tree, doctor):
    np.save(tree.root / str(SECOND) / "ground_truth.npy", tree.ground_truth[SECOND] * 1000)
    status, text = doctor()
    assert status == 1
    assert "1 of 3 sampled clips have another scale" in text
    assert f"{SECOND}/ground_truth.npy" in text


def test_millimetres_are_found_and_the_remedy_works(tree, doctor):
    rewrite_poses(tree, lambda poses: poses * 1000)
    status, text = doctor()
    assert status == 1
    assert "--convention metres_per_unit=0.001" in text
    assert doctor("--convention", "metres_per_unit=0.001")[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda poses: poses * [1, -1, 1], "y points up"),
        (lambda poses: poses - poses[:, :1], "relative to the pelvis"),
        (lambda poses: poses[:, ::-1], "odd proportions"),
    ],
)
def test_poses_of_another_kind_are_found(tree, doctor, change, message):
    rewrite_poses(tree, change)
    status, text = doctor()
    assert status == 1
    assert message in text


def test_a_larger_image_is_found(tree, doctor):
    rewrite(tree, "rgb", lambda keypoints: keypoints * 3)
    status, text = doctor()
    assert status == 1
    assert "beyond an image of 640 x 480" in text


def test_much_broken_csi_is_found(tree, doctor):
    rewrite(tree, "wifi", lambda amplitude: np.where(amplitude > 42, np.nan, amplitude))
    status, text = doctor()
    assert status == 1
    assert "of the CSI is inf or nan" in text


def test_an_absent_modality_says_what_was_looked_for(tree, doctor):
    for clip in CLIPS:
        (tree.root / str(clip) / "rgb").rename(tree.root / str(clip) / "infra1")
    status, text = doctor()
    assert status == 0
    assert "no rgb: looked for folders named rgb" in text
    assert "there too, not used: infra1 in 3 clips" in text
    assert "no rgb" not in doctor("--convention", "rgb_folder=infra1")[1]


def test_filtered_radar_is_mentioned(tree, doctor):
    for clip in CLIPS:
        shutil.copytree(tree.root / str(clip) / "mmwave", tree.root / "filtered_mmwave" / str(clip))
        shutil.rmtree(tree.root / str(clip) / "mmwave")
    assert "radar frames of 3 clips come from the separate, filtered tree" in doctor()[1]


def test_filtered_radar_that_is_not_read_is_mentioned(tree, doctor):
    shutil.copytree(tree.root / str(SECOND) / "mmwave", tree.root / "filtered_mmwave" / str(SECOND))
    text = doctor()[1]
    assert "1 clips have filtered radar frames, too" in text
    assert "--convention prefer_filtered_mmwave=true" in text
    assert "filtered radar frames, too" not in doctor("--convention", "prefer_filtered_mmwave=true")[1]


def test_a_subject_in_the_wrong_scene_is_found(tmp_path, capsys):
    Tree(tmp_path / "raw", clips=(FIRST._replace(scene="E02"),)).write()
    assert main(["doctor", str(tmp_path / "raw")]) == 1
    assert "1 clips are not in the public list, such as E02/S01/A01" in capsys.readouterr().out


def test_wrong_paths_are_refused_in_one_line(tree, tmp_path, capsys):
    pack(tree.root, tmp_path / "out", Conventions())
    for root, message in {"nowhere": "no such folder", "out": "is packed", "..": "`root` should"}.items():
        assert main(["doctor", str(tmp_path / root)]) == 2
        assert message in capsys.readouterr().err
    assert main(["doctor", str(tree.root), "--sample", "0"]) == 2
    assert main(["doctor", str(tree.root), "--convention", "frames=3"]) == 2


def test_nothing_is_changed(tree, doctor):
    def state():
        return {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")}

    before = state()
    doctor()
    assert state() == before


def test_guesses():
    assert keypoint_unit_of(np.array([[0.0, 0.0], [640.0, 480.0]])) == "pixels"
    assert keypoint_unit_of(np.array([[0.0, 0.0], [1.0, 1.0]])) == "unit"
    assert keypoint_unit_of(np.array([[-1.0, -0.75], [1.0, 0.75]])) == "screen"
    assert signed_columns(np.array([[-1.0, 0, 0, 5, -0.3], [1, 0, 0, 7, 0.4]])) == [4]
    assert signed_columns(np.array([[-1.0, 0, 0, 5, 0.3]])) == []
