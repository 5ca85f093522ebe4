import json
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import data_folder
from examples.mars.__main__ import main
from examples.mars.data import LAYOUT, MODALITIES, load
from examples.mars.model import PoseModel
from examples.report import cell

PROJECT = Path(__file__).parents[2]

HEADER = "Frame #,# Obj,X,Y,Z,Doppler,Intensity,Abs Time"


def write_recording(root, frames=400, subjects=(1, 3), seed=0):
    """A made-up recording in the layout of MARS; its frame numbers recur, as in the real one."""
    rng = np.random.default_rng(seed)
    for subject in subjects:
        folder = root / LAYOUT / f"subject{subject}" / "timesplit"
        folder.mkdir(parents=True)
        for part in ("validate", "test"):
            poses = rng.normal(size=(frames, 75)).cumsum(0) / 30
            rows = []
            for i, pose in enumerate(poses):
                count = int(rng.integers(1, 12))
                points = np.c_[pose[:3] * np.ones((count, 3)) + rng.normal(size=(count, 3)) / 9, rng.normal(size=count)]
                rows += [[i % 50, count, *point, rng.integers(3, 300), 0] for point in points]
            np.savetxt(folder / f"radar_data_{part}.csv", rows, delimiter=",", header=HEADER, comments="")
            np.savetxt(folder / f"kinect_data_{part}.csv", poses, delimiter=",", header="x", comments="")
    return root


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("mars"))


def test_frames_are_runs_of_equal_numbers(recording):
    splits = load(recording)
    assert len(splits.train) + len(splits.held_out) == 800
    assert len(splits.test) == 800


def test_points_and_poses_belong_together(recording):
    rows = np.loadtxt(recording / LAYOUT / "subject1/timesplit/radar_data_test.csv", delimiter=",", skiprows=1)
    kinect = np.loadtxt(recording / LAYOUT / "subject1/timesplit/kinect_data_test.csv", delimiter=",", skiprows=1)
    splits = load(recording)
    second = rows[int(rows[0, 1]) :][: int(rows[int(rows[0, 1]), 1])]
    points, mask = splits.test.inputs["doppler"]
    assert mask[1].sum() == len(second)
    np.testing.assert_allclose(np.corrcoef(points[1][mask[1], 0], second[:, 5])[0, 1] if len(second) > 2 else 1, 1)
    np.testing.assert_allclose(splits.test.target[1, :, 2], kinect[1, 50:], atol=1e-6)


def test_columns_are_standardised_by_training_frames(recording):
    for points, mask in load(recording).train.inputs.values():
        torch.testing.assert_close(points[mask].mean(0), torch.zeros(points.shape[-1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(points[mask].std(0), torch.ones(points.shape[-1]), atol=1e-4, rtol=0)
        assert points[~mask].count_nonzero() == 0


def test_a_prediction_does_not_depend_on_padding_order_or_batch_mates(recording):
    torch.manual_seed(0)
    model, frames = PoseModel(), load(recording).test
    inputs = frames.take(torch.arange(6)).inputs
    alone = model({m: (points[:1], mask[:1]) for m, (points, mask) in inputs.items()})
    order = torch.randperm(next(iter(inputs.values()))[0].shape[1])
    shuffled = {m: (points[:, order], mask[:, order]) for m, (points, mask) in inputs.items()}
    padded = {
        m: (torch.cat([points, torch.full_like(points, 7.0)], 1), torch.cat([mask, torch.zeros_like(mask)], 1))
        for m, (points, mask) in inputs.items()
    }
    for variant in (inputs, shuffled, padded):
        torch.testing.assert_close(model(variant)[:1], alone, atol=1e-5, rtol=0)


def test_a_cloud_without_points_gives_numbers():
    model = PoseModel()
    empty = {
        m: (torch.zeros(2, 4, len(columns)), torch.zeros(2, 4, dtype=torch.bool)) for m, columns in MODALITIES.items()
    }
    assert model(empty).isfinite().all()


def test_the_command_writes_table_json_and_figures(recording, tmp_path, capsys):
    arguments = ["--data", str(recording), "--out", str(tmp_path), "--seeds", "2", "--epochs", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "results.json").read_text())
    assert list(summary["runs"]) == [
        "geometry alone",
        "doppler alone",
        "intensity alone",
        "all, plain",
        "all, AWC as in the paper",
        "all, AWC with alphas swapped",
        "all, AWC on inferior only",
    ]
    for name, row in summary["runs"].items():
        assert name in printed
        assert row["seeds"] == 2
        assert row["mpjpe_mm"]["mean"] > row["pa_mpjpe_mm"]["mean"] > 0
    assert summary["modalities"]["geometry"]["pearson"]
    assert {file.name for file in tmp_path.glob("*.png")} == {
        "errors.png",
        "contributions.png",
        "spreads.png",
        "poses.png",
    }
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()}
    assert main(arguments) == 0
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()}


