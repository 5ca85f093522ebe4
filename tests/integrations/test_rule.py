"""AWC with rule="calibration" in every framework: held-out batches are read as training batches are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from awc_balance.balancers import AWC, GBlending, linear_heads
from awc_balance.integrations.adapter import Adapter
from awc_balance.integrations.measured import Measured
from awc_balance.integrations.numbers import numbers_of
from tests.balancers.methods import parameters
from tests.calibration.test_rule import Two, samples
from tests.integrations.frameworks import (
    CLIPS_LAST,
    FRAMEWORKS,
    by_hand,
    by_lightning,
    by_transformers,
    loader_of,
    read,
)

EPOCHS = 4
NUMBERS = {
    f"balance/{name}/{modality}"
    for name in ("alphas", "slopes/held_out", "slopes/training")
    for modality in ("signal", "noise")
}

# Lightning misses the callback that wrote the checkpoint, and finds its folder in use.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


class Judged(nn.Module):
    """A model that computes its own loss, as the models of Transformers do."""

    def __init__(self):
        super().__init__()
        self.inner = Two()

    @property
    def encoders(self):
        return self.inner.encoders

    def forward(self, labels=None, **inputs):
        found = {"logits": self.inner(inputs)}
        return found if labels is None else {"loss": mse_loss(found["logits"], labels), **found}


def data(count, seed):
    inputs, target = samples(count, seed)
    return [{**{m: x[i] for m, x in inputs.items()}, "labels": target[i]} for i in range(count)]


def training():
    return loader_of(data(64, 1), shuffle=False)


def ruled(model):
    held_out = DataLoader(data(100, 2), 50)
    return AWC(model, model.encoders, mse_loss, rule="calibration", held_out=held_out, batches=None, step=read)


def fresh():
    model = Judged()
    return model, ruled(model)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trains_as_by_hand(framework, tmp_path):
    model, balancer = fresh()
    by_hand(model, balancer, training(), epochs=EPOCHS, clip_last=CLIPS_LAST[framework])
    other, second = fresh()
    FRAMEWORKS[framework](other, second, training(), tmp_path, epochs=EPOCHS)
    assert second.regularizer.alphas["noise"] > 0
    assert second.regularizer.history == balancer.regularizer.history
    assert torch.equal(parameters(model), parameters(other))
    assert set(numbers_of(second)) == NUMBERS | {"balance/penalty"}
    assert numbers_of(second)["balance/alphas/noise"] == second.regularizer.alphas["noise"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_needs_the_frameworks_own_loss_only(framework, tmp_path):
    model, balancer = fresh()
    FRAMEWORKS[framework](model, balancer, training(), tmp_path, epochs=EPOCHS, own_loss=True)
    other, second = fresh()
    by_hand(other, second, training(), epochs=EPOCHS)
    assert torch.equal(parameters(model), parameters(other))


def test_resumes_in_lightning(tmp_path):
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    checkpoint = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=24, save_top_k=-1)
    model, balancer = fresh()
    by_lightning(model, balancer, training(), tmp_path, epochs=EPOCHS, callbacks=[checkpoint])
    other, second = fresh()
    by_lightning(other, second, training(), tmp_path, epochs=EPOCHS, resume=tmp_path / "step=24.ckpt")
    assert second.regularizer.history == balancer.regularizer.history
    assert torch.equal(parameters(model), parameters(other))


def test_resumes_in_transformers(tmp_path):
    model, balancer = fresh()
    by_transformers(model, balancer, training(), tmp_path, epochs=EPOCHS, save_strategy="steps", save_steps=28)
    other, second = fresh()
    by_transformers(other, second, training(), tmp_path, epochs=EPOCHS, resume=str(tmp_path / "checkpoint-28"))
    assert second.regularizer.history == balancer.regularizer.history
    assert torch.equal(parameters(model), parameters(other))


def test_held_out_batches_take_the_precision_of_training_batches(tmp_path):
    """As they have to take its device: by what the framework does to a batch before it is seen."""
    model, balancer = fresh()
    by_lightning(model, balancer, training(), tmp_path, epochs=1, precision="64-true")
    assert next(model.parameters()).dtype == torch.float64
    assert len(balancer.regularizer.history) == 1


def blended(model):
    held_out = list(DataLoader(data(10, 2), 5))
    heads = linear_heads(model, model.encoders, held_out[0], step=read)
    return GBlending(model, model.encoders, mse_loss, heads, held_out=held_out, super_epoch=1, step=read)


@pytest.mark.parametrize(("make", "size"), [(ruled, 50), (blended, 5)])
def test_held_out_batches_are_prepared_as_training_batches_are(make, size):
    seen = []

    def prepare(batch):
        seen.append(len(batch["labels"]))
        return batch

    adapter = Adapter(make(Judged()))
    for epoch in (1, 2):
        adapter.start_epoch(Measured(training(), prepare))
        assert seen.count(size) == 2 * epoch


def test_held_out_batches_are_the_users_again_when_an_epoch_has_begun_or_failed():
    balancer = ruled(Judged())
    held_out = balancer.regularizer._rule.held_out
    adapter = Adapter(balancer)
    adapter.start_epoch(Measured(training()))
    assert balancer.regularizer._rule.held_out is held_out
    with pytest.raises(TypeError, match="collection|one loader"):
        adapter.start_epoch(Measured([]))
    assert balancer.regularizer._rule.held_out is held_out


@pytest.mark.parametrize("given", [True, False])
def test_training_batches_are_not_held_out(given):
    balancer = ruled(Judged())
    held_out = balancer.regularizer._rule.held_out
    adapter = Adapter(balancer, held_out if given else None)
    with pytest.raises(ValueError, match="Held-out data should be some that the model is not trained on"):
        adapter.start_epoch(Measured(training() if given else held_out))
    assert (balancer.epoch, balancer.regularizer._rule.held_out) == (0, held_out)
