import pytest

from awc_balance.contributions.result import Contributions, Profits


def test_profits_are_a_mapping_from_coalitions():
    profits = Profits(["a", "b", "c"], [0, 3, 4, 7], [0.0, 1.0, 2.0, 3.0])
    assert dict(profits) == {
        frozenset(): 0.0,
        frozenset({"a", "b"}): 1.0,
        frozenset({"c"}): 2.0,
        frozenset({"a", "b", "c"}): 3.0,
    }
    assert profits[{"b", "a"}] == 1.0
    assert len(profits) == 4
    assert repr(profits) == repr(dict(profits))


@pytest.mark.parametrize("coalition", [{"a"}, {"d"}, "ab", ["a", "a"], None, 3])
def test_other_coalitions_are_no_keys(coalition):
    profits = Profits(["a", "b", "c"], [0, 3, 4, 7], [0.0, 1.0, 2.0, 3.0])
    assert coalition not in profits
    with pytest.raises(KeyError):
        profits[coalition]


def test_contributions_read_as_one_line():
    result = Contributions({"a": 0.25, "b": 0.5}, {}, {"a": (0.1, 0.4), "b": (0.4, 0.6)}, {}, {}, "additive")
    assert repr(result) == "Contributions(a: 0.25 [0.1, 0.4], b: 0.5 [0.4, 0.6])"
    assert result.additive
