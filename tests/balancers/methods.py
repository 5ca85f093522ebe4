"""Every method, as a user would build it, and the loop of the README around it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils._pytree import tree_map

from awc_balance.balancers import (
    AGM,
    AWC,
    OGMGE,
    GBlending,
    InfoReg,
    MMPareto,
    ModalityResampling,
    SampleResampling,
    linear_heads,
)
from tests.models import TwoPart, loader_of


def headed(method):
    def build(model, encoders, criterion, **options):
        inner = getattr(model, "module", model)  # inside DistributedDataParallel
        heads = linear_heads(model, encoders, cast(loader_of(inner), next(model.parameters()).dtype)[0])
        return method(model, encoders, criterion, heads, **options)

    return build


def g_blending(model, encoders, criterion, **options):
    if "weights" not in options:
        inner = getattr(model, "module", model)
        options = {"held_out": task_of(loader_of(inner, 1, seed=9), criterion), "super_epoch": 1, **options}
    return headed(GBlending)(model, encoders, criterion, **options)


def modality_resampling(model, encoders, criterion, **options):
    profit = "accuracy" if criterion is cross_entropy else "pearson"
    return ModalityResampling(
        model, encoders, criterion, profit, **{"warmup": 0, "share": 0.5, "alpha": 3.0, **options}
    )


def sample_resampling(model, encoders, criterion, **options):
    return SampleResampling(model, encoders, criterion, **{"warmup": 0, **options})


def awc(model, encoders, criterion, **options):
    profit = "negative_cross_entropy" if criterion is cross_entropy else "pearson"
    strong = {"alpha_superior": 50.0, "alpha_inferior": 20.0, "contributions": profit}
    return AWC(model, encoders, criterion, **{**strong, **options})


METHODS = {
    "OGM-GE": lambda *args, **options: OGMGE(*args, **{"alpha": 0.5, **options}),
    "AGM": AGM,
    "G-Blending": g_blending,
    "modality resampling": modality_resampling,
    "sample resampling": sample_resampling,
    "MMPareto": headed(MMPareto),
    "InfoReg": InfoReg,
    "AWC": awc,
}

NO_STRENGTH = {
    "OGM-GE": lambda _: {"alpha": 0.0},
    "AGM": lambda _: {"alpha": 0.0},
    "G-Blending": lambda modalities: {"weights": {**dict.fromkeys(modalities, 0.0), "joint": 1.0}},
    "modality resampling": lambda _: {"alpha": 0.0},
    "sample resampling": lambda _: {"alpha": 0.0},
    "InfoReg": lambda _: {"beta": 0.0},
    "AWC": lambda _: {"alpha_superior": 0.0, "alpha_inferior": 0.0},
    **{name: lambda _: {"window": 0} for name in ("MMPareto",)},
}

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-3),
}


def cast(loader, dtype):
    """The loader with numbers of this dtype."""
    return tree_map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, loader)


def easy(model, criterion):
    """Batches whose targets follow the first modality, so that the modalities contribute unequally."""
    loader = []
    for inputs, target in loader_of(model, batches=4):
        first = next(iter(inputs.values())).flatten(1)[:, :2]
        target = target / 10 + torch.cat([first, target[:, 2:]], dim=1)
        loader.append((inputs, target))
    return task_of(loader, criterion)


def task_of(loader, criterion):
    """The loader, with class numbers for targets where the criterion is the cross-entropy."""
    if criterion is mse_loss:
        return loader
    return [(inputs, target.argmax(1)) for inputs, target in loader]


def optimizer_of(model, balancer, name="SGD"):
    optimizer = OPTIMIZERS[name](model.parameters())
    if balancer is not None and any(True for _ in balancer.parameters()):
        optimizer.add_param_group({"params": balancer.parameters()})
    return optimizer


def train(model, loader, criterion, balancer, optimizer, epochs=3):
    """The loop of the README; with no balancer, plain training."""
    for _ in range(epochs):
        if balancer is not None:
            balancer.start_epoch(loader)
        for batch in loader:
            step(model, batch, criterion, balancer, optimizer)
    return model


def step(model, batch, criterion, balancer, optimizer):
    loss = criterion(model(batch[0]), batch[1]) if balancer is None else balancer.loss(batch)
    loss.backward()
    if balancer is not None:
        balancer.adjust_gradients_()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Late(TwoPart):
    """One linear layer on features side by side, the fusion of the paper."""

    def __init__(self, modalities=2, outputs=3):
        super().__init__()
        self.encoders = nn.ModuleDict({f"m{i}": nn.Linear(2 + i, 4) for i in range(modalities)})
        self.head = nn.Linear(4 * modalities, outputs)

    def fuse(self, features):
        return self.head(torch.cat(list(features.values()), dim=1))


def late(modalities=2, bias=True):
    torch.manual_seed(0)
    model = Late(modalities)
    if not bias:
        nn.init.zeros_(model.head.bias)
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(16, e.in_features, generator=generator) for m, e in model.encoders.items()}
    return model, (inputs, torch.randn(16, 3, generator=generator))
