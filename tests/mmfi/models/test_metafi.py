from __future__ import annotations

import pytest
import torch

from examples.mmfi.models.metafi import BasicBlock, ChannelAttention, MetaFi, MetaFiConfig
from examples.mmfi.models.presets import SMALL


def test_the_paper_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        encoder = MetaFi(MetaFiConfig(), features=256)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 26_299_584


def test_the_paper_preset_ends_at_17_by_4_places():
    with torch.device("meta"):
        encoder = MetaFi(MetaFiConfig(), features=256)
        assert encoder.network(torch.zeros(1, 1, 136, 32)).shape == (1, 512, 17, 4)


def test_channel_attention_equals_the_naive_loop():
    attention = ChannelAttention(channels=6, heads=2, dropout=0.0).double()
    places = torch.randn(1, 5, 6, dtype=torch.float64)
    queries, keys, values = attention.query_key_value.weight.view(3, 2, 6, 6)
    heads = []
    for query, key, value in zip(queries, keys, values, strict=True):
        scores = (places[0] @ query.T).T @ (places[0] @ key.T) / 6**0.5
        scores = (scores - scores.mean()) / (scores.var(correction=0) + 1e-5).sqrt()
        heads.append(scores.softmax(dim=-1) @ (places[0] @ value.T).T)
    expected = attention.out((sum(heads) / 2).T)
    torch.testing.assert_close(attention(places)[0], expected)


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (4, 2), (3, 1)])
def test_a_block_thins_the_image_out_by_its_stride(inputs, stride):
    block = BasicBlock(inputs, 4, stride)
    assert block(torch.randn(2, inputs, 9, 6)).shape == (2, 4, -(-9 // stride), 6 // stride)


@pytest.mark.parametrize("image", [(68, 16), (50, 30), (9, 9)])
@pytest.mark.parametrize("shape", [(3, 114, 10), (1, 30, 5)])
def test_any_image_and_any_frame_fit(image, shape):
    config = MetaFiConfig(image=image, widths=(4, 8), blocks=(1, 2))
    assert MetaFi(config, features=4)(torch.rand(2, *shape)).shape == (2, 4)


def test_every_antenna_subcarrier_and_packet_matters():
    model = MetaFi(SMALL.wifi, features=64).eval()
    amplitudes = torch.rand(1, 3, 114, 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(amplitudes).square().sum(), amplitudes)
    for axes in [(0, 2, 3), (0, 1, 3), (0, 1, 2)]:
        assert (gradient.abs().sum(dim=axes) > 0).all()


def test_batch_mates_do_not_matter_in_evaluation():
    model = MetaFi(SMALL.wifi, features=64).eval()
    amplitudes = torch.rand(3, 3, 114, 10)
    torch.testing.assert_close(model(amplitudes)[1:2], model(amplitudes[1:2]), atol=1e-5, rtol=1e-5)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match=r"`amplitudes` should be .* Got \[2, 3, 114\]"):
        MetaFi(SMALL.wifi, features=64)(torch.zeros(2, 3, 114))
    with pytest.raises(ValueError, match=r"`features` should divide the last of `widths`. Got 48"):
        MetaFi(SMALL.wifi, features=48)
    with pytest.raises(ValueError, match=r"`blocks` should have one entry per stage. Got \(1, 1\)"):
        MetaFiConfig(blocks=(1, 1))
