"""nan and infinity at every place where a number enters: refused with its place, and never kept."""

import copy
from math import inf, nan

import pytest
import torch
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.balancers.methods import METHODS, easy
from tests.faults.picture import refused
from tests.models import Concat, build, loader_of

BAD = [nan, inf, -inf]
FORMS = ["per_sample", "corrected", "per_batch"]


def with_bad_inputs(loader, bad):
    inputs, target = loader[-1]
    poisoned = {**inputs, "m1": inputs["m1"].clone()}
    poisoned["m1"][2, 1] = bad
    return [*loader[:-1], (poisoned, target)]


def with_bad_target(loader, bad):
    inputs, target = loader[-1]
    poisoned = target.clone()
    poisoned[2, 1] = bad
    return [*loader[:-1], (inputs, poisoned)]


def linear(modalities=2):
    """Without tanh, which makes 1 of infinity."""
    model = build(Concat, modalities=modalities)
    for encoder in model.encoders.values():
        encoder[1] = torch.nn.Identity()
    return model


PLACES = {"inputs": with_bad_inputs, "target": with_bad_target}


def started(model, **options):
    awc = AWCRegularizer(model, model.encoders, mse_loss, **options)
    awc.start_epoch(loader_of(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    return awc


def spoil(model, bad, name="encoders.m0.0.weight"):
    with torch.no_grad():
        model.get_parameter(name).view(-1)[1] = bad


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", PLACES)
class TestBatches:
    @pytest.mark.parametrize("form", FORMS)
    def test_fisher(self, form, place, bad):
        model = linear()
        fisher, loader = FisherDiagonal(model.encoders, form), loader_of(model)
        fisher.estimate(loader, model, mse_loss)
        bad_loader = PLACES[place](loader, bad)
        words = refused(lambda: fisher.estimate(bad_loader, model, mse_loss), fisher, model)
        assert "batch 2" in words

    @pytest.mark.parametrize("profit", ["pearson", "pearson_per_batch", "negative_mse"])
    def test_contributions(self, profit, place, bad):
        model = linear(3)
        loader = loader_of(model)
        contribution = ShapleyContribution(model, model.encoders, profit)
        contribution.update(loader[0])
        bad_loader = PLACES[place](loader, bad)
        assert "batch 2" in refused(lambda: contribution.evaluate(bad_loader), contribution, model)
        assert "batch 1" in refused(lambda: contribution.update(bad_loader[-1]), contribution, model)
        contribution.update(loader[1])
        fresh = ShapleyContribution(model, model.encoders, profit)
        for batch in loader[:2]:
            fresh.update(batch)
        assert contribution.compute() == fresh.compute()

    def test_regularizer(self, place, bad):
        model = linear()
        awc = started(model)
        bad_loader = PLACES[place](loader_of(model), bad)
        refused(lambda: awc.start_epoch(bad_loader), awc, model)
        refused(lambda: awc.start_epoch(bad_loader, contributions={"m0": 1.0, "m1": 0.0}), awc, model)
        awc.start_epoch(loader_of(model))

    @pytest.mark.parametrize("name", ["OGM-GE", "AGM", "InfoReg", "MMPareto"])
    def test_balancers_that_measure_in_the_step(self, name, place, bad):
        model = linear()
        loader = easy(model, mse_loss)
        balancer = METHODS[name](model, model.encoders, mse_loss)
        balancer.start_epoch(loader)
        batch = PLACES[place](loader, bad)[-1]
        refused(lambda: balancer.loss(batch), balancer, model)
        balancer.loss(loader[0]).backward()
        balancer.adjust_gradients_()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    @pytest.mark.parametrize("name", ["G-Blending", "modality resampling", "AWC"])
    def test_balancers_that_measure_at_the_start(self, name, place, bad):
        model = linear()
        loader = easy(model, mse_loss)
        balancer = METHODS[name](model, model.encoders, mse_loss, **({"share": 1.0} if "modality" in name else {}))
        balancer.start_epoch(loader)
        balancer.loss(loader[0]).backward()
        balancer.adjust_gradients_()
        refused(lambda: balancer.start_epoch(PLACES[place](loader, bad)), balancer, model)
        balancer.start_epoch(loader)


def test_a_coalition_that_fails_leaves_the_shortcuts_as_they_were():
    """Which route is taken decides roundings, so that a bad batch must not change it."""
    model = build(Concat, modalities=5)
    contribution, loader = ShapleyContribution(model, model.encoders, "negative_mse"), loader_of(model)
    contribution.update(loader[0])
    refused(lambda: contribution.update(with_bad_inputs(loader, nan)[-1]), contribution, model)
    assert contribution.compute().route == "together"


@pytest.mark.parametrize("bad", BAD)
class TestParameters:
    def test_contributions(self, bad):
        model = linear()
        contribution = ShapleyContribution(model, model.encoders)
        contribution.update(loader_of(model)[0])
        spoil(model, bad)
        refused(lambda: contribution.update(loader_of(model)[0]), contribution, model)

    @pytest.mark.parametrize("form", FORMS)
    def test_fisher(self, form, bad):
        model = linear()
        fisher = FisherDiagonal(model.encoders, form)
        fisher.estimate(loader_of(model), model, mse_loss)
        spoil(model, bad)
        refused(lambda: fisher.estimate(loader_of(model), model, mse_loss), fisher, model)

    def test_anchors_are_never_taken_at_them(self, bad):
        model = linear()
        awc = started(model)
        known = {"contributions": {"m0": 1.0, "m1": 0.0}, "fisher": FisherDiagonal(model.encoders).estimate(
            loader_of(model), model, mse_loss
        )}  # fmt: skip
        spoil(model, bad)
        for given in ({}, known):
            words = refused(lambda given=given: awc.start_epoch(loader_of(model), **given), awc, model)
            assert "`m0` (0.weight)" in words

    def test_anchors_of_inforeg_neither(self, bad):
        model = linear()
        balancer = METHODS["InfoReg"](model, model.encoders, mse_loss)
        balancer.start_epoch([])
        spoil(model, bad)
        assert "`m0` (0.weight)" in refused(lambda: balancer.start_epoch([]), balancer, model)

    def test_frozen_ones_may_hold_infinity(self, bad):
        """Such as a mask of -inf."""
        model = linear()
        model.encoders["m0"].requires_grad_(False)
        model.encoders["m0"].register_parameter("mask", torch.nn.Parameter(torch.tensor([bad]), requires_grad=False))
        awc = started(model)
        fresh = AWCRegularizer(model, model.encoders, mse_loss)
        fresh.load_state_dict(copy.deepcopy(awc.state_dict()))
        assert fresh().item() == awc().item()


@pytest.mark.parametrize("bad", [*BAD, 10**400], ids=[*map(str, BAD), "too large"])
class TestGiven:
    def test_contributions(self, bad):
        model = build(Concat)
        awc = started(model)
        refused(lambda: awc.start_epoch(loader_of(model), contributions={"m0": bad, "m1": 0.0}), awc, model)

    @pytest.mark.parametrize("as_source", [True, False])
    def test_by_a_function(self, as_source, bad):
        model, answers = build(Concat), {"m0": 1.0, "m1": 0.0}
        awc = started(model, **{"contributions" if as_source else "alphas": lambda _: dict(answers)})
        answers["m1"] = bad
        assert "m1" in refused(lambda: awc.start_epoch(loader_of(model)), awc, model)

    def test_alphas(self, bad):
        model = build(Concat)
        for options in ({"alphas": {"m0": bad, "m1": 1.0}}, {"alpha_superior": bad}, {"alpha_inferior": bad}):
            with pytest.raises(ValueError, match="finite"):
                AWCRegularizer(model, model.encoders, mse_loss, **options)

    def test_fisher(self, bad):
        model = build(Concat)
        awc = started(model)
        given = FisherDiagonal(model.encoders).estimate(loader_of(model), model, mse_loss)
        given["m0"]["0.weight"][0, 0] = bad if isinstance(bad, float) else inf
        refused(lambda: awc.start_epoch(loader_of(model), fisher=given), awc, model)

    def test_a_profit_of_ones_own(self, bad):
        model, answers = build(Concat), [1.0]
        contribution = ShapleyContribution(model, model.encoders, lambda p, t: torch.tensor(answers[0]))
        contribution.update(loader_of(model)[0])
        answers[0] = bad if isinstance(bad, float) else inf
        refused(lambda: contribution.update(loader_of(model)[0]), contribution, model)


class TestGradients:
    @pytest.mark.parametrize("bad", [*BAD, 1e30])
    @pytest.mark.parametrize("form", ["corrected", "per_batch"])
    def test_of_a_step(self, form, bad):
        """1e30 is finite, but its square is not."""
        model = build(Concat)
        fisher, loader = FisherDiagonal(model.encoders, form), loader_of(model)
        for inputs, target in loader:
            model.zero_grad()
            mse_loss(model(inputs), target).backward()
            fisher.update(len(target))
        expected = fisher.trace()
        model.encoders["m1"][0].bias.grad[1] = bad
        assert "`m1` (0.bias)" in refused(lambda: fisher.update(8), fisher, model)
        assert fisher.trace() == expected

    @pytest.mark.parametrize("bad", BAD)
    def test_of_a_step_that_is_pulled_stay_the_users_own(self, bad):
        """A GradScaler has to see them, and skips the step."""
        model = build(Concat)
        awc = started(model)
        before = copy.deepcopy(awc.state_dict())
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, bad)
        awc.add_gradient_()
        assert not any(p.grad.isfinite().any() for p in model.parameters())
        assert all(torch.equal(v, before[k]) for k, v in awc.state_dict().items() if isinstance(v, torch.Tensor))


def extra(**changes):
    return lambda state: {**state, "_extra_state": {**state["_extra_state"], **changes}}


def buffer(name, bad):
    def changed(state):
        tensor = state[name].clone()
        tensor.view(-1)[0] = bad
        return {**state, name: tensor}

    return changed


STATES = {
    "an anchor": buffer("anchor/m0/0/weight", nan),
    "a Fisher diagonal": buffer("fisher/m0/0/weight", inf),
    "a Fisher diagonal below 0": buffer("fisher/m0/0/weight", -1.0),
    "an alpha": extra(alphas={"m0": nan, "m1": 1.0}),
    "an alpha below 0": extra(alphas={"m0": -1.0, "m1": 1.0}),
    "alphas of others": extra(alphas={"m7": 1.0}),
    "no alphas": extra(alphas={}),
    "a contribution": extra(contributions={"m0": inf, "m1": 1.0}),
    "contributions of others": extra(contributions={"m7": 1.0}),
    "a group": extra(groups={"m0": "average", "m1": "superior"}),
    "an epoch": extra(epoch=-1),
}


@pytest.mark.parametrize("case", STATES)
def test_state_of_a_regularizer(case):
    model = build(Concat)
    awc = started(model)
    spoiled = STATES[case](copy.deepcopy(awc.state_dict()))
    refused(lambda: awc.load_state_dict(spoiled), awc, model)


def test_losses_in_the_history_may_be_anything():
    """Users put them there, and a run that diverged has to be resumed from somewhere."""
    model = build(Concat)
    awc = started(model)
    awc.history[0]["loss"] = nan
    awc.load_state_dict(copy.deepcopy(awc.state_dict()))
    assert awc.epoch == 1


BALANCER_STATES = {
    "OGM-GE": [
        ("_extra_state", {"epoch": 1, "coefficients": {"m0": nan, "m1": 1.0}}),
        ("_extra_state", {"epoch": -1, "coefficients": {"m0": 1.0, "m1": 1.0}}),
        ("_random._extra_state", {"cpu": torch.zeros(3, dtype=torch.uint8)}),
        ("_random._extra_state", {"cpu": "no state"}),
    ],
    "AGM": [("_extra_state", {"epoch": 1, "coefficients": {}, "running_scores": {"m0": inf, "m1": 0.0}, "steps": 3})],
    "InfoReg": [("anchor/m0/0/weight", torch.full((4, 2), nan))],
    "AWC": [
        ("regularizer._extra_state", {"epoch": 1}),
        ("regularizer.fisher/m0/0/weight", torch.full((4, 2), inf)),
        ("regularizer.fisher/m0/0/weight", torch.full((4, 2), -1.0)),
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(n, i) for n, cases in BALANCER_STATES.items() for i in range(len(cases))]
)
def test_state_of_a_balancer(name, number):
    model = build(Concat)
    loader = easy(model, mse_loss)
    balancer = METHODS[name](model, model.encoders, mse_loss)
    balancer.start_epoch(loader)
    balancer.loss(loader[0]).backward()
    balancer.adjust_gradients_()
    key, bad = BALANCER_STATES[name][number]
    spoiled = {**copy.deepcopy(balancer.state_dict()), key: bad}
    assert key in spoiled
    refused(lambda: balancer.load_state_dict(spoiled), balancer, model)
