"""The promise of every measurement: nothing of the user's is changed."""

import copy
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.preserve import measuring
from tests.models import KINDS, Concat, Convolutional, build, loader_of


def regularized(model, loader):
    awc = AWCRegularizer(model, model.encoders, mse_loss, window=2)
    awc.start_epoch(loader)
    awc()
    return awc


MEASUREMENTS = {
    "contributions": lambda model, loader: ShapleyContribution(model, model.encoders).evaluate(loader),
    "contributions of one batch": lambda model, loader: ShapleyContribution(model, model.encoders).update(
        next(iter(loader))
    ),
    "fisher per sample": lambda model, loader: FisherDiagonal(model.encoders).estimate(loader, model, mse_loss),
    "fisher per batch": lambda model, loader: FisherDiagonal(model.encoders, "per_batch").estimate(
        loader, model, mse_loss
    ),
    "fisher in the present mode": lambda model, loader: FisherDiagonal(
        model.encoders, "corrected", mode="current"
    ).estimate(loader, model, mse_loss),
    "regularizer": regularized,
}


def prepared(kind):
    """A model with gradients, mixed training flags and a frozen parameter."""
    model = build(kind).train()
    inputs, target = loader_of(model)[0]
    mse_loss(model(inputs), target).backward()
    list(model.modules())[-1].eval()
    next(iter(model.encoders.values())).requires_grad_(False)
    return model


