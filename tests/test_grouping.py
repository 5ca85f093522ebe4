import pytest
from hypothesis import given
from hypothesis import strategies as st

from awc_balance import kmeans_groups
from awc_balance.grouping import check_groups

contributions = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.floats(-1e9, 1e9, allow_subnormal=False), min_size=2, max_size=8
)


def squared_error(groups, values):
    total = 0.0
    for group in set(groups.values()):
        members = [values[m] for m in groups if groups[m] == group]
        mean = sum(members) / len(members)
        total += sum((value - mean) ** 2 for value in members)
    return total


@given(contributions)
def test_superior_are_above_inferior(values):
    groups = kmeans_groups(values)
    superior = [values[m] for m in groups if groups[m] == "superior"]
    inferior = [values[m] for m in groups if groups[m] == "inferior"]
    assert list(groups) == list(values)
    if len(set(values.values())) == 1:
        assert not superior
    else:
        assert min(superior) > max(inferior)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(-20, 20), min_size=2, max_size=8))
def test_is_the_best_split_in_two(values):
    """K-means in one dimension: no threshold gives a smaller squared error."""
    if len(set(values.values())) < 2:
        return
    groups = kmeans_groups(values)
    splits = [
        {m: "superior" if v > cut else "inferior" for m, v in values.items()}
        for cut in sorted(set(values.values()))[:-1]
    ]
    assert squared_error(groups, values) <= min(squared_error(split, values) for split in splits) + 1e-9


@given(contributions, st.floats(0.001, 1000))
def test_does_not_know_the_unit(values, factor):
    scaled = {modality: value * factor for modality, value in values.items()}
    if len(set(scaled.values())) == len(set(values.values())):
        assert squared_error(kmeans_groups(scaled), scaled) == pytest.approx(
            squared_error(kmeans_groups(values), scaled), rel=1e-6, abs=1e-9
        )


def test_one_modality_is_inferior():
    assert kmeans_groups({"rgb": 0.4}) == {"rgb": "inferior"}


def test_equal_contributions_are_all_inferior():
    assert kmeans_groups({"a": 0.1, "b": 0.1, "c": 0.1}) == dict.fromkeys("abc", "inferior")


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        (["superior"], TypeError, "mapping by modality. Got list"),
        ({"a": "superior"}, ValueError, "exactly the modalities a, b. Got a"),
        ({"a": "superior", "b": "inferior", "c": "inferior"}, ValueError, "Got a, b, c"),
        ({"a": "superior", "b": "weak"}, ValueError, "Got 'weak' for `b`"),
    ],
)
def test_a_grouping_that_gives_something_else_is_refused(groups, error, words):
    with pytest.raises(error, match=words):
        check_groups(groups, ["a", "b"])
