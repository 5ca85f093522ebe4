import matplotlib.pyplot as plt
import numpy as np
import pytest

from examples import figures as shared
from examples.mmfi.reproduce import figures, plans
from examples.mmfi.settings import Settings
from tests.mmfi.made_up import result


@pytest.fixture
def kept(monkeypatch):
    """The figures that are drawn, kept open."""
    drawn = []
    monkeypatch.setattr(shared.plt, "close", drawn.append)
    yield drawn
    monkeypatch.undo()
    plt.close("all")


def made(plan, *, simulated):
    runs = plans.runs_of(plan(50).rows, Settings("", "data"), ("P1",), 2)
    return [result(run, 50.0 + i, simulated=simulated) for i, run in enumerate(runs)]


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


DRAWN = {
    "fig3": (figures.spreads, plans.plain),
    "fig4": (figures.contributions, plans.plain),
    "fig5": (figures.skeletons, plans.joint),
    "fig6": (figures.windows, plans.windows),
    "errors": (figures.errors, plans.findings),
}


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_says_if_and_only_if_its_data_was_simulated(name, simulated, kept, tmp_path):
    draw, plan = DRAWN[name]
    assert draw(made(plan, simulated=simulated), tmp_path / "new" / "figure.png").stat().st_size > 0
    assert ("SIMULATED" in words(kept[0])) == simulated


def test_the_window_0_is_plain_training(kept, tmp_path):
    results = made(plans.windows, simulated=True)
    figures.windows(results, tmp_path / "figure.png")
    axes = kept[0].axes[0]
    means = axes.lines[-1].get_xydata()
    assert means[:, 0].tolist() == [0, 5, 10, 20, 30, 40, 50]
    plain = [run["test"]["mpjpe_mm"] for run in results if run["run"]["method"] == "plain"]
    assert means[0, 1] == pytest.approx(np.mean(plain))


def test_skeletons_have_the_same_colours_in_whatever_order_runs_were_done(kept, tmp_path):
    results = made(plans.joint, simulated=True)
    for some in (results, results[::-1]):
        figures.skeletons(some, tmp_path / "figure.png")
    first, second = (
        {line.get_label(): line.get_color() for line in figure.axes[0].lines if not line.get_label().startswith("_")}
        for figure in kept
    )
    assert first == second
    assert first.keys() == {"true", "plain", "AWC"}


def test_the_head_is_drawn_above_the_feet(kept, tmp_path):
    """The camera's axes point right, down and away; those of a picture right, away and up."""
    run = made(plans.plain, simulated=True)[0]
    pose = np.zeros((1, 17, 3))
    pose[0, 10] = (100, -900, 3000)
    run["poses"] = {"true": pose.tolist(), "predicted": pose.tolist()}
    assert figures._upright(run["poses"]["true"])[0, 10].tolist() == [0.1, 3.0, 0.9]
