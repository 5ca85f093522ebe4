from __future__ import annotations

import pytest
import torch

from examples.mmfi.models import build_model
from examples.mmfi.models.decision import DecisionFusion


def test_the_pose_is_the_weighted_sum_of_those_of_the_modalities():
    fusion, features = DecisionFusion(3, 4, 6).eval(), torch.randn(5, 3, 4)
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([0.5, 0.2, -0.1]))
    poses = [head(features[:, i]) for i, head in enumerate(fusion.heads)]
    torch.testing.assert_close(fusion(features), 0.5 * poses[0] + 0.2 * poses[1] - 0.1 * poses[2])


def test_in_training_the_poses_of_all_modalities_and_their_sum_are_given():
    fusion, features = DecisionFusion(3, 4, 6), torch.randn(5, 3, 4)
    given = fusion(features)
    assert given.shape == (4, 5, 6)
    torch.testing.assert_close(given[-1], fusion.eval()(features))


def test_the_sum_moves_the_weights_only():
    fusion, features = DecisionFusion(2, 4, 6), torch.randn(5, 2, 4, requires_grad=True)
    fusion(features)[-1].square().sum().backward()
    assert features.grad is None or not features.grad.any()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in fusion.heads.parameters())
    assert fusion.weights.grad.all()


@pytest.mark.parametrize("number", [0, 1])
def test_the_pose_of_a_modality_moves_its_own_part_only(number):
    fusion, features = DecisionFusion(2, 4, 6), torch.randn(5, 2, 4, requires_grad=True)
    fusion(features)[number].square().sum().backward()
    assert features.grad[:, number].any()
    assert not features.grad[:, 1 - number].any()


def test_it_starts_from_the_mean():
    assert DecisionFusion(4, 4, 6).weights.tolist() == [0.25] * 4


def test_least_mean_squares_prefers_the_modality_that_is_right(make_inputs):
    model = build_model(["rgb", "wifi"], "decision", "tiny")
    fusion = model.fusion
    features = torch.randn(64, 2, model.features)
    target = fusion.heads[0](features[:, 0]).detach()
    optimizer = torch.optim.SGD([fusion.weights], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        (fusion(features)[-1] - target).square().mean().backward()
        optimizer.step()
    assert fusion.weights.tolist() == pytest.approx([1.0, 0.0], abs=0.05)
