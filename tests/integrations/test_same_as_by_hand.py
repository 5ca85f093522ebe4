"""A framework with a balancer trains bit for bit what the loop of the README does."""

import pytest
import torch
from torch.nn.functional import mse_loss

from awc_balance.balancers import AWC
from tests.balancers.methods import parameters
from tests.integrations.frameworks import (
    CLIPS_LAST,
    FRAMEWORKS,
    METHODS,
    balancer_of,
    by_hand,
    by_lightning,
    loader_of,
    model_of,
    optimizer_of,
    read,
)


def ends(name, framework, folder, *, own_loss=False, loader=loader_of, **options):
    """The parameters after training by hand and by the framework."""
    model = model_of()
    by_hand(model, balancer_of(name, model), loader(), **options, clip_last=CLIPS_LAST[framework])
    other = model_of()
    FRAMEWORKS[framework](other, balancer_of(name, other), loader(), folder, own_loss=own_loss, **options)
    return parameters(model), parameters(other)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_method(framework, name, tmp_path):
    by_hand, by_framework = ends(name, framework, tmp_path)
    assert torch.equal(by_hand, by_framework)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_awc_with_a_loss_of_ones_own(framework, tmp_path):
    by_hand, by_framework = ends("AWC", framework, tmp_path, own_loss=True)
    assert torch.equal(by_hand, by_framework)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_a_balancer_it_is_plain_training(framework, tmp_path):
    plain, by_framework = ends(None, framework, tmp_path)
    assert torch.equal(plain, by_framework)
    assert not torch.equal(plain, ends("AWC", framework, tmp_path)[0])


@pytest.mark.parametrize("name", ["AWC", "InfoReg", "MMPareto"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_accumulation(framework, name, tmp_path):
    by_hand, by_framework = ends(name, framework, tmp_path, accumulate=2)
    assert torch.equal(by_hand, by_framework)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_clipped(framework, tmp_path):
    by_hand, by_framework = ends("AWC", framework, tmp_path, clip=0.1)
    assert torch.equal(by_hand, by_framework)


@pytest.mark.parametrize("name", ["AWC", "AGM"])
def test_bfloat16(name, tmp_path):
    by_hand, by_framework = ends(name, "lightning", tmp_path, precision="bf16")
    assert torch.equal(by_hand, by_framework)


@pytest.mark.parametrize("name", ["AWC", "AGM"])
@pytest.mark.parametrize("framework", ["transformers", "accelerate"])
def test_bfloat16_where_the_framework_puts_autocast_into_the_model(framework, name, tmp_path):
    """What is measured is measured in bfloat16 there, and by hand in float32."""
    by_hand, by_framework = ends(name, framework, tmp_path, precision="bf16")
    torch.testing.assert_close(by_framework, by_hand, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_shuffled_loader_is_read_in_the_order_of_plain_training(framework, tmp_path):
    """Measuring moves no random state: training sees the batches that it would see without."""
    seen = []
    for use in (False, True):
        model = model_of()
        balancer = AWC(model, model.encoders, mse_loss, alpha_superior=0, alpha_inferior=0, step=read) if use else None
        torch.manual_seed(1)
        FRAMEWORKS[framework](model, balancer, loader_of(shuffle=True), tmp_path, own_loss=True)
        seen.append(parameters(model))
    assert torch.equal(*seen)


@pytest.mark.parametrize("name", ["AWC", "InfoReg"])
def test_float16_in_lightning_changes_unscaled_gradients(name, tmp_path):
    precision = pytest.importorskip("lightning.pytorch.plugins.precision")
    model = model_of()
    balancer, scaler = balancer_of(name, model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = optimizer_of(model, balancer)
    loader = loader_of()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        balancer.start_epoch(loader)
        for batch in loader:
            with torch.autocast("cpu", torch.float16, cache_enabled=False):
                loss = balancer.loss(batch)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            balancer.adjust_gradients_()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    other = model_of()
    plugin = precision.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    by_lightning(other, balancer_of(name, other), loader_of(), tmp_path, epochs=2, plugins=[plugin])
    assert torch.equal(parameters(model), parameters(other))
