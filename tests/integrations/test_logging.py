"""What a balancer found and did goes to where the framework logs."""

import pytest
import torch
from torch.nn.functional import mse_loss

from awc_balance.balancers import AWC, MMPareto
from awc_balance.integrations.numbers import numbers_of
from tests.integrations.frameworks import (
    METHODS,
    balancer_of,
    by_accelerate,
    by_lightning,
    by_transformers,
    loader_of,
    model_of,
    read,
)

AWC_NUMBERS = {
    "balance/contributions/m0",
    "balance/contributions/m1",
    "balance/alphas/m0",
    "balance/alphas/m1",
    "balance/penalty",
}


def test_lightning(tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers")

    class Rows(loggers.logger.DummyLogger):
        rows = []

        def log_metrics(self, metrics, step=None):
            self.rows.append(metrics)

    model = model_of()
    balancer = balancer_of("AWC", model)
    by_lightning(model, balancer, loader_of(), tmp_path, logger=Rows(), log_every_n_steps=1)
    rows = [row for row in Rows.rows if "balance/penalty" in row]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert set(rows[0]) >= AWC_NUMBERS
    last = balancer.regularizer.history[-1]["contributions"]
    assert rows[-1]["balance/contributions/m0"] == pytest.approx(last["m0"])


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    rows = []

    class Rows(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            rows.append(dict(logs))

    model = model_of()
    by_transformers(
        model, balancer_of("AWC", model), loader_of(), tmp_path, callbacks=[Rows()], logging_strategy="epoch"
    )
    assert [set(row) >= AWC_NUMBERS for row in rows] == [True, True, True, False]  # the last is of the whole run


def test_accelerate(tmp_path):
    tracking = pytest.importorskip("accelerate.tracking")
    rows = []

    class Rows(tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "rows", False, None

        def store_init_configuration(self, values):
            pass

        def log(self, values, step=None, **kwargs):
            rows.append((step, values))

    model = model_of()
    by_accelerate(model, balancer_of("AWC", model), loader_of(), tracker=Rows())
    assert [step for step, _ in rows] == [0, 1, 2]
    assert set(rows[0][1]) == AWC_NUMBERS


@pytest.mark.parametrize("name", METHODS)
def test_every_balancer_has_finite_numbers_or_none(name):
    model, loader = model_of(), loader_of()
    balancer = balancer_of(name, model)
    balancer.start_epoch(loader)
    balancer.loss(next(iter(loader))).backward()
    balancer.adjust_gradients_()
    found = numbers_of(balancer)
    assert all(isinstance(number, float) for number in found.values())
    assert torch.tensor(list(found.values())).isfinite().all()
    assert "balance/weights/m0/1" in found or not isinstance(balancer, MMPareto)


def test_the_penalty_is_0_at_the_anchor_and_left_out_after_the_window():
    model = model_of()
    balancer = AWC(model, model.encoders, mse_loss, window=1, step=read)
    balancer.start_epoch(loader_of())
    assert numbers_of(balancer)["balance/penalty"] == 0.0
    balancer.start_epoch(loader_of())
    assert "balance/penalty" not in numbers_of(balancer)
