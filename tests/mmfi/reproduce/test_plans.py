from collections import Counter
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mmfi.conventions import MODALITIES
from examples.mmfi.methods import part, table_options
from examples.mmfi.protocols import PROTOCOLS
from examples.mmfi.reproduce import plans, published
from examples.mmfi.reproduce.runs import scaled
from examples.mmfi.settings import METHODS, Settings

COMMON = Settings("", "data")
PLANS = {
    "table1": plans.table1,
    "table3": lambda _: plans.table3(),
    "table4": plans.table4,
    "windows": plans.windows,
    "plain": plans.plain,
    "joint": plans.joint,
    "poses": plans.poses,
    "demo": plans.demo,
    "findings": plans.findings,
}


def names(plan, protocols=("P1",), common=COMMON):
    return [run.name for run in plans.runs_of(plan.rows, common, protocols, 1)]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("epochs", [1, 2, 7, 50])
def test_runs_differ_only_if_their_names_do(plan, epochs):
    runs = plans.runs_of(PLANS[plan](epochs).rows, scaled(COMMON, epochs), ("P1", "P3"), 2)
    described = {(run.name, run.seed): asdict(run) for run in runs}
    assert len(described) == len(runs)
    assert len({str(description) for description in described.values()}) == len(runs)


@pytest.mark.parametrize("plan", PLANS)
def test_every_seed_is_finished_before_the_next_begins(plan):
    seeds = [run.seed for run in plans.runs_of(PLANS[plan](50).rows, COMMON, ("P1",), 3)]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("plan", PLANS)
def test_a_baseline_is_a_run_of_the_same_plan(plan):
    rows = PLANS[plan](50).rows
    known = set(names(PLANS[plan](50)))
    baselines = [row.baseline for row in rows if row.baseline is not None]
    assert {plans.settings_of(change, COMMON, "P1").name for change in baselines} <= known


def test_tables_share_their_runs():
    """Plain training of all four is in every table, the paper's AWC in all but Table 3."""
    shared = plans.settings_of({}, COMMON, "P1")
    for plan in PLANS.values():
        assert shared in plans.runs_of(plan(50).rows, COMMON, ("P1",), 1)
    awc = plans.settings_of(plans.awc(50), COMMON, "P1")
    for plan in (plans.table1, plans.table4, plans.windows, plans.joint, plans.findings):
        assert awc in plans.runs_of(plan(50).rows, COMMON, ("P1",), 1)


def test_the_settings_of_the_papers_runs_are_the_papers():
    (run,) = [run for run in plans.runs_of(plans.joint(50).rows, scaled(COMMON, 50), ("P1",), 1) if run.method == "AWC"]
    assert run.method_options == {"alpha_superior": 20_000.0, "alpha_inferior": 10_000.0, "window": 20}
    same = {field.name for field in fields(Settings)} - {"name", "method", "method_options"}
    assert {name: getattr(run, name) for name in same} == {name: getattr(COMMON, name) for name in same}


@given(st.integers(1, 200), st.floats(0.01, 1.0))
def test_windows_lie_within_the_run(epochs, share):
    assert 1 <= part(epochs, share) <= epochs


@given(st.permutations(MODALITIES), st.integers(1, 4))
def test_the_order_of_modalities_does_not_matter(order, count):
    chosen = tuple(order[:count])
    assert plans.settings_of({"modalities": chosen}, COMMON, "P1") == plans.settings_of(
        {"modalities": tuple(sorted(chosen))}, COMMON, "P1"
    )


@pytest.mark.parametrize("epochs", [1, 5, 50])
def test_table_1_has_runs_for_every_system_and_every_method_under_each_fusion(epochs):
    rows = plans.table1(epochs).rows
    assert all(row.change is not None and not row.absent for row in rows)
    labels = [row.label for row in rows]
    assert labels[:3] == ["MM-Fi baseline", "X-Fi", "HPE-Li (published: x, y only)"]
    assert set(labels[3:]) == {
        fusion if method == "plain" else f"{fusion} + {method}"
        for fusion in ("concat", "attention")
        for method in METHODS
    }
    runs = plans.runs_of(rows, scaled(COMMON, epochs), ("P1",), 1)
    assert len(runs) == len(rows)
    assert Counter(run.method for run in runs) == {"plain": 5} | {method: 2 for method in METHODS if method != "plain"}


@pytest.mark.parametrize("fusion", published.METHODS)
def test_published_numbers_of_table_1_stand_in_the_rows_of_their_methods(fusion):
    of_row = {row.label: row.published for row in plans.table1(50).rows}
    for method, errors in published.METHODS[fusion].items():
        assert of_row[fusion if method == "plain" else f"{fusion} + {method}"] == errors


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epochs", [1, 7, 50, 200])
def test_windows_of_every_method_lie_within_the_run(method, epochs):
    options = table_options(method, epochs)
    for name in options.keys() & {"window", "warmup", "super_epoch", "memory"}:
        assert 1 <= options[name] <= epochs


def test_there_is_at_least_one_seed():
    with pytest.raises(ValueError, match="`seeds` should be 1 or more. Got `0`"):
        plans.runs_of(plans.table3().rows, COMMON, ("P1",), 0)


def test_published_numbers_agree_where_tables_overlap():
    concat = published.METHODS["concat"]
    assert published.SUBSETS[MODALITIES] == concat["plain"]["P1"]
    assert published.ALPHAS[20_000, 10_000].mpjpe == concat["AWC"]["P1"].mpjpe
    assert all(set(errors) <= set(PROTOCOLS) for errors in published.SYSTEMS.values())


@pytest.mark.parametrize("count", published.COSTS)
def test_published_overhead_follows_from_the_published_times(count):
    cost = published.COSTS[count]
    percent = 100 * (cost.coalitions + cost.correlation + cost.score) / (cost.forward + cost.backward)
    assert percent == pytest.approx(published.OVERHEADS["concat"][count], abs=0.5)


@pytest.mark.parametrize("errors", [e for m in published.METHODS.values() for p in m.values() for e in p.values()])
def test_alignment_lowers_the_published_errors(errors):
    assert errors.pa_mpjpe < errors.mpjpe
