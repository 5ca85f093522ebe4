import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance import AWCRegularizer
from awc_balance.balancers import AWC
from tests.balancers.methods import optimizer_of, parameters, task_of, train
from tests.models import Attention, Concat, build, loader_of


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("kind", [Concat, Attention])
@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
def test_training_is_bitwise_that_of_the_regularizer(criterion, kind, optimizer):
    profit = "pearson" if criterion is mse_loss else "negative_cross_entropy"
    options = {"alpha_superior": 20.0, "alpha_inferior": 10.0, "window": 2, "contributions": profit}
    model = build(kind)
    loader = task_of(loader_of(model), criterion)
    awc = AWCRegularizer(model, model.encoders, criterion, **options)
    own = optimizer_of(model, None, optimizer)
    for _ in range(3):
        awc.start_epoch(loader)
        for inputs, target in loader:
            criterion(model(inputs), target).backward()
            awc.add_gradient_()
            own.step()
            own.zero_grad()
    other = build(kind)
    balancer = AWC(other, other.encoders, criterion, **options)
    train(other, loader, criterion, balancer, optimizer_of(other, balancer, optimizer))
    assert torch.equal(parameters(model), parameters(other))
    assert balancer.regularizer.history == awc.history
    assert (balancer.epoch, balancer.active) == (3, False)


def test_the_papers_setting_brings_no_warning():
    model = build(Concat)
    AWC(model, model.encoders, mse_loss).start_epoch(loader_of(model))


def test_options_of_the_regularizer_that_do_not_exist_are_refused():
    model = build(Concat)
    with pytest.raises(TypeError, match="alfa"):
        AWC(model, model.encoders, mse_loss, alfa=1.0)
