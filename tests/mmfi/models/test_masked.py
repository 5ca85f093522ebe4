from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from examples.mmfi.models.masked import MaskedBatchNorm, masked_mean

seeds = st.integers(0, 2**32 - 1)


def pair(affine=True, momentum=0.1):
    """Ours, and torch's with the same parameters."""
    ours, reference = MaskedBatchNorm(4, affine=affine).double(), nn.BatchNorm1d(4, affine=affine).double()
    if affine:
        nn.init.normal_(ours.weight)
        nn.init.normal_(ours.bias)
        reference.load_state_dict(ours.state_dict())
    ours.momentum = reference.momentum = momentum
    return ours, reference


@given(seeds, st.integers(2, 12), st.booleans(), st.sampled_from([0.1, 1.0, None]))
def test_batch_norm_equals_torch_on_the_real_rows(seed, count, affine, momentum):
    torch.manual_seed(seed)
    ours, reference = pair(affine, momentum)
    mask = (torch.arange(15) < count)[torch.randperm(15)].view(3, 5)
    for _ in range(2):
        values = 3 + 2 * torch.randn(3, 5, 4, dtype=torch.float64)
        torch.testing.assert_close(ours(values, mask)[mask], reference(values[mask]))
    torch.testing.assert_close(dict(ours.named_buffers()), dict(reference.named_buffers()))
    ours.eval(), reference.eval()
    torch.testing.assert_close(ours(values, mask)[mask], reference(values[mask]))


@given(seeds, st.integers(2, 12))
def test_batch_norm_has_the_gradient_of_torch_and_none_for_padding(seed, count):
    torch.manual_seed(seed)
    ours, reference = pair()
    mask = (torch.arange(15) < count)[torch.randperm(15)].view(3, 5)
    values = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(count, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((ours(values, mask)[mask] * weights).sum(), values)
    (expected,) = torch.autograd.grad((reference(values[mask]) * weights).sum(), values)
    torch.testing.assert_close(gradient, expected)
    assert not gradient[~mask].any()


def test_batch_norm_without_a_mask_takes_all_rows_as_real():
    ours, reference = pair()
    values = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(values), reference(values))


@pytest.mark.parametrize("count", [0, 1])
def test_batch_norm_of_too_few_rows_is_its_bias_and_leaves_the_running_statistics(count):
    ours, _ = pair()
    output = ours(torch.full((3, 4), 1e10, dtype=torch.float64), torch.arange(3) < count)
    torch.testing.assert_close(output, ours.bias.expand(3, 4))
    assert torch.equal(ours.running_mean, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(ours.running_var, torch.ones(4, dtype=torch.float64))


def test_batch_norm_keeps_its_statistics_in_float32_under_half_precision_values():
    norm = MaskedBatchNorm(4)
    assert norm(torch.randn(8, 4).bfloat16()).dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


@given(seeds)
def test_masked_mean_equals_the_mean_of_the_real_points(seed):
    torch.manual_seed(seed)
    values, mask = torch.randn(4, 6, 2), torch.rand(4, 6) < 0.5
    for mean, cloud, real in zip(masked_mean(values, mask), values, mask, strict=True):
        torch.testing.assert_close(mean, cloud[real].mean(dim=0) if real.any() else torch.zeros(2))
