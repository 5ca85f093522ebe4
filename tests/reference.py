"""Slow, obvious versions of what the library computes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from torch.utils._pytree import tree_map


def shapley_by_permutations(profits, players):
    """Mean marginal profit over all orders in which players can join."""
    values = np.zeros((players, *np.shape(profits)[1:]))
    orders = list(permutations(range(players)))
    for order in orders:
        coalition = 0
        for player in order:
            joined = coalition | 1 << player
            values[player] += (np.asarray(profits[joined]) - np.asarray(profits[coalition])) / len(orders)
            coalition = joined
    return values


def correlations(prediction, target):
    """numpy's correlation of every output; 0 where one side is constant."""
    p = prediction.double().numpy().reshape(len(prediction), -1)
    t = target.double().numpy().reshape(len(target), -1)
    found = [
        np.corrcoef(p[:, i], t[:, i])[0, 1] if p[:, i].std() > 0 and t[:, i].std() > 0 else 0.0
        for i in range(p.shape[1])
    ]
    return np.array(found).reshape(prediction.shape[1:])


@torch.no_grad()
def coalition_predictions(model, loader):
    """Predictions of every coalition in evaluation mode, from features zeroed by hand, over a whole loader."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    modalities = list(model.encoders)
    table = []
    for k in range(2 ** len(modalities)):
        parts = []
        for inputs, _ in loader:
            features = model.encode(inputs)
            for i, modality in enumerate(modalities):
                if not k >> i & 1:
                    features[modality] = tree_map(zero, features[modality])
            parts.append(model.fuse(features))
        table.append(torch.cat(parts))
    for module, flag in training.items():
        module.training = flag
    return table


def zero(leaf):
    return torch.zeros_like(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def fisher_one_sample_at_a_time(model, loader, criterion):
    """The mean over samples of the squared gradient, by a backward pass per sample in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    total = {m: {n: torch.zeros_like(p) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
    count = 0
    for inputs, target in loader:
        for i in range(len(target)):
            one = tree_map(lambda leaf, i=i: leaf[i : i + 1], inputs)
            model.zero_grad()
            criterion(model(one), target[i : i + 1]).backward()
            for modality, encoder in model.encoders.items():
                for name, parameter in encoder.named_parameters():
                    total[modality][name] += parameter.grad**2
            count += 1
    model.zero_grad()
    for module, flag in training.items():
        module.training = flag
    return {m: {n: value / count for n, value in named.items()} for m, named in total.items()}


def assert_same(actual, expected, rtol=1e-5, atol=1e-9):
    """Equal Fisher diagonals: the same modalities, names and values."""
    assert {m: set(named) for m, named in actual.items()} == {m: set(named) for m, named in expected.items()}
    for modality, named in expected.items():
        for name, value in named.items():
            torch.testing.assert_close(actual[modality][name], value, rtol=rtol, atol=atol, check_dtype=False)


def penalty_by_loop(terms):
    """The sum of alpha F |theta - anchor|^2, term by term, by plain arithmetic and autograd."""
    total = 0.0
    for alpha, (parameter, anchor, fisher) in terms:
        offset = parameter.to(torch.promote_types(parameter.dtype, torch.float32)) - anchor
        total = total + alpha * (fisher * (offset * offset.conj()).real).sum()
    return total
