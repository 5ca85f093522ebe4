"""Threads: two models at once are right, one model at once is refused, and nothing of the process is left changed."""

import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.preserve import differentiable_rnns, measuring, uncompiled
from awc_balance.threads import SharedSetting
from tests.balancers.methods import METHODS, easy
from tests.faults.picture import helps, plain
from tests.models import Concat, Recurrent, build, loader_of
from tests.test_nothing_is_changed import picture, same

PATIENCE = 60
"""Seconds after which a thread that waits for another gives up, and the test fails."""


def train(model, epochs=3):
    loader = loader_of(model, 4)
    awc = AWCRegularizer(model, model.encoders, mse_loss, alpha_superior=50.0, alpha_inferior=20.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(epochs):
        awc.start_epoch(loader)
        for inputs, target in loader:
            (mse_loss(model(inputs), target) + awc()).backward()
            optimizer.step()
            optimizer.zero_grad()
    return plain([model.state_dict(), awc.state_dict()])


def test_two_regularizers_on_two_models_are_right():
    kinds = [Concat, Recurrent, Concat, Recurrent]
    models = [build(kind, seed=number) for number, kind in enumerate(kinds)]
    expected = [train(copy.deepcopy(model)) for model in models]
    with ThreadPoolExecutor(len(models)) as pool:
        assert list(pool.map(train, models)) == expected


class Waiting(list):
    """A loader that lets another thread in between its batches."""

    def __init__(self, batches):
        super().__init__(batches)
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            self.inside.set()
            assert self.go_on.wait(PATIENCE)


CALLS = {
    "contributions": lambda m, loader: ShapleyContribution(m, m.encoders).evaluate(loader),
    "one batch": lambda m, loader: ShapleyContribution(m, m.encoders).update(loader[0]),
    "fisher": lambda m, loader: FisherDiagonal(m.encoders).estimate(loader, m, mse_loss),
    "regularizer": lambda m, loader: AWCRegularizer(m, m.encoders, mse_loss).start_epoch(loader),
    "a part of it": lambda m, loader: measuring(m.encoders["m0"]).__enter__(),
    "balancer": lambda m, loader: step(METHODS["OGM-GE"](m, m.encoders, mse_loss), loader),
}


def step(balancer, loader):
    balancer.start_epoch(loader)
    return balancer.loss(loader[0])


@pytest.mark.parametrize("name", CALLS)
def test_one_model_in_two_threads_is_refused_and_the_first_goes_on(name):
    model = build(Concat)
    batches = easy(model, mse_loss)
    expected = dict(ShapleyContribution(model, model.encoders).evaluate(batches))
    before, loader = picture(model), Waiting(batches)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: dict(ShapleyContribution(model, model.encoders).evaluate(loader)))
        assert loader.inside.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="one thread at a time") as refused:
            CALLS[name](model, batches)
        helps(refused.value)
        loader.go_on.set()
        assert first.result(PATIENCE) == expected
    same(before, picture(model))
    CALLS[name](model, batches) if name != "a part of it" else None


def test_one_thread_may_measure_while_it_measures():
    model = build(Concat)
    loader = loader_of(model)
    found = []

    def criterion(prediction, target):
        found.append(ShapleyContribution(model, model.encoders).evaluate(loader))
        return mse_loss(prediction, target)

    FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, criterion)
    assert all(result == found[0] for result in found)


class TestSettingsOfTheProcess:
    @staticmethod
    def interleaved(setting, read):
        """Enter in one thread, enter in another, leave in the first, leave in the second."""
        before = read()
        first, second = setting(), setting()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            one.submit(first.__enter__).result(PATIENCE)
            made = read()
            other.submit(second.__enter__).result(PATIENCE)
            one.submit(first.__exit__, None, None, None).result(PATIENCE)
            assert read() == made != before
            other.submit(second.__exit__, None, None, None).result(PATIENCE)
        assert read() == before

    def test_any(self):
        value = []

        class Setting:
            def __enter__(self):
                value.append(1)

            def __exit__(self, *error):
                value.pop()

        self.interleaved(SharedSetting(Setting), lambda: list(value))

    def test_cudnn(self):
        model = build(Recurrent)
        self.interleaved(lambda: differentiable_rnns(model), lambda: torch.backends.cudnn.enabled)

    def test_the_stance_of_the_compiler(self):
        torch._dynamo.reset()
        from torch._dynamo import eval_frame

        self.interleaved(uncompiled, lambda: eval_frame._stance.stance)

    def test_warnings(self):
        from awc_balance.contributions.runs import _quietly
        from awc_balance.fisher.objective import loops_allowed

        for setting in (_quietly, loops_allowed):
            self.interleaved(setting, lambda: [str(line) for line in warnings.filters])

    def test_an_error_ends_it_too(self):
        shared, value = SharedSetting(warnings.catch_warnings), list(warnings.filters)

        def fail():
            with shared():
                warnings.simplefilter("ignore")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert warnings.filters == value
