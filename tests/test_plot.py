import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

import awc_balance
from awc_balance import plot
from tests.report.examples import MODALITIES, calibrated, diagonal, history


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


DRAWN = {
    plot.contributions: history,
    plot.penalty: history,
    plot.fisher_by_modality: history,
    plot.fisher_by_layer: diagonal,
}


@pytest.mark.parametrize(("draw", "data"), DRAWN.items())
def test_draws_on_axes_of_yours_or_on_new_ones(draw, data):
    _, ax = plt.subplots()
    figures = plt.get_fignums()
    assert draw(data(), ax=ax) is ax
    assert plt.get_fignums() == figures
    assert draw(data()) is not ax
    assert len(plt.get_fignums()) == 2
    plt.gcf().canvas.draw()


def shown(ax):
    """The values of every line that the legend names."""
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines if line.get_label()[0] != "_"}


def extents(patch):
    """Of a patch in the coordinates of the data, whether it is a rectangle or, before matplotlib 3.9, a polygon."""
    return patch.get_path().get_extents(patch.get_patch_transform())


def test_contributions_with_intervals_groups_and_window():
    rows = history()
    ax = plot.contributions(rows)
    drawn = shown(ax)
    assert drawn["rgb"] == [row["contributions"]["rgb"] for row in rows]
    low, high = rows[0]["intervals"]["rgb"]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert band.y0 == pytest.approx(low)
    assert band.y1 == pytest.approx(rows[-1]["intervals"]["rgb"][1])
    assert high < band.y1
    markers = {
        line.get_marker(): len(line.get_xdata()) for line in ax.lines if line.get_color() == ax.lines[0].get_color()
    }
    superior = sum(row["groups"]["rgb"] == "superior" for row in rows)
    assert (markers["^"], markers["v"]) == (superior, len(rows) - superior)
    window = next(patch for patch in ax.patches if patch.get_label() == "window")
    assert extents(window).x1 == pytest.approx(8.5)


def test_the_window_is_what_is_said_or_where_alphas_are():
    rows = [{"epoch": e, "contributions": {"a": 0.1}, "alphas": {"a": 0.0}} for e in (1, 2, 3)]
    assert not plot.contributions(rows).patches
    assert extents(plot.contributions(rows, window=2).patches[0]).width == pytest.approx(2)
    assert not plot.contributions(rows, window=0).patches


class TestSlopes:
    def test_on_axes_of_yours_or_on_new_ones(self):
        _, axes = plt.subplots(1, 2)
        assert plot.slopes(calibrated(), axes=tuple(axes)) == tuple(axes)
        above, below = plot.slopes(calibrated())
        assert above.figure is below.figure is not axes[0].figure
        above.figure.canvas.draw()

    def test_slopes_with_intervals_above_strengths(self):
        rows = calibrated()
        above, below = plot.slopes(rows)
        assert shown(above)["lidar"] == [row["slopes"]["held_out"]["lidar"] for row in rows]
        assert shown(below)["lidar"] == [row["alphas"]["lidar"] for row in rows]
        band = above.collections[1].get_paths()[0].get_extents()
        assert (band.y0, band.y1) == pytest.approx((0.3, 1.05))
        dashed = [line for line in above.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
        assert [list(line.get_ydata()) for line in dashed] == [[1.02] * len(rows)] * len(MODALITIES)
        assert len(above.get_legend().get_texts()) == len(MODALITIES) + 1

    def test_slopes_of_parts_that_are_nothing_do_not_hide_the_others(self):
        low, high = plot.slopes(calibrated())[0].get_ylim()
        assert low == -1
        assert 1 < high <= 3

    def test_strengths_can_be_told_from_0_where_nobody_is_held_back(self):
        below = plot.slopes(calibrated(held_from=99))[1]
        assert below.get_ylim() == pytest.approx((-0.05, 1.05))

    def test_a_strength_is_no_window(self):
        assert not plot.penalty([row | {"loss": 1.0} for row in calibrated()]).patches


def test_penalty_against_loss():
    drawn = shown(plot.penalty([{"epoch": 1, "loss": 0.5, "penalty": 0.1}, {"epoch": 2, "loss": 0.25}]))
    assert drawn == {"loss": [0.5, 0.25], "penalty": [0.1]}


def test_shares_sum_to_1():
    shares = shown(plot.fisher_by_modality(history())).values()
    assert [sum(epoch) for epoch in zip(*shares, strict=True)] == pytest.approx([1] * 8)
    assert sum(bar.get_width() for bar in plot.fisher_by_layer(diagonal()).patches) == pytest.approx(1)
    assert len(plot.fisher_by_layer(diagonal(), most=3).patches) == 3


def test_names_are_shown_as_they_are():
    ax = plot.contributions([{"epoch": 1, "contributions": {"_hidden": 0.1, "$a$ and $b$": 0.2}}])
    ax.figure.canvas.draw()
    assert [text.get_text().strip("\u200b") for text in ax.get_legend().get_texts()] == ["_hidden", r"\$a\$ and \$b\$"]


@pytest.mark.parametrize(
    ("draw", "arguments", "match"),
    [
        (plot.contributions, ([],), "a row with 'contributions'"),
        (plot.penalty, ([{"epoch": 1}],), "'loss' or 'penalty'"),
        (plot.fisher_by_modality, ([{"epoch": 1, "fisher": {}}],), "'fisher'"),
        (plot.fisher_by_layer, ({},), "should hold a layer"),
        (plot.slopes, (history(),), "'slopes'"),
        (plot.fisher_by_layer, ({"a": {"w": torch.tensor([torch.nan])}},), "finite"),
        (plot.contributions, ([{"contributions": {"a": 1.0}}],), "should have its epoch"),
    ],
)
def test_bad_input_is_refused(draw, arguments, match):
    with pytest.raises(ValueError, match=match):
        draw(*arguments)
    assert not plt.get_fignums()


def test_the_library_does_without_figures_report_and_command():
    root = Path(awc_balance.__file__).parent
    own = ("plot.py", "history.py", "__main__.py", "report", "diagnose")
    for file in root.rglob("*.py"):
        if file.relative_to(root).parts[0] not in own:
            source = file.read_text()
            assert "matplotlib" not in source, file
            assert not re.search(r"import .*awc_balance\.(plot|history|report|diagnose)", source), file
            assert not re.search(
                r"from awc_balance(\.(plot|history|report|diagnose)| import (plot|report))\b", source
            ), file


def test_every_modality_is_in_the_legend():
    assert len(plot.contributions(history()).get_legend().get_texts()) == len(MODALITIES) + 1