def test_a_wrong_path_says_what_was_looked_for(tmp_path, capsys):
    assert main(["--data", str(tmp_path)]) == 2
    assert str(tmp_path / LAYOUT) in capsys.readouterr().err
    assert main(["--data", str(tmp_path), "--if-found"]) == 0
    assert "--data" in capsys.readouterr().err


def test_a_copy_with_files_missing_names_all_of_them(tmp_path, capsys):
    root = write_recording(tmp_path, frames=1, subjects=(1,))
    (root / LAYOUT / "subject7").mkdir()
    (root / LAYOUT / "subject1/timesplit/kinect_data_test.csv").unlink()
    assert main(["--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count(".csv") == 5
    assert "subject1/timesplit/kinect_data_test.csv" in said
    assert "subject7/timesplit/radar_data_validate.csv" in said
    assert not (tmp_path / "results").exists()


def test_a_layout_without_subjects_is_refused(tmp_path, capsys):
    (tmp_path / LAYOUT).mkdir(parents=True)
    assert main(["--data", str(tmp_path)]) == 2
    assert f"{LAYOUT}/subjectN. Found none in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--seeds", "0"], ["--epochs", "-1"], ["--workers", "-1"], ["--seeds", "two"]])
def test_numbers_that_make_no_sense_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert f"argument {options[0]}: should be a whole number of at least" in capsys.readouterr().err


def test_radar_and_kinect_of_different_length_are_refused(tmp_path):
    root = write_recording(tmp_path, frames=60, subjects=(1,))
    file = root / LAYOUT / "subject1/timesplit/kinect_data_test.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="60 and 59"):
        load(root)


def test_the_data_folder_is_found_by_option_variable_and_place(tmp_path, monkeypatch):
    (tmp_path / "mars" / "inside").mkdir(parents=True)
    monkeypatch.setenv(data_folder.VARIABLE, str(tmp_path))
    assert data_folder.find("mars", "inside") == tmp_path / "mars"
    assert data_folder.find("mars", "inside", tmp_path / "mars") == tmp_path / "mars"
    with pytest.raises(FileNotFoundError, match="Looked for") as error:
        data_folder.find("mars", "other")
    assert str(tmp_path / "mars" / "other") in str(error.value)


def saved(name):
    return json.loads((PROJECT / "benchmarks/results" / name).read_text())["runs"]


def shown(page):
    return (PROJECT / page).read_text().replace("**", "")


def test_the_tables_show_the_saved_results():
    runs, page = saved("mars.json"), shown("examples/mars/README.md")
    for row in runs.values():
        numbers = [cell(row["mpjpe_mm"]), cell(row["pa_mpjpe_mm"]), cell(row["difference_mm"], sign=True)]
        assert f"| {' | '.join(numbers)} |".replace("  |", " |") in page
    paper, plain = runs["all, AWC as in the paper"]["mpjpe_mm"], runs["all, plain"]["mpjpe_mm"]
    worse = f"{100 * (paper['mean'] / plain['mean'] - 1):.1f} %"
    assert f"it costs {worse}" in page
    assert f"AWC costs {worse} here: {cell(paper)} mm against {cell(plain)} mm" in shown("README.md")
    assert f"{worse} worse" in shown("examples/guides/first_settings.md")
    corrected = saved("mars_corrected.json")
    for name in ("all, AWC as in the paper", "all, AWC on inferior only"):
        assert cell(corrected[name]["mpjpe_mm"]) in page


def test_the_real_recording_has_its_frames():
    try:
        root = data_folder.find("mars", LAYOUT)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    splits = load(root)
    assert len(splits.train) + len(splits.held_out) == 5682
    assert len(splits.test) == 5646
    assert next(iter(splits.test.inputs.values()))[0].shape[1] == 64
