import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from examples.mmfi.__main__ import main
from examples.mmfi.data import open_data
from examples.mmfi.layout import SIMULATED_MARKER
from examples.mmfi.settings import Settings as Run
from examples.mmfi.simulator import Settings, simulate_clip, simulate_tree, tree

SMALL = Settings(frames=4)
ENDINGS = {"rgb": "npy", "lidar": "bin", "mmwave": "bin", "wifi-csi": "mat"}
NAMES = (["S01", "S31"], ["A02"])


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "data"
    assert simulate_tree(root, *NAMES, SMALL) == 2
    return root


def test_the_layout_is_the_official_one(made):
    assert {path.name for path in made.iterdir()} == {"E01", "E04", "SIMULATED"}
    for folder in (made / "E01" / "S01" / "A02", made / "E04" / "S31" / "A02"):
        assert {path.name for path in folder.iterdir()} == {"ground_truth.npy", *ENDINGS}
        for modality, ending in ENDINGS.items():
            names = sorted(path.name for path in (folder / modality).iterdir())
            assert names == [f"frame{number:03d}.{ending}" for number in (1, 2, 3, 4)]


def test_files_hold_the_clip_in_the_official_types(made):
    clip, folder = simulate_clip("S01", "A02", SMALL), made / "E01" / "S01" / "A02"
    np.testing.assert_array_equal(np.load(folder / "ground_truth.npy"), clip.ground_truth)
    for index in range(4):
        name = f"frame{index + 1:03d}"
        np.testing.assert_array_equal(np.load(folder / "rgb" / f"{name}.npy"), clip.rgb[index])
        for modality, columns in (("lidar", 3), ("mmwave", 5)):
            points = np.fromfile(folder / modality / f"{name}.bin", dtype=np.float64).reshape(-1, columns)
            np.testing.assert_array_equal(points, getattr(clip, modality)[index])
        csi = loadmat(folder / "wifi-csi" / f"{name}.mat")
        np.testing.assert_array_equal(csi["CSIamp"], clip.csi_amplitude[index])
        np.testing.assert_array_equal(csi["CSIphase"], clip.csi_phase[index])
        assert csi["CSIamp"].dtype == np.float64
        assert b"SIMULATED" in csi["__header__"]


def test_listing_the_tree_as_the_public_toolbox_does_finds_folders_only(made):
    """Every entry of the root and of the folders in it is listed as a folder unless it starts with a dot."""
    actions = [
        action
        for scene in made.iterdir()
        if not scene.name.startswith(".")
        for subject in scene.iterdir()
        if not subject.name.startswith(".")
        for action in subject.iterdir()
    ]
    assert len(actions) == 2
    assert all(action.is_dir() for action in actions)


def test_the_tree_says_that_it_is_simulated(made):
    marker = json.loads((made / SIMULATED_MARKER).read_text())
    assert "SIMULATED" in marker["notice"]
    assert marker["settings"]["seed"] == 0
    assert marker["settings"]["frames"] == 4


def test_bytes_do_not_depend_on_the_workers(made, tmp_path):
    simulate_tree(tmp_path / "parallel", *NAMES, SMALL, workers=2)
    assert contents(tmp_path / "parallel") == contents(made)


def test_an_interrupted_run_continues_where_it_stopped(made, tmp_path, monkeypatch):
    root, written = tmp_path / "data", []

    def fail_late(clip, folder):
        original(clip, folder)
        written.append(folder)
        if len(written) == 2:
            (folder / "ground_truth.npy").unlink()
            raise KeyboardInterrupt

    original = tree.write_clip
    monkeypatch.setattr(tree, "write_clip", fail_late)
    with pytest.raises(KeyboardInterrupt):
        simulate_tree(root, *NAMES, SMALL)
    assert not (root / "E04").exists()
    monkeypatch.undo()
    reports = []
    assert simulate_tree(root, *NAMES, SMALL, report=lambda *event: reports.append(event)) == 1
    assert reports == [("S31 A02", 1, 1)]
    assert contents(root) == contents(made)


def test_a_finished_tree_is_left_alone(made):
    before = contents(made)
    assert simulate_tree(made, *NAMES, SMALL) == 0
    assert contents(made) == before


@pytest.mark.parametrize(
    ("subjects", "actions", "workers", "message"),
    [
        (["S00"], ["A01"], 1, "S01 to S40"),
        (["S01"], ["A99"], 1, "A01 to A27"),
        (["S01"], ["A01"], 0, "`workers` should be positive"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, subjects, actions, workers, message):
    with pytest.raises(ValueError, match=message):
        simulate_tree(tmp_path / "data", subjects, actions, SMALL, workers)
    assert not (tmp_path / "data").exists()


def test_a_tree_with_other_settings_is_not_mixed(made):
    with pytest.raises(ValueError, match="same seed, frames and sensors"):
        simulate_tree(made, *NAMES, Settings(frames=4, seed=1))


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "E01").mkdir()
    with pytest.raises(ValueError, match="never mixed"):
        simulate_tree(tmp_path, *NAMES, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["E01"]


def test_a_run_killed_before_it_wrote_its_settings_can_be_repeated(tmp_path):
    (tmp_path / "SIMULATED").mkdir()
    assert simulate_tree(tmp_path, ["S01"], ["A02"], SMALL) == 1


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        simulate_tree(tmp_path / "data", *NAMES, SMALL)


def test_empty_radar_frames_are_files_of_no_bytes(tmp_path):
    clip = simulate_clip("S01", "A02", SMALL)
    tree.write_clip(replace(clip, mmwave=[np.empty((0, 5))] * 4), tmp_path / "clip")
    assert (tmp_path / "clip" / "mmwave" / "frame002.bin").stat().st_size == 0


def command(*words):
    return main(["simulate", *map(str, words)])


def test_the_command_writes_a_tree(tmp_path, capsys):
    words = ("--subjects", "S02", "--actions", "A01", "A27", "--frames", 2)
    assert command(tmp_path / "data", *words) == 0
    assert (tmp_path / "data" / "E01" / "S02" / "A27" / "rgb" / "frame002.npy").exists()
    assert "2 simulated clips" in capsys.readouterr().out


def test_the_default_tree_can_be_packed_and_trained_on_by_the_commands_that_are_printed(tmp_path, capsys):
    assert command(tmp_path / "my data") == 0
    pack, train = (shlex.split(line)[3:] for line in capsys.readouterr().out.split("Next:\n")[1].splitlines())
    assert main(["doctor", pack[1]]) == 0
    assert f"Ready: `python -m examples.mmfi {shlex.join(pack)}`." in capsys.readouterr().out
    assert main([*pack, "--workers", "1"]) == 0
    for split in ("S1", "S2"):
        data = open_data(Run("", train[1], split=split))
        assert min(map(len, (data.held_out, data.test))) > 0
    options = "--epochs 1 --every 8 --batch-size 8 --modalities rgb --device cpu --workers 0"
    assert main([*train, *shlex.split(options), "--out", str(tmp_path / "run")]) == 0


def test_the_command_reports_a_bad_value_and_fails(tmp_path, capsys):
    assert command(tmp_path / "data", "--subjects", "S99") == 2
    assert "S01 to S40" in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []


def test_the_help_lists_the_actions(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    shown = capsys.readouterr().out
    assert "A12  Squat" in shown
    assert "all" in shown
