import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi.conventions import MODALITIES
from examples.mmfi.reproduce import plans
from examples.mmfi.reproduce.findings import BOTH, NONE, SOME, as_text, findings, have_learned, misordered
from examples.mmfi.settings import Settings
from tests.mmfi.made_up import result

ERRORS = {"rgb": 60.0, "lidar": 70.0, "mmwave": 100.0, "wifi": 170.0, "rgb+lidar": 50.0}
scores = st.fixed_dictionaries({name: st.integers(0, 5).map(float) for name in "abcd"})


def results_with(errors=ERRORS, *, plain=50.5, awc=49.0, spread=None):
    results = []
    for run in plans.runs_of(plans.findings(50).rows, Settings("", "data"), ("P1",), 2):
        error = errors.get("+".join(run.modalities), awc if run.method == "AWC" else plain)
        made = result(run, error + run.seed)
        made["spread_mm"].update(spread or {})
        results.append(made)
    return results


def verdicts(results):
    return [finding.verdict for finding in findings(results)]


PAPER = {"rgb": 80.0, "lidar": 60.0, "mmwave": 10.0, "wifi": 2.0}


def test_results_like_the_papers_show_all_findings():
    assert verdicts(results_with(spread=PAPER)) == [BOTH] * 5


@pytest.mark.parametrize(
    ("place", "changed", "verdict"),
    [
        (0, {"errors": ERRORS | {"lidar": 59.0}}, SOME),
        (0, {"errors": ERRORS | {"lidar": 200.0}}, NONE),
        (1, {"spread": PAPER | {"mmwave": 30.0}}, SOME),
        (1, {"spread": dict(reversed(list(zip(MODALITIES, (2.0, 10.0, 60.0, 80.0), strict=True))))}, NONE),
        (2, {"errors": ERRORS | {"lidar": 59.0}}, SOME),
        (2, {"errors": dict(zip(MODALITIES, (170.0, 100.0, 70.0, 60.0), strict=True)) | {"rgb+lidar": 50.0}}, NONE),
        (3, {"plain": 48.0}, NONE),
        (3, {"plain": 49.9}, BOTH),
        (4, {"awc": 51.0}, NONE),
    ],
)
def test_each_finding_turns_on_its_own_numbers(place, changed, verdict):
    assert verdicts(results_with(**{"spread": PAPER} | changed))[place] == verdict


def test_a_missing_run_is_named():
    with pytest.raises(ValueError, match="`results` should have AWC runs of rgb"):
        findings([result for result in results_with() if result["run"]["method"] == "plain"])


def test_the_text_says_that_data_is_simulated():
    found = findings(results_with())
    assert "SIMULATED" in as_text(found, simulated=True)
    assert "simulated" not in as_text(found, simulated=False).lower()


@pytest.mark.parametrize(("plain", "learned"), [(170.0, True), (180.0, False)])
def test_models_no_better_than_the_mean_pose_are_too_early_to_judge(plain, learned):
    """True poses spread by 100 mm in every coordinate, so that the mean pose errs by 173 mm."""
    results = results_with(plain=plain)
    assert have_learned(results) == learned
    text = as_text(findings(results), simulated=False, learned=have_learned(results))
    assert ("TOO EARLY" in text) == (not learned)


@given(scores)
def test_an_order_without_ties_agrees_with_itself_and_with_nothing_reversed(values):
    ties = 6 - sum(a < b for a in values.values() for b in values.values())
    assert misordered(values, values) == ties
    assert misordered(values, {name: -value for name, value in values.items()}) == 6


@given(scores, scores)
def test_misordering_is_symmetric(first, second):
    assert misordered(first, second) == misordered(second, first)
