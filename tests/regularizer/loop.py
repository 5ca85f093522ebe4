"""The loop of the README, and a regularizer to put into it."""

import gc

import torch
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer


def train(model, loader, awc=None, epochs=3, loss=mse_loss, optimizer=None, closed_form=False):
    """The loop of the README."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        if awc is not None:
            awc.start_epoch(loader)
        for inputs, target in loader:
            value = loss(model(inputs), target)
            if awc is not None and not closed_form:
                value = value + awc()
            value.backward()
            if closed_form:
                awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()
    return model


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def awc_of(model, **options):
    return AWCRegularizer(
        model, model.encoders, mse_loss, **{"alpha_superior": 20.0, "alpha_inferior": 10.0, **options}
    )


def live_elements():
    """Elements of all tensors there are."""
    gc.collect()
    return sum(tensor.numel() for tensor in gc.get_objects() if issubclass(type(tensor), torch.Tensor))
