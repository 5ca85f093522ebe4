import json
from dataclasses import replace

import pytest

from examples.mmfi.reproduce import plans, tables
from examples.mmfi.settings import Settings
from examples.report import contributions
from tests.mmfi.made_up import result

COMMON = Settings("", "data")


def made(plan, *, simulated, seeds=2, error=50.0, common=COMMON):
    runs = plans.runs_of(plan.rows, common, ("P1",), seeds)
    return [result(run, error + 10 * i, simulated=simulated) for i, run in enumerate(runs)]


def table(plan, results, common=COMMON):
    return tables.summarize(plan, results, common, ("P1",))


@pytest.mark.parametrize("render", [tables.as_text, tables.as_markdown])
@pytest.mark.parametrize("plan", [plans.table1(50), plans.table3(), plans.table4(50), plans.findings(50)])
def test_simulated_data_is_called_simulated_beside_published_numbers(plan, render):
    text = render(table(plan, made(plan, simulated=True)))
    assert text.startswith(("## " if render is tables.as_markdown else "") + plan.title + " (simulated data)")
    assert tables.SIMULATED in text
    assert "published, real data" in text


@pytest.mark.parametrize("render", [tables.as_text, tables.as_markdown])
def test_real_data_is_not_called_simulated(render):
    plan = plans.table3()
    assert "simulated" not in render(table(plan, made(plan, simulated=False))).lower()


def test_one_simulated_run_makes_the_table_simulated():
    plan = plans.joint(50)
    results = made(plan, simulated=False)
    results[-1]["simulated"] = True
    assert table(plan, results)["simulated"]


def test_rows_without_runs_have_no_numbers_of_ours():
    plan = replace(plans.table3(), rows=(*plans.table3().rows, plans.Row("another", absent="no data of it")))
    summary = table(plan, made(plan, simulated=False))
    (absent,) = [row for row in summary["protocols"]["P1"] if row["absent"]]
    assert "mpjpe_mm" not in absent
    line = next(line for line in tables.as_text(summary).split("\n") if line.startswith("another"))
    assert line.split(None, 1)[1] == "(no data of it)"


def test_an_unfinished_row_says_so():
    plan = plans.joint(50)
    assert "(not finished)" in tables.as_text(table(plan, made(plan, simulated=False, seeds=1)[:1]))


def test_numbers_stand_in_their_row():
    plan = plans.joint(50)
    line = next(line for line in tables.as_text(table(plan, made(plan, simulated=False))).split("\n") if "AWC" in line)
    # Errors 50, 60, 70, 80: plain has 50 and 70, AWC 60 and 80.
    assert line.split() == ["AWC", "70.0", "±", "14.1", "42.0", "±", "8.5", "+10.0", "±", "0.0", "2"]


def test_a_table_is_json():
    plan = plans.findings(50)
    json.dumps(table(plan, made(plan, simulated=True)), allow_nan=False)


def test_the_published_split_is_the_only_one_with_published_numbers():
    plan, other = plans.table3(), replace(COMMON, split="S3")
    rows = table(plan, made(plan, simulated=False, common=other), other)["protocols"]["P1"]
    assert all(row["published"] is None for row in rows)


def test_carriers_are_those_of_plain_training_of_all():
    plan = plans.findings(50)
    results = made(plan, simulated=True)
    carriers = table(plan, results)["carriers"]["P1"]
    plain = [run for run in results if len(run["run"]["modalities"]) == 4 and run["run"]["method"] == "plain"]
    assert carriers == contributions(plain, ("rgb", "lidar", "mmwave", "wifi"))
    assert tables.as_text(table(plan, results)).split("\n")[-1].split() == ["true", "poses", "100.0"]


def test_carriers_of_unfinished_runs_are_empty():
    plan = plans.plain(50)
    other = made(plans.table3(), simulated=True)[:1]
    assert table(plan, other)["carriers"] == {"P1": {"modalities": {}, "target_spread_mm": None}}


def test_departures_from_the_paper_are_named():
    assert tables.about(COMMON) == "Preset paper, split S1."
    text = tables.about(replace(COMMON, epochs=20, batch_size=32))
    assert "epochs 20 (paper: 50)" in text
    assert "batch_size 32 (paper: 192)" in text
