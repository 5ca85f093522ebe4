import pytest
import torch

from awc_balance import ShapleyContribution, shapley_values
from examples.mmfi.models import build_model
from examples.mmfi.reproduce import costs
from examples.mmfi.reproduce.tables import SIMULATED
from examples.mmfi.settings import Settings
from examples.mmfi.timing import Clock, batch_of, coalition_predictions, correlations, overhead, step_parts


@pytest.fixture(scope="module")
def settings(packed_tree):
    return Settings("", str(packed_tree[1]), preset="tiny", batch_size=4, lidar_points=8, mmwave_points=4)


@pytest.mark.parametrize("fusion", ["concat", "mlp", "attention"])
def test_the_timed_parts_give_the_contributions_of_the_library(settings, fusion):
    """Coalitions, correlation and score together: what is timed is what `ShapleyContribution` computes."""
    torch.manual_seed(0)
    model = build_model(settings.modalities, fusion, settings.preset).eval()
    inputs, target = batch_of(settings, torch.device("cpu"))
    with torch.no_grad():
        predictions = coalition_predictions(model, model.encode(inputs)).double()
    profits = correlations(predictions, target.double()).mean((-2, -1))
    profits[0] = 0
    expected = ShapleyContribution(model, model.encoders).evaluate([(inputs, target)])
    torch.testing.assert_close(dict(zip(model.encoders, shapley_values(profits).tolist(), strict=True)),
                               dict(expected), rtol=0, atol=1e-4)  # fmt: skip


def test_parts_are_times_and_the_overhead_is_their_share(settings):
    parts = step_parts(settings, torch.device("cpu"), repeats=1)
    assert all(value > 0 for value in parts.values())
    some = {"coalitions": 1.0, "correlation": 2.0, "score": 1.0, "forward": 100.0, "backward": 100.0}
    assert overhead(parts | some) == pytest.approx(2.0)


def test_a_clock_repeats_stages_in_turn():
    order = []
    assert len(Clock(torch.device("cpu"), 3).milliseconds(lambda: order.append("a"), lambda: order.append("b"))) == 2
    assert order == ["a", "b"] * 5


def test_a_batch_that_the_copy_cannot_fill_is_refused(settings):
    with pytest.raises(ValueError, match="`batch_size` should be at most the 27 frames"):
        batch_of(Settings("", settings.data, batch_size=28), torch.device("cpu"))


def test_table_2_names_hardware_and_all_nine_models(settings):
    parts = {"forward": 10.0, "backward": 20.0, "coalitions": 0.1, "correlation": 0.1, "score": 0.1}
    wanted = costs.timings(settings, torch.device("cpu"))
    results = [
        {"run": {"settings": vars(timing.settings), "hardware": timing.hardware}, "simulated": True,
         "milliseconds": parts, "overhead_percent": overhead(parts)}
        for timing in wanted
    ]  # fmt: skip
    text = costs.as_text(costs.summarize(results))
    assert len({str(costs.describe(timing)) for timing in wanted}) == 9
    assert text.startswith("Table 2: cost of contributions per step (simulated data), batch 4, 1 x ")
    assert text.count("1.00 %") == 9
    assert SIMULATED in text
