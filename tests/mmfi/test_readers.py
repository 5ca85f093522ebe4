import pickle
from io import BytesIO

import numpy as np
import pytest
from scipy.io import savemat

from examples.mmfi.conventions import Conventions
from examples.mmfi.readers import READERS, DamagedFileError, read_ground_truth
from tests.mmfi.raw_tree import CLIPS

DEFAULT = Conventions()


def npy(array, **options):
    stream = BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def archive(array):
    stream = BytesIO()
    np.savez(stream, array)
    return stream.getvalue()


def mat(**variables):
    stream = BytesIO()
    savemat(stream, variables)
    return stream.getvalue()


AMPLITUDE = np.ones((3, 114, 10))
FAR = np.random.default_rng(0).normal((3, 0, 0), 0.4, size=(40, 3))
RADAR = np.column_stack([FAR[:10], np.arange(5.0, 15.0), FAR[:10, 1]])
NAN_POINTS = np.array([[1.0, np.nan, 2.0]])

DAMAGED = {
    "rgb": {
        "empty": (b"", "empty"),
        "truncated": (npy(np.ones((17, 2)))[:-9], "does not read"),
        "truncated header": (npy(np.ones((17, 2)))[:20], "does not read"),
        "not a file of numpy": (b"<html>not found</html>", "does not read"),
        "pickle": (pickle.dumps([1, 2]), "does not read"),
        "objects": (npy(np.array([None] * 34).reshape(17, 2), allow_pickle=True), "does not read"),
        "archive": (archive(np.ones((17, 2))), "archive"),
        "shape": (npy(np.ones((17, 3))), r"shape \(17, 3\)"),
        "kind": (npy(np.full((17, 2), "a")), "<U1 instead of real"),
        "complex": (npy(np.ones((17, 2), dtype=complex)), "complex128"),
        "nan": (npy(np.full((17, 2), np.nan)), "nan"),
    },
    "lidar": {
        "empty": (b"", "empty"),
        "truncated": (np.ones((4, 3)).tobytes()[:-1], "95 bytes"),
        "columns": (np.ones((4, 5)).tobytes(), "no multiple of 3"),
        "nan": (NAN_POINTS.tobytes(), "nan"),
        "far": (np.full((2, 3), -101.0).tobytes(), r"x beyond 100 \(written as float32, or with another number"),
        "float32": (FAR.astype("f4").tobytes(), "float32"),
        "float32, near": ((FAR / 10).astype("f4").tobytes(), "float32"),
    },
    "mmwave": {
        "empty": (b"", "empty"),
        "truncated": (np.ones((4, 5)).tobytes()[:-8], "152 bytes"),
        "columns": (np.ones((4, 3)).tobytes(), "no multiple of 5"),
        "far": (np.full((2, 5), 101.0).tobytes(), "x beyond 100"),
        "signal": (np.array([[1.0, 1, 1, 2e6, 1]]).tobytes(), "intensity beyond 1e"),
        "float32": (RADAR.astype("f4").tobytes(), "float32"),
    },
    "wifi": {
        "empty": (b"", "empty"),
        "truncated": (mat(CSIamp=AMPLITUDE)[:3000], "MATLAB"),
        "truncated header": (mat(CSIamp=AMPLITUDE)[:100], "MATLAB"),
        "not a file of MATLAB": (b"x" * 500, "MATLAB"),
        "variable": (mat(CSIphase=AMPLITUDE), "lacks the variable CSIamp"),
        "shape": (mat(CSIamp=AMPLITUDE[:2]), r"shape \(2, 114, 10\)"),
        "kind": (mat(CSIamp="text"), "instead of real numbers"),
        "cells": (mat(CSIamp=np.array([1, "a"], dtype=object)), "object instead"),
        "nothing finite": (mat(CSIamp=AMPLITUDE * np.nan), "no finite value"),
    },
}
CASES = [(modality, *case) for modality, cases in DAMAGED.items() for case in cases.values()]
NAMES = [f"{modality}, {name}" for modality, cases in DAMAGED.items() for name in cases]


@pytest.mark.parametrize(("modality", "content", "reason"), CASES, ids=NAMES)
def test_damaged_files_raise_one_error_that_names_file_and_fault(tmp_path, modality, content, reason):
    path = tmp_path / "frame001"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=reason) as caught:
        READERS[modality](path, DEFAULT)
    assert str(path) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason) == (path, caught.value.reason)


@pytest.mark.parametrize("modality", READERS)
def test_reads_what_was_written(tree, modality):
    for clip in CLIPS:
        for number, expected in tree.written[clip][modality].items():
            frame = READERS[modality](tree.file(clip, modality, number), DEFAULT)
            np.testing.assert_array_equal(frame, expected)
            assert frame.dtype == np.float64


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i4", "u2"])
def test_other_real_numbers_are_accepted(tmp_path, dtype):
    keypoints = np.arange(34).reshape(17, 2).astype(dtype)
    np.save(tmp_path / "frame001.npy", keypoints)
    frame = READERS["rgb"](tmp_path / "frame001.npy", DEFAULT)
    np.testing.assert_array_equal(frame, np.arange(34).reshape(17, 2))
    assert frame.dtype == np.float64


def test_a_ground_truth_may_have_any_number_of_frames(tmp_path):
    for frames in (1, 60, 300):
        np.save(tmp_path / "ground_truth.npy", np.ones((frames, 17, 3)))
        assert read_ground_truth(tmp_path / "ground_truth.npy", DEFAULT).shape == (frames, 17, 3)


@pytest.mark.parametrize("shape", [(0, 17, 3), (17, 3), (5, 17, 2), (5, 16, 3)])
def test_a_ground_truth_of_another_shape_is_damaged(tmp_path, shape):
    np.save(tmp_path / "ground_truth.npy", np.ones(shape))
    with pytest.raises(DamagedFileError, match="shape"):
        read_ground_truth(tmp_path / "ground_truth.npy", DEFAULT)


def test_an_unreadable_disk_is_not_taken_for_a_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        READERS["rgb"](tmp_path / "frame001.npy", DEFAULT)


@pytest.mark.parametrize("modality", ["lidar", "mmwave"])
def test_float32_points_read_by_their_convention(tmp_path, modality):
    points = {"lidar": FAR, "mmwave": RADAR}[modality].astype("f4")
    points.tofile(tmp_path / "frame001.bin")
    read = READERS[modality](tmp_path / "frame001.bin", Conventions(point_dtype="float32"))
    assert read.dtype == np.float64
    assert (read == points).all()


@pytest.mark.parametrize("points", [FAR * [1, 1, 0], FAR.astype("f4").astype("f8"), FAR * [1, 1e-16, 1e-16]])
def test_points_of_float64_are_not_taken_for_float32(tmp_path, points):
    points.tofile(tmp_path / "frame001.bin")
    assert (READERS["lidar"](tmp_path / "frame001.bin", DEFAULT) == points).all()
