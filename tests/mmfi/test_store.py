import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.mmfi.store import INDEX, StoreWriter, Table, map_tables, read_index

TABLES = {"rows": Table("<f4", (2, 3)), "ids": Table("<i8", ())}


def records(count, start=0):
    ids = np.arange(start, start + count)
    return {"ids": ids, "rows": np.broadcast_to(ids[:, None, None], (count, 2, 3))}


def read(folder):
    return map_tables(folder, read_index(folder))


def write(folder, *counts, key="entry"):
    with StoreWriter(folder, TABLES, {"version": 1}) as store:
        for number, count in enumerate(counts):
            store.append(f"{key}{number}", {"count": count}, records(count, store.lengths["ids"]))


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 5), max_size=5))
def test_tables_are_the_appended_records_in_order(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("store") / "out"
    write(folder, *counts)
    tables = read(folder)
    for name, expected in records(sum(counts)).items():
        np.testing.assert_array_equal(tables[name], expected)
        assert tables[name].dtype == TABLES[name].dtype


def test_a_killed_writer_leaves_nothing_behind(tmp_path):
    write(tmp_path, 3)
    for name in TABLES:
        with (tmp_path / f"{name}.bin").open("ab") as file:
            file.write(b"half an entry")
    (tmp_path / f"{INDEX}.tmp").write_text("{")
    np.testing.assert_array_equal(read(tmp_path)["ids"], np.arange(3))
    write(tmp_path, 2, key="later")
    np.testing.assert_array_equal(read(tmp_path)["ids"], np.arange(5))
    assert list(read_index(tmp_path)["entries"]) == ["entry0", "later0"]


def test_a_writer_killed_before_its_first_index_can_begin_again(tmp_path):
    (tmp_path / f"{INDEX}.tmp").write_text("{")
    write(tmp_path, 2)
    assert len(read(tmp_path)["ids"]) == 2


def test_a_second_writer_is_noticed(tmp_path):
    with StoreWriter(tmp_path, TABLES, {}) as first, StoreWriter(tmp_path, TABLES, {}) as second:
        first.append("a", {}, records(2))
        with pytest.raises(OSError, match="One process at a time"):
            second.append("b", {}, records(1))
    assert list(read_index(tmp_path)["entries"]) == ["a"]


def test_maps_are_read_only(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(ValueError, match="read-only"):
        read(tmp_path)["ids"][0] = 1


def test_a_cut_file_is_refused(tmp_path):
    write(tmp_path, 3)
    with (tmp_path / "ids.bin").open("r+b") as file:
        file.truncate(20)
    with pytest.raises(ValueError, match=r"at least 24 bytes. Got 20"):
        read(tmp_path)
    with pytest.raises(ValueError, match="at least 24 bytes"):
        write(tmp_path, 1)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="should be a packed folder"):
        read_index(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds thesis.tex but no index"):
        write(tmp_path, 1)


@pytest.mark.parametrize(
    ("content", "fault"),
    [("{", "does not read"), ("", "does not read"), ("3", "does not read"), ('{"format": 3}', "has no `header`")],
)
def test_a_damaged_index_is_named(tmp_path, content, fault):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ValueError, match=f"{INDEX}` should be .* {fault}. Pack the data again, into an empty folder"):
        read_index(tmp_path)


def test_another_header_or_format_is_refused(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(ValueError, match="Changed: version from 1 to 2"):
        StoreWriter(tmp_path, TABLES, {"version": 2})
    with pytest.raises(ValueError, match="the tables"):
        StoreWriter(tmp_path, {"ids": TABLES["ids"]}, {"version": 1})
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "format": 0}))
    with pytest.raises(ValueError, match="format"):
        read_index(tmp_path)
