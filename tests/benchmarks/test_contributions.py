import numpy as np
import pytest

from benchmarks import contributions


def test_others_are_timed_and_compared(monkeypatch):
    monkeypatch.setitem(contributions.SOLVERS, "another", lambda table: np.array([20.0, 30.0]) - table[0])
    row = contributions.exact(2, ["another"], 1)
    assert row["times_ours"]["another"] > 0
    assert row["largest_difference"].keys() == {"another"}


@pytest.mark.parametrize(("name", "tolerance"), [("shapiq", 1e-12), ("captum", 1e-6), ("shap", 1e-12)])
def test_exact_values_are_those_of_other_libraries(name, tolerance):
    pytest.importorskip(name)
    assert contributions.exact(3, [name], 1)["largest_difference"][name] < tolerance  # captum adds up in float32


@pytest.mark.parametrize(("additive", "route"), [(True, "additive"), (False, "together")])
def test_shortcuts_are_taken_and_change_nothing(additive, route):
    row = contributions.shortcut(4, additive=additive, repeats=1)
    assert row["route"] == route
    assert row["largest_difference"] < 1e-6


def test_errors_of_samples_are_about_as_estimated():
    row = contributions.sampling(8, 100, 5, [])
    assert 0 < row["relative_error"]["ours"] < 0.2
    assert row["relative_error_as_estimated"] == pytest.approx(row["relative_error"]["ours"], rel=0.5)


def test_lines_name_what_is_missing():
    result = {
        "hardware": "a machine",
        "versions": {},
        "not_installed": ["shap"],
        "exact": [contributions.exact(2, [], 1)],
        "shortcuts": [],
        "sampling": [contributions.sampling(6, 30, 2, [])],
    }
    lines = contributions.lines(result)
    assert "shap is not installed: left out" in lines
    assert any("nothing to compare with" in line for line in lines)
    assert "6 modalities, budget 30" in lines[-1]
