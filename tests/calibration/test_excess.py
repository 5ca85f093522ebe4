"""Whom the rule holds back and how much, from slopes alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awc_balance.calibration import excess
from awc_balance.calibration.excess import KEPT, next_strengths
from awc_balance.calibration.slopes import Slopes

slope = st.floats(-2.0, 5.0)
margin = st.floats(0.0, 3.0)
strength = st.floats(0.0, 1.0)


def slopes(value, half=0.1, whole=(0.9, 1.1), others=None):
    values = {"m": value, **(others or {})}
    intervals = None if half is None else {name: (v - half, v + half) for name, v in values.items()}
    return Slopes(values, intervals, 1.0, whole, dict.fromkeys(values, 0.5))


class TestExcess:
    @given(training=slope, held_out=slope, first=margin, second=margin)
    def test_is_what_the_training_slope_or_1_is_above_the_other(self, training, held_out, first, second):
        found = excess(slopes(training, first), slopes(held_out, second))["m"]
        assert found.value == pytest.approx(min(1.0, training) - held_out)
        assert found.low <= found.value <= found.high
        assert found.credible == (found.low > 0)

    def test_of_what_is_not_learned_yet_is_none(self):
        assert not excess(slopes(0.4), slopes(0.4))["m"].credible

    def test_of_noise_is_credible(self):
        assert excess(slopes(1.02), slopes(0.5))["m"].credible

    def test_cannot_be_told_without_intervals(self):
        assert not excess(slopes(1.0, None), slopes(0.1, None))["m"].credible


class TestStrengths:
    @given(before=strength, training=slope, held_out=slope, first=margin, second=margin)
    def test_stay_between_0_and_1(self, before, training, held_out, first, second):
        after = next_strengths({"m": before}, slopes(training, first), slopes(held_out, second))["m"]
        assert 0.0 <= after <= 1.0

    @given(before=strength, training=slope, held_out=st.floats(0.5, 0.99), second=margin)
    def test_grow_only_by_what_is_credible(self, before, training, held_out, second):
        found = excess(slopes(training), slopes(held_out, second))["m"]
        after = next_strengths({"m": before}, slopes(training), slopes(held_out, second))["m"]
        assert (after > KEPT * before) == found.credible

    @given(before=strength)
    def test_fade_where_nothing_is_said_again(self, before):
        for _ in range(20):
            before = next_strengths({"m": before}, slopes(1.0), slopes(1.0))["m"]
        assert before < 0.02

    @given(before=strength, first=st.floats(0.06, 1.0), second=st.floats(0.06, 1.0))
    def test_grow_more_for_more_noise(self, before, first, second):
        noisier, other = sorted((first, second))
        grown = [next_strengths({"m": before}, slopes(1.0), slopes(s, 0.05))["m"] for s in (noisier, other)]
        assert grown[0] >= grown[1]

    def test_are_the_noise_to_signal_ratio_that_is_credible(self):
        after = next_strengths({"m": 0.0}, slopes(1.2), slopes(0.7, 0.1))["m"]
        assert after == pytest.approx(1 / 0.8 - 1)

    def test_fall_where_the_part_has_become_too_small(self):
        after = next_strengths({"m": 0.5}, slopes(1.5), slopes(1.35, 0.1))["m"]
        assert after == pytest.approx(0.5 * KEPT + 1 / 1.25 - 1)

    @pytest.mark.parametrize("whole", [None, (-0.1, 0.3)])
    def test_fade_where_the_prediction_is_worth_nothing_yet(self, whole):
        assert next_strengths({"m": 0.3}, slopes(1.0), slopes(0.2, whole=whole)) == {"m": KEPT * 0.3}
        assert next_strengths({"m": 0.3}, slopes(1.0, whole=whole), slopes(0.2)) == {"m": KEPT * 0.3}

    def test_of_others_stay(self):
        after = next_strengths({"m": 0.0, "n": 0.0}, slopes(1.0, others={"n": 1.0}), slopes(0.5, others={"n": 1.0}))
        assert after["m"] > 0
        assert after["n"] == 0
