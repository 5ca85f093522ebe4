"""A disk that is full: old files stay as they were, and nothing is left lying about."""

import contextlib
import resource

import matplotlib.pyplot as plt
import pytest
import torch

from awc_balance.report import report
from awc_balance.report.files import write_whole
from examples.figures import save as save_figure
from examples.mmfi import checkpoint, store
from examples.sweep import write_json

LEAST, MUCH = 16, "x" * 5000

HISTORY = [{"epoch": 1, "contributions": {"rgb": 0.5, "wifi": 0.1}, "alphas": {"rgb": 1.0, "wifi": 2.0}}]


def figure(path, size):
    picture, axes = plt.subplots()
    axes.plot(range(size))
    try:
        save_figure(picture, "title", path)
    finally:
        plt.close(picture)


WRITERS = {
    "a report": ("report.html", lambda path, size: report(HISTORY, path, notes=["x" * size])),
    "a text": ("table.md", lambda path, size: write_whole(path, "x" * size)),
    "a result": ("run.json", lambda path, size: write_json(path, {"value": "x" * size})),
    "an index": ("index.json", lambda path, size: store.write_json(path, {"value": "x" * size})),
    "a checkpoint": ("last.pt", lambda path, size: checkpoint.save(path, {}, {"x": torch.zeros(size)})),
    "a figure": ("figure.png", figure),
}


@contextlib.contextmanager
def disk_with(bytes_left):
    """Let no file grow beyond so many bytes: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("there", [True, False])
def test_an_old_file_survives_and_no_draft_stays(kind, there, tmp_path):
    name, write = WRITERS[kind]
    if there:
        write(tmp_path / name, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with disk_with(LEAST), pytest.raises((OSError, RuntimeError)):
        write(tmp_path / name, 5000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(tmp_path / name, 5000)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() != before.get(name)


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """A file whose name differs by its ending only must not share a draft either."""
    write_json(tmp_path / "run.json", {"value": 1})
    (tmp_path / "run.tmp").write_text("somebody else's")
    write_json(tmp_path / "run.json", {"value": 2})
    assert (tmp_path / "run.tmp").read_text() == "somebody else's"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        report(HISTORY, tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "no folder"
