from __future__ import annotations

import pytest
import torch

from examples.mmfi.models import HPE_LI, build_model
from examples.mmfi.models.hpe_li import DualSelectiveKernel, HPELi, HPELiConfig
from examples.mmfi.models.presets import SMALL


def test_a_selection_equals_the_naive_loop():
    config = HPELiConfig(kernels=(3, 5))
    block = DualSelectiveKernel(2, 4, config).eval().double()
    image = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    branches = [branch(image) for branch in block.branches]
    joint = branches[0] + branches[1]
    scores = block.by_channel(joint.mean(dim=(2, 3)))
    by_channel = [scores[:, :4].exp(), scores[:, 4:].exp()]
    places = block.by_place(torch.stack([joint.mean(1), joint.max(1).values], 1)).exp()
    expected = sum(
        branch
        * (
            (by_channel[i] / (by_channel[0] + by_channel[1]))[..., None, None]
            + (places[:, i] / (places[:, 0] + places[:, 1]))[:, None]
        )
        for i, branch in enumerate(branches)
    )
    torch.testing.assert_close(block(image), expected)


def test_it_is_light():
    """Its point; the total is ours, since the paper's is not known here."""
    with torch.device("meta"):
        light, usual = (
            sum(p.numel() for p in build_model(["wifi"], preset="paper", wifi_encoder=name).parameters())
            for name in (HPE_LI, "metafi")
        )
    assert light < usual / 30


def test_every_antenna_subcarrier_and_packet_matters():
    model = HPELi(SMALL.hpe_li, features=64).eval()
    amplitudes = torch.rand(1, 3, 114, 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(amplitudes).square().sum(), amplitudes)
    for axes in [(0, 2, 3), (0, 1, 3), (0, 1, 2)]:
        assert (gradient.abs().sum(dim=axes) > 0).all()


def test_batch_mates_do_not_matter_in_evaluation():
    model = HPELi(SMALL.hpe_li, features=64).eval()
    amplitudes = torch.rand(3, 3, 114, 10)
    torch.testing.assert_close(model(amplitudes)[1:2], model(amplitudes[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 114, 10), (3, 30, 5), (3, 1, 1)])
def test_any_frame_fits(shape):
    assert HPELi(SMALL.hpe_li, features=8)(torch.rand(2, *shape)).shape == (2, 8)


def test_bad_values_are_refused():
    with pytest.raises(
        ValueError, match=r"`amplitudes` should be \[batch, 3, subcarriers, packets\]. Got \[2, 1, 9, 9\]"
    ):
        HPELi(SMALL.hpe_li, features=4)(torch.zeros(2, 1, 9, 9))
    with pytest.raises(ValueError, match=r"`kernels` should be odd.*Got \(3, 4\)"):
        HPELiConfig(kernels=(3, 4))
    with pytest.raises(ValueError, match=r"`wifi_encoder` should be one of.*Got 'resnet'"):
        build_model(["wifi"], preset="tiny", wifi_encoder="resnet")