def picture(model):
    """All that could be changed, by identity where identity matters."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "buffers": {name: id(buffer) for name, buffer in model.named_buffers()},
        "parameters": {name: (id(p), id(p.grad), p.requires_grad) for name, p in model.named_parameters()},
        "gradients": {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        "training": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [
            [len(value) for name, value in sorted(vars(module).items()) if "hook" in name and isinstance(value, dict)]
            for module in model.modules()
        ],
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
    }


def same(before, after):
    for part in before:
        if part in ("state", "gradients"):
            assert before[part].keys() == after[part].keys()
            assert all(torch.equal(before[part][name], after[part][name]) for name in before[part]), part
        else:
            assert before[part] == after[part], part


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_nothing_is_changed(kind, measurement):
    model = prepared(kind)
    loader = loader_of(model)
    before = picture(model)
    MEASUREMENTS[measurement](model, loader)
    same(before, picture(model))


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_nothing_is_changed_by_a_measurement_that_fails(measurement):
    model = prepared(Convolutional)

    def breaking():
        random.random()
        torch.rand(1)
        yield from loader_of(model, 1)
        raise OSError("the disk is gone")

    class Loader:
        def __iter__(self):
            return breaking()

    if measurement == "contributions of one batch":
        inputs, target = loader_of(model)[0]
        loader, error = [(inputs, target[:, :1])], ValueError
    else:
        loader, error = Loader(), OSError
    before = picture(model)
    with pytest.raises(error):
        MEASUREMENTS[measurement](model, loader)
    same(before, picture(model))


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_the_model_can_be_pickled_and_copied_afterwards(measurement):
    model = build(Convolutional)
    MEASUREMENTS[measurement](model, loader_of(model))
    inputs, _ = loader_of(model)[0]
    model.eval()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(inputs), model(inputs))


def tensors(samples=20):
    return TensorDataset(torch.randn(samples, 2), torch.randn(samples, 3))


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"a": nn.Linear(2, 3)})

    def forward(self, x):
        return self.encoders["a"](x)


def own_generator():
    return torch.Generator().manual_seed(3)


LOADERS = {
    "global generator": lambda: DataLoader(tensors(), 4, shuffle=True),
    "generator of the loader": lambda: DataLoader(tensors(), 4, shuffle=True, generator=own_generator()),
    "generator of the sampler": lambda: DataLoader(
        data := tensors(), 4, sampler=RandomSampler(data, generator=own_generator())
    ),
    "worker processes": lambda: DataLoader(tensors(), 4, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("measurement", [m for m in MEASUREMENTS if m != "contributions of one batch"])
def test_the_order_of_the_next_epoch_is_what_it_would_have_been(name, measurement):
    def next_epoch(measure):
        torch.manual_seed(0)
        loader, model = LOADERS[name](), Single()
        if measure:
            MEASUREMENTS[measurement](model, loader)
        return torch.cat([x for x, _ in loader]), torch.rand(2)

    for expected, found in zip(next_epoch(False), next_epoch(True), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize(
    "call",
    [
        "from awc_balance.grouping import kmeans_groups; kmeans_groups({'a': 1.0, 'b': 0.0})",
        "from awc_balance.contributions import competition_strength; competition_strength(x, x, alpha=0.1)",
        "from awc_balance.contributions.intervals import jackknife; jackknife(lambda w: w.sum().reshape(1), 3)",
    ],
)
def test_packages_that_are_imported_on_the_way_draw_nothing(call):
    """The first import of scikit-learn draws from Python's generator: only a fresh process can tell."""
    code = f"""
import random, torch, awc_balance
import awc_balance.contributions, awc_balance.grouping
x, before = torch.randn(8, 2), random.getstate()
{call}
assert random.getstate() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_objects_on_one_model_do_not_disturb_each_other():
    def measure(both):
        model = build(Convolutional)
        loader = loader_of(model)
        first, second = (ShapleyContribution(model, model.encoders) for _ in range(2))
        awc = AWCRegularizer(model, model.encoders, mse_loss)
        fisher = FisherDiagonal(model.encoders, "corrected")
        awc.start_epoch(loader)
        for batch in loader:
            first.update(batch)
            if both:
                second.update(batch)
                fisher.estimate(loader, model, mse_loss)
                regularized(model, loader)
        return dict(first.compute()), awc.history, awc.state_dict()

    alone, together = measure(False), measure(True)
    assert alone[:2] == together[:2]
    assert all(torch.equal(v, together[2][k]) for k, v in alone[2].items() if isinstance(v, torch.Tensor))


def test_a_measurement_between_forward_and_backward_leaves_the_graph_whole():
    gradients = []
    for measure in (False, True):
        model = build(Convolutional).eval()
        loader = loader_of(model)
        loss = mse_loss(model(loader[0][0]), loader[0][1])
        if measure:
            FisherDiagonal(model.encoders, "corrected").estimate(loader, model, mse_loss)
            ShapleyContribution(model, model.encoders).update(loader[0])
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_regularizer_has_no_parameters_and_the_model_no_regularizer():
    model = build(Concat)
    names = set(model.state_dict())
    awc = regularized(model, loader_of(model))
    assert list(awc.parameters()) == []
    assert set(model.state_dict()) == names
    assert all(not isinstance(module, AWCRegularizer) for module in model.modules())


def test_a_cache_that_grows_with_its_input_is_kept():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(2))
            self.length = 2

        def forward(self, x):
            if len(x) > self.length:
                self.table, self.length = torch.zeros(len(x)), len(x)
            return x + self.table[: len(x)]

    model = Cached()
    with measuring(model):
        model(torch.zeros(5))
    assert model(torch.zeros(4)).shape == (4,)


def test_a_buffer_that_is_assigned_anew_is_put_back():
    class Averaging(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x):
            self.mean = 0.9 * self.mean + x.mean(0)
            return x

    model = Averaging()
    own = model.mean
    with measuring(model):
        model(torch.ones(3, 2))
    assert model.mean is own
    assert model.mean.count_nonzero() == 0


def test_compiled_models_are_measured_too():
    model = build(Concat)
    loader = loader_of(model)
    expected = dict(ShapleyContribution(model, model.encoders).evaluate(loader))
    compiled = torch.compile(model, backend="eager")
    compiled(loader[0][0])
    assert dict(ShapleyContribution(compiled, model.encoders).evaluate(loader)) == expected
    assert (
        dict(ShapleyContribution(compiled, model.encoders, step=lambda _, b: (compiled(b[0]), b[1])).evaluate(loader))
        == expected
    )
    model.compile(backend="eager")
    model(loader[0][0])
    assert dict(ShapleyContribution(model, model.encoders).evaluate(loader)) == expected
