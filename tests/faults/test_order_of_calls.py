"""Calls in any order: each works, or is refused with what to do and changes nothing; nothing saved is ever lost."""

import copy
import pickle

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.balancers.methods import METHODS, easy
from tests.faults.picture import REFUSALS, BrokenError, inside, plain, refused
from tests.models import Concat, build

FEW = settings(max_examples=8, stateful_step_count=15, deadline=None)


def poisoned(batch):
    inputs, target = batch
    return {m: x * float("nan") for m, x in inputs.items()}, target


class BrokenLoader(list):
    def __iter__(self):
        yield self[0]
        raise BrokenError("the disk is gone")


class Calls(RuleBasedStateMachine):
    """A tool on a model, and the calls that all tools share. `self.tool` and `self.model` belong together."""

    @initialize()
    def begin(self):
        torch.manual_seed(0)
        self.model = build(Concat)
        self.loader = easy(self.model, mse_loss)
        self.tool = self.made(self.model)

    def tried(self, call, works):
        """Make a call that works if and only if it should."""
        if works:
            return call()
        return refused(call, self.tool, self.model)

    def broken_loaders(self, kind):
        kinds = {"raises": BrokenLoader(self.loader), "empty": [], "nan": [poisoned(b) for b in self.loader], "none": 3}
        return kinds[kind]

    @rule(pickled=st.booleans())
    def goes_on_as_a_copy(self, pickled):
        before = inside(self.tool)
        pair = (self.model, self.tool)
        model, tool = pickle.loads(pickle.dumps(pair)) if pickled else copy.deepcopy(pair)
        assert inside(tool) == before == inside(self.tool)
        self.model, self.tool = model, tool

    @rule()
    def trains(self):
        """A step of the user's own."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 0.01
        self.model.zero_grad()


BROKEN = st.sampled_from(["raises", "empty", "nan", "none"])


class RegularizerCalls(Calls):
    states = Bundle("states")

    def made(self, model):
        return AWCRegularizer(model, model.encoders, mse_loss, alpha_superior=2.0, alpha_inferior=1.0, window=2)

    @rule(known=st.booleans())
    def starts_an_epoch(self, known):
        epoch = self.tool.epoch
        self.tool.start_epoch(self.loader, contributions={"m0": 1.0, "m1": 0.0} if known else None)
        assert self.tool.epoch == epoch + 1
        assert len(self.tool.history) == min(self.tool.epoch, 2)
        assert self.tool().item() == 0  # at the anchor, or outside the window

    @precondition(lambda self: self.tool.epoch < 2)
    @rule(kind=BROKEN)
    def starts_an_epoch_on_a_broken_loader(self, kind):
        refused(
            lambda: self.tool.start_epoch(self.broken_loaders(kind)),
            self.tool,
            self.model,
            (*REFUSALS[1:], BrokenError),
        )

    @precondition(lambda self: self.tool.epoch < 2)
    @rule(given=st.sampled_from([{"m0": 1.0}, {"m0": float("nan"), "m1": 0.0}, "m0", {"m0": "1", "m1": 0.0}]))
    def starts_an_epoch_with_bad_contributions(self, given):
        refused(lambda: self.tool.start_epoch(self.loader, contributions=given), self.tool, self.model)

    @rule()
    def asks_for_the_penalty(self):
        found = self.tried(self.tool, self.tool.epoch > 0)
        assert self.tool.epoch == 0 or found >= 0

    @rule()
    def adds_the_gradient(self):
        self.tried(self.tool.add_gradient_, self.tool.epoch > 0)

    @rule(target=states)
    def saves(self):
        return copy.deepcopy(self.tool.state_dict()), inside(self.tool)

    @rule(state=states, fresh=st.booleans())
    def loads(self, state, fresh):
        if fresh:
            self.tool = self.made(self.model)
        self.tool.load_state_dict(state[0])
        assert inside(self.tool) == state[1]

    @rule(state=states, part=st.sampled_from(["_extra_state", "anchor/m0/0/weight", "fisher/m1/0/bias"]))
    def loads_what_is_damaged(self, state, part):
        for damaged in ({**state[0], part: None}, {key: v for key, v in state[0].items() if key != part}):
            refused(lambda damaged=damaged: self.tool.load_state_dict(damaged), self.tool, self.model)


class ContributionCalls(Calls):
    def made(self, model):
        self.seen = []
        return ShapleyContribution(model, model.encoders, "negative_mse")

    @rule(number=st.integers(0, 3))
    def updates(self, number):
        self.tool.update(self.loader[number])
        self.seen.append(number)

    @rule()
    def updates_with_a_bad_batch(self):
        for batch in (poisoned(self.loader[0]), self.loader[0][0], (self.loader[0][0], self.loader[0][1][:, :1])):
            refused(lambda batch=batch: self.tool.update(batch), self.tool, self.model)

    @rule()
    def computes(self):
        self.tried(self.tool.compute, bool(self.seen))
        assert self.tool._measurement.batches == len(self.seen)

    @rule()
    def evaluates(self):
        before = inside(self.tool)
        self.tool.evaluate(self.loader)
        assert inside(self.tool) == before

    @rule(kind=BROKEN)
    def evaluates_a_broken_loader(self, kind):
        refused(lambda: self.tool.evaluate(self.broken_loaders(kind)), self.tool, self.model, (*REFUSALS, BrokenError))

    @rule()
    def resets(self):
        self.tool.reset()
        self.seen = []


class FisherCalls(Calls):
    form = "corrected"

    def made(self, model):
        self.count, self.reached = 0, False
        return FisherDiagonal(model.encoders, self.form)

    def backward(self, batch):
        self.model.zero_grad()
        mse_loss(self.model(batch[0]), batch[1]).backward()

    @rule(number=st.integers(0, 3))
    def updates(self, number):
        self.backward(self.loader[number])
        self.tool.update(8)
        self.count += 1

    @rule()
    def updates_without_gradients(self):
        self.model.zero_grad()
        refused(lambda: self.tool.update(8), self.tool, self.model)

    @rule()
    def updates_with_bad_gradients(self):
        self.backward(poisoned(self.loader[0]))
        refused(lambda: self.tool.update(8), self.tool, self.model)

    @rule()
    def updates_without_the_number_of_samples(self):
        self.backward(self.loader[0])
        refused(self.tool.update, self.tool, self.model)

    @rule()
    def computes(self):
        first = self.tried(self.tool.compute, self.count >= 2)
        if self.count >= 2:
            again = self.tool.compute()
            assert all(torch.equal(first[m][name], again[m][name]) for m in first for name in first[m])

    @rule()
    def estimates(self):
        self.tool.estimate(self.loader, self.model, mse_loss)
        self.count = len(self.loader)

    @rule(kind=BROKEN)
    def estimates_on_a_broken_loader(self, kind):
        loader = self.broken_loaders(kind)
        refused(
            lambda: self.tool.estimate(loader, self.model, mse_loss), self.tool, self.model, (*REFUSALS, BrokenError)
        )

    @rule()
    def resets(self):
        self.tool.reset()
        self.count = 0


class BalancerCalls(Calls):
    """What a balancer allows depends on its method: every call works, or is refused and changes nothing."""

    states = Bundle("states")
    name = ""

    def made(self, model):
        return METHODS[self.name](model, model.encoders, mse_loss, window=3)

    def attempted(self, call):
        before = inside(self.tool)
        try:
            return call()
        except REFUSALS:
            assert inside(self.tool) == before
            refused(call, self.tool, self.model)  # and again
            return None

    @rule()
    def starts_an_epoch(self):
        epoch = self.tool.epoch
        done = self.attempted(lambda: (self.tool.start_epoch(self.loader), True))
        assert self.tool.epoch == epoch + (done is not None)

    @rule(kind=BROKEN)
    def starts_an_epoch_on_a_broken_loader(self, kind):
        epoch, before = self.tool.epoch, inside(self.tool)
        try:
            self.tool.start_epoch(self.broken_loaders(kind))
        except (*REFUSALS, BrokenError):
            assert inside(self.tool) == before
        else:  # a method that does not read it
            assert self.tool.epoch == epoch + 1

    @rule(number=st.integers(0, 3), goes_on=st.booleans())
    def takes_a_step(self, number, goes_on):
        loss = self.tried(lambda: self.tool.loss(self.loader[number]), self.tool.epoch > 0)
        if self.tool.epoch > 0 and goes_on:
            self.model.zero_grad()
            loss.backward()
            self.tool.adjust_gradients_()
            assert all(p.grad is None or p.grad.isfinite().all() for p in self.model.parameters())

    @rule()
    def adjusts_out_of_turn(self):
        self.attempted(self.tool.adjust_gradients_)

    @rule()
    def takes_a_bad_batch(self):
        for bad in (self.loader[0][0], 3, (self.loader[0][0], None)):
            refused(lambda bad=bad: self.tool.loss(bad), self.tool, self.model, (*REFUSALS, AttributeError))

    @rule(target=states)
    def saves(self):
        return copy.deepcopy(self.tool.state_dict())

    @rule(state=states, fresh=st.booleans())
    def loads(self, state, fresh):
        if fresh:
            self.tool = self.made(self.model)
        self.tool.load_state_dict(state)
        assert inside(self.tool)[0] == plain(state)

    @rule(state=states)
    def loads_what_is_damaged(self, state):
        for damaged in ({}, {**state, "_extra_state": {"epoch": "two"}}, {**state, "more": torch.zeros(2)}):
            refused(lambda damaged=damaged: self.tool.load_state_dict(damaged), self.tool, self.model)


def machines():
    found = {"regularizer": RegularizerCalls, "contributions": ContributionCalls, "fisher": FisherCalls}
    for name in METHODS:
        found[name] = type(f"Calls of {name}", (BalancerCalls,), {"name": name})
    return found


@pytest.mark.parametrize("name", machines())
def test_calls_in_any_order(name):
    machine = machines()[name].TestCase
    machine.settings = FEW
    machine("runTest").runTest()
