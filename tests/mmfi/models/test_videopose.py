from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from examples.mmfi.models.videopose import VideoPose, VideoPoseConfig

SMALL = VideoPoseConfig(channels=8, hidden=8)


def dilated_centre(model, keypoints):
    """The centre frame of the paper's dilated form, with the weights of the strided one."""
    hidden = F.relu(model.norm(F.conv1d(keypoints.flatten(2).mT, model.expand.weight)))
    dilation = model.config.filters[0]
    for block in model.blocks:
        margin = block.width // 2 * dilation
        joined = F.relu(block.norm_join(F.conv1d(hidden, block.join.weight, dilation=dilation)))
        mixed = F.relu(block.norm_mix(F.conv1d(joined, block.mix.weight)))
        hidden = hidden[..., margin:-margin] + mixed
        dilation *= block.width
    return model.head(hidden.squeeze(-1))


def test_the_paper_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        encoder = VideoPose(VideoPoseConfig(), features=256)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 13_357_824


@pytest.mark.parametrize("filters", [(3,), (3, 3, 3, 3), (5, 3), (3, 7)])
def test_the_strided_form_equals_the_dilated_form(filters):
    config = VideoPoseConfig(channels=8, hidden=8, filters=filters)
    model = VideoPose(config, features=4).double().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)
    keypoints = torch.randn(3, config.window, 17, 2, dtype=torch.float64)
    torch.testing.assert_close(model(keypoints), dilated_centre(model, keypoints))


def test_every_frame_joint_and_coordinate_matters():
    model = VideoPose(SMALL, features=4).eval()
    keypoints = torch.randn(16, 81, 17, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(keypoints).sum(), keypoints)
    assert (gradient != 0).any(dim=0).all()


def test_batch_mates_do_not_matter_in_evaluation():
    model = VideoPose(SMALL, features=4).eval()
    keypoints = torch.randn(3, 81, 17, 2)
    torch.testing.assert_close(model(keypoints)[1:2], model(keypoints[1:2]))


@pytest.mark.parametrize("shape", [(2, 27, 17, 2), (2, 81, 14, 2), (2, 81, 17, 3), (2, 81, 34), (81, 17, 2)])
def test_windows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(81, 17\).*Got \[" + ", ".join(map(str, shape))):
        VideoPose(SMALL, features=4)(torch.zeros(shape))


@pytest.mark.parametrize("filters", [(), (3, 2)])
def test_filters_without_a_centre_are_refused(filters):
    with pytest.raises(ValueError, match="`filters` should be odd"):
        VideoPoseConfig(filters=filters)
