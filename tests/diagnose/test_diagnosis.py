import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awc_balance import ShapleyContribution
from awc_balance.diagnose import Measured, diagnose, sentences
from tests.models import Concat, build, loader_of


def measured(profits=None, **bounds):
    """Contributions in the middle of their intervals."""
    values = {modality: (low + high) / 2 for modality, (low, high) in bounds.items()}
    return Measured(values, dict(bounds), profits or {})


def by_modality(diagnosis, name):
    return {finding.modality: getattr(finding, name) for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("bounds", "roles"),
    [
        ({"a": (0.6, 0.8), "b": (-0.01, 0.01)}, {"a": "leading", "b": "idle"}),
        ({"a": (0.6, 0.8), "b": (0.2, 0.3)}, {"a": "leading", "b": "contributing"}),
        ({"a": (0.5, 0.8), "b": (0.4, 0.7)}, {"a": "leading", "b": "leading"}),
        ({"a": (0.6, 0.8), "b": (-0.3, 0.4)}, {"a": "leading", "b": "unclear"}),
        ({"a": (0.6, 0.8), "b": (-0.2, -0.1)}, {"a": "leading", "b": "harmful"}),
        ({"a": (-0.5, 0.9), "b": (-0.3, 0.4)}, {"a": "unclear", "b": "unclear"}),
        ({"a": (0.3, 0.4)}, {"a": "leading"}),
        ({"a": (0.0, 0.0), "b": (0.0, 0.0)}, {"a": "idle", "b": "idle"}),
    ],
)
def test_roles_are_read_off_the_intervals(bounds, roles):
    assert by_modality(diagnose(measured(**bounds)), "role") == roles


def test_the_highest_comes_first_and_shares_count_by_size():
    diagnosis = diagnose(measured(b=(-0.2, -0.2), a=(0.6, 0.6)))
    assert [finding.modality for finding in diagnosis.findings] == ["a", "b"]
    assert by_modality(diagnosis, "share") == pytest.approx({"a": 0.75, "b": -0.25})


@pytest.mark.parametrize(
    ("training", "held_out", "answer"),
    [((0.58, 0.62), (0.28, 0.32), "yes"), ((0.58, 0.62), (0.57, 0.61), "unclear"), ((0.6, 0.601), (0.6, 0.602), "no")],
)
def test_overfitting_is_a_sure_gap_between_training_and_held_out(training, held_out, answer):
    diagnosis = diagnose(measured(a=training), measured(a=held_out))
    finding = diagnosis.findings[0]
    assert finding.overfits == answer
    assert finding.gap == pytest.approx(sum(training) / 2 - sum(held_out) / 2)
    assert finding.hold_back == {"yes": "worth trying", "no": "no sign", "unclear": "cannot tell"}[answer]


def test_the_interval_of_the_gap_adds_half_widths_in_squares():
    finding = diagnose(measured(a=(0.7, 1.3)), measured(a=(0.1, 0.9))).findings[0]
    assert finding.gap_interval == pytest.approx((0.5 - 0.5, 0.5 + 0.5))


def test_an_idle_modality_may_be_left_out_or_starved():
    diagnosis = diagnose(measured(a=(0.6, 0.8), b=(-0.01, 0.01)))
    assert by_modality(diagnosis, "leave_out") == {"a": "no sign", "b": "worth trying"}
    assert by_modality(diagnosis, "hold_back")["a"] == "test first"
    assert any("Train on b alone" in sentence for sentence in sentences(diagnosis))


def test_a_modality_that_others_stand_in_for_should_be_tested():
    both, none = frozenset("ab"), frozenset()
    profits = {none: 0.0, frozenset("a"): 0.9, frozenset("b"): 0.5, both: 0.9}
    diagnosis = diagnose(measured(profits, a=(0.64, 0.66), b=(0.24, 0.26)))
    assert by_modality(diagnosis, "cost") == pytest.approx({"a": 0.4, "b": 0.0})
    assert by_modality(diagnosis, "leave_out") == {"a": "no sign", "b": "test first"}


def test_a_balanced_model_is_told_so():
    balanced = measured(a=(0.4, 0.41), b=(0.3, 0.31))
    assert sentences(diagnose(balanced, balanced))[-1].startswith("Nothing here speaks for")
    assert not sentences(diagnose(balanced))[-1].startswith("Nothing")


def test_reads_what_was_measured_on_a_model():
    model = build(Concat, modalities=3)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    diagnosis = diagnose(result, result)
    everyone = frozenset(result)
    assert diagnosis.total == pytest.approx(result.profits[everyone])
    for finding in diagnosis.findings:
        m = finding.modality
        assert finding.contribution == finding.training == result[m]
        assert finding.interval == result.intervals[m]
        assert finding.cost == pytest.approx(result.profits[everyone] - result.profits[everyone - {m}])


def test_without_intervals_nothing_is_judged():
    single = Measured({"a": 0.9, "b": 0.0})
    diagnosis = diagnose(single, single)
    assert set(by_modality(diagnosis, "role").values()) == {"unclear"}
    for verdict in ("hold_back", "leave_out"):
        assert set(by_modality(diagnosis, verdict).values()) == {"cannot tell"}
    said = " ".join(sentences(diagnosis))
    assert "cannot tell from this much data" in said
    assert "There are no intervals" in said


def test_a_model_that_predicts_no_better_than_nothing_is_said_first():
    assert sentences(diagnose(measured(a=(-0.3, -0.2))))[0].startswith("With all modalities the model predicts no")


finite = st.floats(-10, 10, allow_subnormal=False)
results = st.dictionaries(st.sampled_from("abcd"), st.tuples(finite, finite).map(sorted).map(tuple), min_size=1).map(
    lambda bounds: measured(**bounds)
)


def scaled(result, factor):
    values = {m: value * factor for m, value in result.contributions.items()}
    return Measured(values, {m: (low * factor, high * factor) for m, (low, high) in result.intervals.items()})


@given(results, st.integers(-20, 20))
def test_the_unit_of_the_profit_does_not_matter(result, power):
    for name in ("role", "hold_back", "leave_out"):
        assert by_modality(diagnose(scaled(result, 2.0**power)), name) == by_modality(diagnose(result), name)


@given(results)
def test_the_order_of_modalities_does_not_matter(result):
    turned = Measured(dict(reversed(result.contributions.items())), result.intervals)
    assert by_modality(diagnose(turned), "role") == by_modality(diagnose(result), "role")


@given(results)
def test_data_that_equal_the_training_data_never_show_overfitting(result):
    assert "yes" not in by_modality(diagnose(result, result), "overfits").values()


@given(results, st.booleans())
def test_every_modality_is_spoken_of_in_whole_sentences(result, twice):
    said = sentences(diagnose(result, result if twice else None))
    for modality in result.contributions:
        assert any(modality in sentence.replace(":", " ").replace(",", " ").split() for sentence in said)
    assert all(sentence.endswith(".") and "nan" not in sentence and "None" not in sentence for sentence in said)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (({"a": 0.5},), TypeError, "`contributions` should be Contributions"),
        ((measured(a=(0, 1)), {"a": 0.5}), TypeError, "`held_out` should be Contributions"),
        ((measured(a=(0, 1)), measured(b=(0, 1))), ValueError, "exactly the modalities a"),
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
