"""A run that was saved and resumed ends bit for bit where one ends that was not stopped."""

import pytest
import torch

from tests.balancers.methods import parameters
from tests.integrations.frameworks import (
    METHODS,
    balancer_of,
    by_accelerate,
    by_lightning,
    by_transformers,
    data,
    loader_of,
    model_of,
)

# Lightning misses the callback that wrote the checkpoint, and finds its folder in use.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

BETWEEN, WITHIN = 4, 6  # steps of epochs of four


def fresh(name):
    model = model_of()
    return model, balancer_of(name, model)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [BETWEEN, WITHIN])
def test_lightning(step, name, tmp_path):
    """With equal batches, since Lightning itself begins the loader anew in the middle of an epoch."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    checkpoint = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=step, save_top_k=-1)
    loader = loader_of(data()[:8] * 4, shuffle=False)
    model, balancer = fresh(name)
    by_lightning(model, balancer, loader, tmp_path, callbacks=[checkpoint])
    other, second = fresh(name)
    by_lightning(other, second, loader, tmp_path, resume=tmp_path / f"step={step}.ckpt")
    assert second.epoch == balancer.epoch == 3
    assert torch.equal(parameters(model), parameters(other))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [BETWEEN, WITHIN])
def test_transformers(step, name, tmp_path):
    model, balancer = fresh(name)
    by_transformers(model, balancer, loader_of(), tmp_path, save_strategy="steps", save_steps=step)
    other, second = fresh(name)
    by_transformers(other, second, loader_of(), tmp_path, resume=str(tmp_path / f"checkpoint-{step}"))
    assert second.epoch == balancer.epoch == 3
    assert torch.equal(parameters(model), parameters(other))


def test_transformers_from_another_folder(tmp_path):
    model, balancer = fresh("AWC")
    by_transformers(model, balancer, loader_of(), tmp_path / "a", save_strategy="steps", save_steps=WITHIN)
    saved = str(tmp_path / "a" / f"checkpoint-{WITHIN}")
    other, second = fresh("AWC")
    with pytest.raises(FileNotFoundError, match="resume_from="):
        by_transformers(other, second, loader_of(), tmp_path / "b", resume=saved)
    other, second = fresh("AWC")
    by_transformers(other, second, loader_of(), tmp_path / "b", resume=saved, resume_from=saved)
    assert torch.equal(parameters(model), parameters(other))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("at", [(1, 0), (1, 2)])
def test_accelerate(at, name, tmp_path):
    model, balancer = fresh(name)
    by_accelerate(model, balancer, loader_of())
    stopped, first = fresh(name)
    by_accelerate(stopped, first, loader_of(), tmp_path, save=at)
    other, second = fresh(name)
    by_accelerate(other, second, loader_of(), tmp_path, resume=at)
    assert second.epoch == balancer.epoch == 3
    assert torch.equal(parameters(model), parameters(other))


def test_lightning_from_a_checkpoint_without_the_balancer(tmp_path):
    """The balancer begins where training goes on, in the middle of an epoch."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    checkpoint = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=WITHIN, save_top_k=-1)
    by_lightning(model_of(), None, loader_of(), tmp_path, callbacks=[checkpoint])
    model, balancer = fresh("AWC")
    by_lightning(model, balancer, loader_of(), tmp_path, resume=tmp_path / f"step={WITHIN}.ckpt")
    assert [row["epoch"] for row in balancer.regularizer.history] == [1, 2]


def test_lightning_trains_again_in_a_new_trainer(tmp_path):
    model, balancer = fresh("AWC")
    for epochs in (1, 1, 2):
        by_lightning(model, balancer, loader_of(), tmp_path, epochs=epochs)
    assert balancer.epoch == 4
