from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.report import cell, kind, markdown_table, mean_and_sd, named, text_table

finite = st.floats(-1e6, 1e6)
texts = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)


def run(name: str, seed: int, error: float) -> dict:
    return {"run": {"name": name, "seed": seed}, "test": {"mpjpe_mm": error, "pa_mpjpe_mm": error / 2}}


@given(st.lists(finite, min_size=2, max_size=6))
def test_mean_and_sd_are_those_of_the_standard_library(values):
    spread = mean_and_sd(values)
    assert spread["mean"] == pytest.approx(mean(values))
    assert spread["sd"] == pytest.approx(stdev(values))


def test_a_single_seed_has_no_spread_and_none_is_shown():
    assert mean_and_sd([51.0]) == {"mean": 51.0, "sd": None}
    assert cell(mean_and_sd([51.0])) == "51.0"


def test_nothing_gives_nothing():
    assert mean_and_sd([]) is None
    assert cell(None) == ""


def test_differences_are_taken_between_equal_seeds():
    results = [run("a", 0, 10.0), run("a", 1, 20.0), run("b", 1, 26.0), run("b", 2, 99.0)]
    assert kind(results, "b", "a")["difference_mm"] == {"mean": 6.0, "sd": None}


@pytest.mark.parametrize("baseline", [None, "a", "unknown"])
def test_there_is_no_difference_to_oneself_or_to_nothing(baseline):
    assert kind([run("a", 0, 10.0)], "a", baseline)["difference_mm"] is None


def test_the_order_of_results_does_not_matter():
    results = [run(name, seed, error) for error, (name, seed) in enumerate((n, s) for n in "ab" for s in range(3))]
    assert kind(results, "b", "a") == kind(results[::-1], "b", "a")
    assert [result["run"]["seed"] for result in named(results, "b")] == [0, 1, 2]


@given(st.lists(st.tuples(texts, texts, texts), max_size=5))
def test_lines_of_a_text_table_end_at_one_column(rows):
    lines = text_table(["one", "two", "three|"], [[*row[:2], row[2] + "|"] for row in rows]).split("\n")
    assert len(lines) == len(rows) + 1
    assert len({len(line) for line in lines}) == 1


def test_markdown_keeps_bars_inside_cells():
    last = markdown_table(["a", "b"], [["x|y", "1"]]).split("\n")[-1]
    assert last == "| x\\|y | 1 |"
