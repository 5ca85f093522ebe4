"""A model that is changed behind the back of what was built on it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parametrizations

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.balancers.methods import METHODS, easy
from tests.faults.picture import refused
from tests.models import Concat, build, loader_of

ALPHAS = {"m0": 1.0, "m1": 2.0}


def regularized(model):
    awc = AWCRegularizer(model, model.encoders, mse_loss, alphas=ALPHAS)
    awc.start_epoch(loader_of(model))
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            parameter += 0.1
    awc()  # so that it has a plan of what is pulled
    return awc


def swap(model):
    model.encoders["m0"] = copy.deepcopy(model.encoders["m0"])


def refreeze(model):
    model.encoders["m0"].requires_grad_(False)


def remove(model):
    model.encoders["m0"][0].register_parameter("bias", None)


def add(model):
    model.encoders["m0"].append(nn.Linear(4, 4))


def widen(model):
    model.encoders["m0"][0] = nn.Linear(2, 4, dtype=torch.float64)
    model.double()


def replace(model):
    model.encoders["m0"][0].weight = nn.Parameter(torch.zeros(4, 2))


def parametrize(model):
    parametrizations.weight_norm(model.encoders["m0"][0])


class TestWithinAnEpoch:
    @pytest.mark.parametrize("change", [swap, add, parametrize])
    def test_what_cannot_be_pulled_is_refused(self, change):
        model = build(Concat)
        awc = regularized(model)
        change(model)
        for call in (awc, awc.add_gradient_):
            assert "`m0`" in refused(call, awc, model)

    def test_an_encoder_that_was_exchanged_is_not_pulled_in_secret(self):
        model = build(Concat)
        awc = regularized(model)
        swap(model)
        for call in (awc, awc.add_gradient_, lambda: awc.start_epoch(loader_of(model))):
            assert "part of the model" in refused(call, awc, model)

    def test_after_the_window_encoders_may_go(self):
        model = build(Concat)
        awc = AWCRegularizer(model, model.encoders, mse_loss, alphas=ALPHAS, window=1)
        awc.start_epoch(loader_of(model))
        awc.start_epoch([])
        swap(model)
        awc.add_gradient_()
        assert awc().item() == 0

    @pytest.mark.parametrize("change", [refreeze, remove, replace])
    def test_what_can_be_pulled_is(self, change):
        model = build(Concat)
        awc = regularized(model)
        change(model)
        anchors, fishers = dict(awc.named_buffers()), dict(awc.named_buffers())
        expected = sum(
            ALPHAS[m] * (fishers[f"fisher/{m}/{name}"] * (p - anchors[f"anchor/{m}/{name}"]).square()).sum()
            for m, encoder in model.encoders.items()
            for name, p in ((name.replace(".", "/"), p) for name, p in encoder.named_parameters())
            if p.requires_grad
        )
        assert awc().item() == pytest.approx(expected.item(), rel=1e-5)

    @pytest.mark.parametrize("name", ["OGM-GE", "AGM", "sample resampling", "InfoReg"])
    def test_balancers(self, name):
        model = build(Concat)
        loader = easy(model, mse_loss)
        balancer = METHODS[name](model, model.encoders, mse_loss)
        balancer.start_epoch(loader)
        swap(model)
        assert "m0" in refused(lambda: balancer.loss(loader[0]), balancer, model)

    @pytest.mark.parametrize("change", [add, parametrize])
    def test_an_anchor_of_inforeg_that_is_missing(self, change):
        model = build(Concat)
        loader = easy(model, mse_loss)
        balancer = METHODS["InfoReg"](model, model.encoders, mse_loss)
        balancer.start_epoch(loader)
        change(model)
        balancer.loss(loader[0]).backward()
        balancer._seen = [(8, {"m0": 1.0, "m1": 0.0})]  # m0 is dominant
        assert "`m0` is new" in refused(balancer.adjust_gradients_, balancer, model)
        balancer.load_state_dict(balancer.state_dict())  # gives the step up
        balancer.start_epoch(loader)
        balancer.loss(loader[0]).backward()
        balancer.adjust_gradients_()


class TestTheNextEpoch:
    @pytest.mark.parametrize("change", [add, refreeze, remove, replace, widen, parametrize])
    def test_takes_the_model_as_it_is(self, change):
        """What is kept afterwards is what a new regularizer would keep, so that a checkpoint of it can be resumed."""
        model = build(Concat)
        awc = regularized(model)
        change(model)
        dtype = model.head[0].weight.dtype
        loader = [
            ({m: x.to(dtype) for m, x in inputs.items()}, target.to(dtype)) for inputs, target in loader_of(model)
        ]
        awc.start_epoch(loader)
        fresh = AWCRegularizer(model, model.encoders, mse_loss, alphas=ALPHAS)
        fresh.start_epoch(loader)
        assert set(awc.state_dict()) == set(fresh.state_dict())
        assert all(torch.equal(buffer, fresh.get_buffer(name)) for name, buffer in awc.named_buffers())
        fresh.load_state_dict(awc.state_dict())

    def test_with_all_encoders_frozen_is_refused(self):
        model = build(Concat)
        awc = regularized(model)
        model.encoders.requires_grad_(False)
        assert "frozen" in refused(lambda: awc.start_epoch(loader_of(model)), awc, model)

    @pytest.mark.parametrize("change", [add, remove])
    def test_inforeg_keeps_no_anchor_of_what_is_gone(self, change):
        model = build(Concat)
        balancer = METHODS["InfoReg"](model, model.encoders, mse_loss)
        balancer.start_epoch([])
        change(model)
        balancer.start_epoch([])
        fresh = METHODS["InfoReg"](model, model.encoders, mse_loss)
        assert set(fresh.state_dict()) == set(balancer.state_dict())


class TestFisherFromSteps:
    @staticmethod
    def stepped(model, fisher):
        for inputs, target in loader_of(model):
            model.zero_grad()
            mse_loss(model(inputs), target).backward()
            fisher.update(len(target))

    @pytest.mark.parametrize("form", ["corrected", "per_batch"])
    @pytest.mark.parametrize("change", [add, refreeze, remove, parametrize])
    def test_other_parameters_are_not_mixed_in(self, change, form):
        model = build(Concat)
        fisher = FisherDiagonal(model.encoders, form)
        self.stepped(model, fisher)
        change(model)
        inputs, target = loader_of(model)[0]
        mse_loss(model(inputs), target).backward()
        words = refused(lambda: fisher.update(8), fisher, model)
        assert "`m0`" in words
        assert "reset()" in words
        fisher.reset()
        self.stepped(model, fisher)
        assert set(fisher.compute()["m0"]) == {name for name, _ in model.encoders["m0"].named_parameters()}


MEASUREMENTS = {
    "contributions": lambda m: ShapleyContribution(m, m.encoders),
    "fisher": lambda m: FisherDiagonal(m.encoders),
}


@pytest.mark.parametrize("change", [swap, lambda model: model.to("meta")])
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurements_of_a_model_that_is_another_are_refused(name, change):
    model = build(Concat)
    loader, tool = loader_of(model), MEASUREMENTS[name](model)
    change(model)
    if name == "fisher":
        words = refused(lambda: tool.estimate(loader, model, mse_loss), tool, build(Concat))
    else:
        words = refused(lambda: tool.evaluate(loader), tool, build(Concat))
    assert "m0" in words
