from __future__ import annotations

import pytest
import torch

from examples.mmfi.models import MODALITIES, X_FI, build_model
from examples.mmfi.models.x_fi import XFiConfig, XFiFusion, drawn, present

CONFIG = XFiConfig(tokens=3, width=8, rounds=2, heads=2, feedforward=16)


def fusion_of(modalities: int) -> XFiFusion:
    return XFiFusion(modalities, 4, 6, CONFIG)


def without(features, number):
    left = features.clone()
    left[:, number] = 0.0
    return left


def test_a_modality_whose_feature_is_zero_has_no_part_in_the_prediction():
    """What its tokens would be, and how it would be attended to, does not matter."""
    fusion, features = fusion_of(3).eval(), without(torch.randn(5, 3, 4), 1)
    before = fusion(features)
    with torch.no_grad():
        for part in (fusion.project[1], fusion.attend[1], fusion.norms[1]):
            for parameter in part.parameters():
                parameter.add_(1.0)
    torch.testing.assert_close(fusion(features), before)


def test_every_modality_that_is_there_has_a_part_in_the_prediction():
    fusion, features = fusion_of(3).eval(), torch.randn(5, 3, 4)
    for number in range(3):
        assert not torch.allclose(fusion(without(features, number)), fusion(features), atol=1e-4)


def test_without_any_modality_the_prediction_is_finite_and_constant():
    prediction = fusion_of(2).eval()(torch.zeros(3, 2, 4))
    assert prediction.isfinite().all()
    torch.testing.assert_close(prediction, prediction[:1].expand(3, -1))


def test_batch_mates_without_the_same_modalities_do_not_matter():
    fusion, features = fusion_of(3).eval(), torch.randn(3, 3, 4)
    features[1, 0] = 0.0
    features[2, 1:] = 0.0
    alone = torch.cat([fusion(row) for row in features.split(1)])
    torch.testing.assert_close(fusion(features), alone, atol=1e-5, rtol=1e-5)


def test_training_and_evaluation_agree_where_nothing_is_left_out(monkeypatch):
    fusion = XFiFusion(2, 4, 6, XFiConfig(tokens=3, width=8, rounds=2, heads=2, feedforward=16, dropout=0.0))
    features = torch.randn(5, 2, 4)
    monkeypatch.setattr("examples.mmfi.models.x_fi.drawn", lambda there: there)
    with torch.no_grad():
        torch.testing.assert_close(fusion.train()(features), fusion.eval()(features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_modalities_are_left_out_every_other_time_and_never_all(modalities):
    kept = drawn(torch.ones(4000, modalities, dtype=torch.bool))
    assert kept.any(dim=1).all()
    all_drawn_out = 0.5**modalities  # then all are kept
    assert kept.float().mean().item() == pytest.approx(0.5 + all_drawn_out, abs=0.03)


def test_what_is_not_there_is_never_drawn():
    there = present(without(torch.randn(500, 3, 4), 2))
    assert there.tolist() == [[True, True, False]] * 500
    assert not drawn(there)[:, 2].any()
    assert drawn(there).any(dim=1).all()


def test_a_modality_that_is_left_out_in_training_gets_no_gradient(monkeypatch):
    fusion, features = fusion_of(2), torch.randn(5, 2, 4, requires_grad=True)
    monkeypatch.setattr("examples.mmfi.models.x_fi.drawn", lambda there: there & torch.tensor([True, False]))
    fusion(features).square().sum().backward()
    assert features.grad[:, 0].any()
    assert not features.grad[:, 1].any()


def test_the_paper_preset_has_32_tokens_of_512():
    with torch.device("meta"):
        fusion = build_model(MODALITIES, X_FI, "paper").fusion
    assert (fusion.config.tokens, fusion.config.width) == (32, 512)
    assert [project.out_features for project in fusion.project] == [32 * 512] * 4


def test_gradients_reach_every_parameter_where_nothing_is_left_out(make_inputs, monkeypatch):
    monkeypatch.setattr("examples.mmfi.models.x_fi.drawn", lambda there: there)
    model = build_model(MODALITIES, X_FI, "small")
    model(make_inputs(4)).square().mean().backward()
    idle = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    assert [name for name in idle if "bias" not in name] == []
