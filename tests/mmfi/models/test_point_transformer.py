from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from examples.mmfi.models.masked import MaskedBatchNorm
from examples.mmfi.models.point_transformer import (
    PointTransformer,
    PointTransformerConfig,
    TransitionDown,
    VectorAttention,
)
from examples.mmfi.models.points import build_levels
from examples.mmfi.models.presets import SMALL

seeds = st.integers(0, 2**32 - 1)


def random_norms(module):
    """Give batch norms something to do, as after some training."""
    for norm in module.modules():
        if isinstance(norm, MaskedBatchNorm):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, std=0.3)
    return module.double().eval()


def encoder(columns=3):
    config = SMALL.lidar if columns == 3 else SMALL.mmwave
    return random_norms(PointTransformer(config, features=16))


def cloud(points, columns=3, batch=2):
    return torch.randn(batch, points, columns, dtype=torch.float64), torch.ones(batch, points, dtype=torch.bool)


def pad(points, mask, length, fill=0.0):
    empty = points.new_full((len(points), length, points.shape[-1]), fill)
    return torch.cat([points, empty], dim=1), torch.cat([mask, mask.new_zeros(len(mask), length)], dim=1)


@pytest.mark.parametrize(("columns", "total"), [(3, 2_186_650), (5, 2_186_714)])
def test_the_paper_preset_has_the_published_number_of_parameters(columns, total):
    with torch.device("meta"):
        encoder = PointTransformer(PointTransformerConfig(columns=columns), features=256)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == total


@given(seeds, st.integers(1, 30), st.integers(1, 30), st.sampled_from([3, 5]), st.booleans())
def test_padding_does_not_matter(seed, count, length, columns, training):
    torch.manual_seed(seed)
    model, (points, mask) = encoder(columns).train(training), cloud(count, columns)
    expected = model(points, mask)
    torch.testing.assert_close(model(*pad(points, mask, length)), expected, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("fill", [1e30, float("inf"), float("nan")])
def test_what_padding_holds_does_not_matter(fill):
    model, (points, mask) = encoder(), cloud(10)
    torch.testing.assert_close(model(*pad(points, mask, 7, fill)), model(points, mask))


@given(seeds, st.integers(1, 40), st.booleans())
def test_the_order_of_the_points_does_not_matter(seed, count, training):
    torch.manual_seed(seed)
    model, (points, mask) = encoder().train(training), pad(*cloud(count), 5)
    order = torch.randperm(count + 5)
    shuffled = model(points[:, order], mask[:, order])
    torch.testing.assert_close(shuffled, model(points, mask), atol=1e-8, rtol=1e-5)


@given(seeds, st.integers(1, 40))
def test_batch_mates_do_not_matter_in_evaluation(seed, count):
    torch.manual_seed(seed)
    model, (points, _) = encoder(), cloud(40, batch=4)
    mask = torch.arange(40) < torch.tensor([[count], [40], [0], [7]])
    alone = torch.cat([model(points[i : i + 1], mask[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model(points, mask), alone, atol=1e-8, rtol=1e-5)


def test_empty_clouds_have_one_finite_feature():
    model, (points, mask) = encoder(), cloud(20, batch=3)
    mask[1:] = False
    features = model(points, mask)
    assert features.isfinite().all()
    assert torch.equal(features[1], features[2])
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize("sizes", [(0, 0), (0, 1), (1, 1), (0, 30)])
def test_training_on_almost_empty_batches_stays_finite(sizes):
    model, (points, _) = encoder().train(), cloud(30)
    model(points, torch.arange(30) < torch.tensor(sizes).unsqueeze(1)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_every_point_and_column_matters():
    model, (points, mask) = encoder(columns=5), cloud(12, columns=5)
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(model(points, mask).sum(), points)
    assert (gradient.abs().sum(dim=-1) > 0).all()
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_vector_attention_equals_the_naive_loop():
    attention = random_norms(VectorAttention(8, share=2))
    points, mask = cloud(6, batch=1)
    (level,) = build_levels(points, mask, 4, (3,))
    features = torch.randn(1, 6, 8, dtype=torch.float64)
    attended = attention(features, level.within)[0]
    key_value = attention.key_value(features[0])
    for i in range(6):
        scores, values = [], []
        for j, offset in zip(level.within.indices[0, i], level.within.offsets[0, i], strict=True):
            place = attention.position_norm(attention.position_in(offset[None]))
            place = attention.position_out(place.relu())[0]
            relation = key_value[j, :8] - attention.query(features[0, i]) + place
            hidden = attention.weight_in(attention.relation_norm(relation[None]).relu())
            scores.append(attention.weight_out(attention.weight_norm(hidden).relu())[0])
            values.append(key_value[j, 8:] + place)
        weights = torch.stack(scores).softmax(dim=0)
        # Channel c has the weight of group c mod 4.
        expected = sum(value * weight.repeat(2) for value, weight in zip(values, weights, strict=True))
        torch.testing.assert_close(attended[i], expected)


def test_transition_down_equals_the_naive_loop():
    down = random_norms(TransitionDown(4, 8))
    points, mask = cloud(10, batch=1)
    _, level = build_levels(points, mask, 4, (3, 5))
    features = torch.randn(1, 10, 4, dtype=torch.float64)
    pooled = down(features, level)[0]
    assert pooled.shape == (3, 8)
    for i in range(3):
        sources = zip(level.sources.offsets[0, i], level.sources.indices[0, i], strict=True)
        rows = torch.stack([torch.cat([offset, features[0, j]]) for offset, j in sources])
        torch.testing.assert_close(pooled[i], down.norm(down.linear(rows)).relu().amax(dim=0))


@pytest.mark.parametrize(
    ("points", "mask", "match"),
    [
        (torch.zeros(2, 9, 5), torch.ones(2, 9, dtype=torch.bool), r"\[batch, points, 3\].*\[2, 9, 5\]"),
        (torch.zeros(9, 3), torch.ones(9, dtype=torch.bool), r"\[batch, points, 3\].*\[9, 3\]"),
        (torch.zeros(2, 0, 3), torch.ones(2, 0, dtype=torch.bool), r"room for one point.*\[2, 0, 3\]"),
        (torch.zeros(2, 9, 3), torch.ones(2, 8, dtype=torch.bool), r"`mask`.*\[2, 9\].*\[2, 8\]"),
        (torch.zeros(2, 9, 3), torch.ones(2, 9), r"`mask` should be bool.*float32"),
    ],
)
def test_bad_clouds_are_refused(points, mask, match):
    with pytest.raises(ValueError, match=match):
        PointTransformer(SMALL.lidar, features=16)(points, mask)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"neighbours": (8, 16)}, r"`neighbours` should have one entry per stage.*\(8, 16\)"),
        ({"widths": (32, 64, 100, 256, 512)}, r"multiple of `share`.*100.*8"),
        ({"columns": 2}, r"`columns` should be 3 or more.*2"),
        ({"stride": 0}, r"`stride` should be 1 or more.*0"),
    ],
)
def test_bad_widths_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        PointTransformerConfig(**changes)
