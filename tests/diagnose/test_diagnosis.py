import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awc_balance import ShapleyContribution
from awc_balance.diagnose import Measured, diagnose, sentences
from tests.models import Concat, build, loader_of


def measured(**bounds):
    """Contributions in the middle of their intervals."""
    return Measured({modality: (low + high) / 2 for modality, (low, high) in bounds.items()}, dict(bounds))


def by_modality(diagnosis, name):
    return {finding.modality: getattr(finding, name) for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("bounds", "roles"),
    [
        ({"a": (0.6, 0.8), "b": (-0.01, 0.01)}, {"a": "leading", "b": "negligible"}),
        ({"a": (0.6, 0.8), "b": (0.2, 0.3)}, {"a": "leading", "b": "contributing"}),
        ({"a": (0.5, 0.8), "b": (0.4, 0.7)}, {"a": "leading", "b": "leading"}),
        ({"a": (0.6, 0.8), "b": (-0.3, 0.4)}, {"a": "leading", "b": "unclear"}),
        ({"a": (0.6, 0.8), "b": (-0.2, -0.1)}, {"a": "leading", "b": "harmful"}),
        ({"a": (-0.5, 0.9), "b": (-0.3, 0.4)}, {"a": "unclear", "b": "unclear"}),
        ({"a": (0.3, 0.4)}, {"a": "leading"}),
        ({"a": (0.0, 0.0), "b": (0.0, 0.0)}, {"a": "negligible", "b": "negligible"}),
    ],
)
def test_roles_are_read_off_the_intervals(bounds, roles):
    assert by_modality(diagnose(measured(**bounds)), "role") == roles


def test_the_highest_comes_first_and_shares_count_by_size():
    diagnosis = diagnose(measured(b=(-0.2, -0.2), a=(0.6, 0.6)))
    assert [finding.modality for finding in diagnosis.findings] == ["a", "b"]
    assert by_modality(diagnosis, "share") == pytest.approx({"a": 0.75, "b": -0.25})


def test_reads_what_was_measured_on_a_model():
    model = build(Concat, modalities=3)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    diagnosis = diagnose(result)
    assert diagnosis.total == pytest.approx(result.profits[frozenset(result)])
    for finding in diagnosis.findings:
        m = finding.modality
        assert finding.contribution == result[m]
        assert finding.interval == result.intervals[m]


def test_without_intervals_nothing_is_judged():
    diagnosis = diagnose(Measured({"a": 0.9, "b": 0.0}))
    assert set(by_modality(diagnosis, "role").values()) == {"unclear"}
    said = " ".join(sentences(diagnosis))
    assert "cannot tell from this much data" in said
    assert "There are no intervals" in said


def test_a_model_that_predicts_no_better_than_nothing_is_said_first():
    assert sentences(diagnose(measured(a=(-0.3, -0.2))))[0].startswith("With all modalities the model predicts no")


def test_without_intervals_it_is_not_said():
    assert "no better" not in " ".join(sentences(diagnose(Measured({"a": -0.3, "b": 0.0}))))


finite = st.floats(-10, 10, allow_subnormal=False)
results = st.dictionaries(st.sampled_from("abcd"), st.tuples(finite, finite).map(sorted).map(tuple), min_size=1).map(
    lambda bounds: measured(**bounds)
)


def scaled(result, factor):
    values = {m: value * factor for m, value in result.contributions.items()}
    return Measured(values, {m: (low * factor, high * factor) for m, (low, high) in result.intervals.items()})


@given(results, st.integers(-20, 20))
def test_the_unit_of_the_profit_does_not_matter(result, power):
    assert by_modality(diagnose(scaled(result, 2.0**power)), "role") == by_modality(diagnose(result), "role")


@given(results)
def test_the_order_of_modalities_does_not_matter(result):
    turned = Measured(dict(reversed(result.contributions.items())), result.intervals)
    assert by_modality(diagnose(turned), "role") == by_modality(diagnose(result), "role")


@given(results)
def test_every_modality_is_spoken_of_in_whole_sentences(result):
    said = sentences(diagnose(result))
    for modality in result.contributions:
        assert any(modality in sentence.replace(":", " ").replace(",", " ").split() for sentence in said)
    assert all(sentence.endswith(".") and "nan" not in sentence and "None" not in sentence for sentence in said)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (({"a": 0.5},), TypeError, "`contributions` should be Contributions"),
        ((measured(a=(0, math.nan)),), ValueError, "finite"),
        ((measured(),), ValueError, "at least one modality"),
        ((Measured({"a": 0.5}, {"a": 0.5}),), TypeError, "pair"),
        ((Measured({"a": 0.5}, {"a": (0, math.inf)}),), ValueError, "finite"),
        ((Measured({"a": 0.5}, {"b": (0, 1)}),), ValueError, "exactly the modalities a"),
    ],
)
def test_bad_input_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        diagnose(*arguments)
