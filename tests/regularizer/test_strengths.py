"""Who is held back, and how hard."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from awc_balance import AWCRegularizer, ShapleyContribution, kmeans_groups
from tests.models import Concat, build, loader_of
from tests.regularizer.loop import awc_of, train


class TestStrengths:
    def test_groups_set_the_alphas(self):
        model = build(Concat, modalities=3)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model), contributions={"m0": 0.5, "m1": 0.4, "m2": 0.0})
        assert awc.groups == {"m0": "superior", "m1": "superior", "m2": "inferior"}
        assert awc.alphas == {"m0": 20, "m1": 20, "m2": 10}
        assert awc.contributions == {"m0": 0.5, "m1": 0.4, "m2": 0.0}

    def test_contributions_are_measured_by_pearson(self):
        model = build(Concat)
        loader = loader_of(model)
        awc = awc_of(model)
        awc.start_epoch(loader)
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders).evaluate(loader))
        assert awc.groups == kmeans_groups(awc.contributions)

    def test_another_profit_by_name(self):
        model = build(Concat, outputs=4)
        loader = [(inputs, torch.arange(8) % 4) for inputs, _ in loader_of(model)]
        awc = AWCRegularizer(model, model.encoders, cross_entropy, contributions="accuracy")
        awc.start_epoch(loader)
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders, "accuracy").evaluate(loader))

    def test_contributions_may_come_from_anywhere(self):
        model = build(Concat)
        awc = awc_of(model, contributions=lambda loader: {"m1": len(loader), "m0": 0})
        awc.start_epoch(loader_of(model))
        assert awc.contributions == {"m0": 0, "m1": 3}
        table = {"m1": 3.0, "m0": 0.0}
        awc = awc_of(model, contributions=table)
        for table["m0"] in (1.0, 5.0):
            awc.start_epoch(loader_of(model))
            assert awc.contributions == {"m0": table["m0"], "m1": 3.0}
        assert [row["groups"]["m0"] for row in awc.history] == ["inferior", "superior"]
        contribution = ShapleyContribution(model, model.encoders, "negative_mse")
        awc = awc_of(model, contributions=contribution)
        awc.start_epoch(loader_of(model))
        assert awc.contributions == dict(contribution.evaluate(loader_of(model)))

    def test_the_grouping_may_be_ones_own(self):
        model = build(Concat)
        awc = awc_of(model, grouping=lambda contributions: dict.fromkeys(contributions, "superior"))
        awc.start_epoch(loader_of(model))
        assert awc.alphas == {"m0": 20, "m1": 20}

    def test_fixed_alphas_need_no_contributions(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m1": 3, "m0": 1})
        awc.start_epoch(loader_of(model))
        assert awc.alphas == {"m0": 1, "m1": 3}
        assert awc.contributions == {}
        assert awc.groups == {}

    def test_fixed_alphas_take_more_than_sixteen_modalities(self):
        model = build(Concat, modalities=17)
        awc = awc_of(model, alphas=dict.fromkeys(model.encoders, 1.0))
        awc.start_epoch(loader_of(model))
        assert len(awc.alphas) == 17

    def test_alphas_may_be_a_rule(self):
        model = build(Concat)
        awc = awc_of(model, alphas=lambda contributions: {m: 10 * max(c, 0) for m, c in contributions.items()})
        awc.start_epoch(loader_of(model), contributions={"m0": 0.5, "m1": -0.1})
        assert awc.alphas == {"m0": 5, "m1": 0}

    @pytest.mark.parametrize("modalities", [1, 2, 3, 8])
    def test_any_number_of_modalities(self, modalities):
        model = build(Concat, modalities=modalities)
        awc = awc_of(model)
        train(model, loader_of(model), awc, epochs=1)
        assert len(awc.groups) == modalities
