"""Loaders that raise or end early, and Ctrl-C, at every point of a pass."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.balancers.methods import METHODS, easy
from tests.faults.picture import BrokenError, inside, refused
from tests.models import Concat, build, loader_of


class Noisy(Concat):
    """With batch statistics, which a pass must not move, and dropout, which must not draw."""

    def __init__(self, modalities=2):
        super().__init__(modalities)
        width = 4 * modalities
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 3))

    def forward(self, inputs):
        self.encoders["m0"][0].register_buffer("seen", torch.ones(1))  # a trace to be taken back
        features = self.encode(inputs)
        count()
        return self.fuse(features)


class Bomb:
    """Raises its error when it has been reached so many times."""

    def __init__(self):
        self.left, self.error, self.reached = None, None, 0

    def set(self, left, error):
        self.left, self.error, self.reached = left, error, 0

    def __call__(self):
        self.reached += 1
        if self.left is not None and self.reached > self.left:
            raise self.error("now")


count = Bomb()


class Loader(list):
    def __iter__(self):
        for batch in super().__iter__():
            count()
            yield batch


def criterion(prediction, target):
    count()
    return mse_loss(prediction, target)


def regularizer(batches):
    def build_one(model, loader):
        awc = AWCRegularizer(model, model.encoders, criterion, batches=batches)
        awc.start_epoch(loader)
        return awc, lambda: awc.start_epoch(loader)

    return build_one


def contribution(model, loader):
    tool = ShapleyContribution(model, model.encoders, "negative_mse")
    tool.update(loader[0])
    return tool, lambda: tool.update(loader[1])


def evaluation(model, loader):
    tool = ShapleyContribution(model, model.encoders)
    tool.update(loader[0])
    return tool, lambda: tool.evaluate(loader)


def fisher(form):
    def build_one(model, loader):
        tool = FisherDiagonal(model.encoders, form)
        tool.estimate(loader, model, criterion)
        return tool, lambda: tool.estimate(loader, model, criterion)

    return build_one


def balancer(name):
    def build_one(model, loader):
        tool = METHODS[name](model, model.encoders, mse_loss)
        tool.start_epoch(loader)
        tool.loss(loader[0]).backward()
        tool.adjust_gradients_()
        return tool, lambda: tool.start_epoch(loader)

    return build_one


TOOLS = {
    "regularizer": regularizer(None),
    "regularizer on a few batches": regularizer(2),
    "update": contribution,
    "evaluate": evaluation,
    **{form: fisher(form) for form in ("per_sample", "corrected", "per_batch")},
    **{name: balancer(name) for name in ("G-Blending", "modality resampling", "AWC")},
}


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
@pytest.mark.parametrize("name", TOOLS)
def test_whatever_is_raised_anywhere_in_a_pass_changes_nothing(name, error):
    count.set(None, None)
    model = build(Noisy).train()
    loader = Loader(easy(model, mse_loss))
    tool, call = TOOLS[name](model, loader)
    _, rehearsal = TOOLS[name](copy.deepcopy(model), loader)
    count.set(None, None)
    rehearsal()
    events = count.reached
    for left in sorted({0, 1, events // 3, events // 2, 2 * events // 3, events - 1} - {events}):
        count.set(left, error)
        refused(call, tool, model, (error,))
    count.set(None, None)
    call()
    assert inside(tool)


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "AWC"])
def test_a_step_that_is_interrupted_leaves_the_balancer(name, error):
    """The same batch may be given again, or left out."""

    def end(interrupt):
        count.set(None, None)
        torch.manual_seed(0)
        model = build(Concat)
        loader = easy(model, mse_loss)
        faults = []

        def loss(prediction, target):
            if faults:
                raise faults.pop()
            return mse_loss(prediction, target)

        tool = METHODS[name](model, model.encoders, mse_loss)
        tool._criterion = loss
        tool.start_epoch(loader)
        for batch in loader:
            if interrupt:
                faults.append(error("in the criterion"))
                refused(lambda batch=batch: tool.loss(batch), tool, model, (error,))
            model.zero_grad()
            tool.loss(batch).backward()
            tool.adjust_gradients_()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
        return [inside(tool), [p.tolist() for p in model.parameters()]]

    assert end(True) == end(False)


@pytest.mark.parametrize("name", ["OGM-GE", "InfoReg"])
def test_a_step_that_was_given_up_is_forgotten_with_the_state_before_it(name):
    """After a loss that diverged one loads the last checkpoint, into the same objects."""

    def end(detour):
        model = build(Concat)
        loader = easy(model, mse_loss)
        tool = METHODS[name](model, model.encoders, mse_loss)
        tool.start_epoch(loader)
        if detour:
            saved = copy.deepcopy(tool.state_dict())
            tool.loss(loader[3]).backward()
            model.zero_grad()
            tool.load_state_dict(saved)
        tool.loss(loader[0]).backward()
        tool.adjust_gradients_()
        return [p.grad.tolist() for p in model.parameters()]

    assert end(True) == end(False)


class Shrinking:
    """A loader that has fewer batches each time it is read."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __iter__(self):
        yield from self.batches
        self.batches.pop()


def test_a_loader_that_ends_early_gives_what_it_had_or_an_error():
    model = build(Concat)
    batches = loader_of(model, 2)
    awc = AWCRegularizer(model, model.encoders, mse_loss, batches=None)
    awc.start_epoch(Shrinking(batches))  # two batches for the contributions, one for the Fisher diagonals
    expected = FisherDiagonal(model.encoders, "per_batch").estimate(batches[:1], model, mse_loss)
    assert torch.equal(awc.get_buffer("fisher/m0/0/weight"), expected["m0"]["0.weight"])
    following = iter(batches)
    assert "which can be read once" in refused(lambda: awc.start_epoch(following), awc, model)
    assert len(list(following)) == len(batches)  # none was taken from the training
    corrected = AWCRegularizer(model, model.encoders, mse_loss, fisher="corrected", batches=None)
    assert "two batches" in refused(lambda: corrected.start_epoch(Shrinking(batches)), corrected, model)
