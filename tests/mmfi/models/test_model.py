from __future__ import annotations

from itertools import combinations

import pytest
import torch

from examples.mmfi.models import ALL_FUSIONS, DECISION, FUSIONS, MODALITIES, PRESETS, build_model
from examples.pose_metrics import mpjpe

SUBSETS = [subset for size in range(1, 5) for subset in combinations(MODALITIES, size)]

# Millions of parameters, paper, for RGB + LiDAR, + mmWave, + WiFi. The MLP's 18.33 is the one that differs.
PUBLISHED = {
    "concat": (15.57, 17.77, 44.08),
    "mlp": (16.02, 18.33, 44.77),
    "attention": (18.72, 20.90, 47.20),
}
EXACT = {
    "concat": (15_570_637, 17_770_407, 44_083_047),
    "mlp": (16_017_357, 18_335_143, 44_765_799),
    "attention": (18_716_621, 20_903_335, 47_202_919),
}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("index", range(3))
def test_the_paper_preset_has_the_published_numbers_of_parameters(fusion, index):
    with torch.device("meta"):
        model = build_model(MODALITIES[: index + 2], fusion, "paper")
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == EXACT[fusion][index]
    # Half a unit of the last printed digit, and the ninth's .0001.
    assert abs(total / 1e6 - PUBLISHED[fusion][index]) < (0.0052 if (fusion, index) == ("mlp", 1) else 0.005)


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_every_subset_of_modalities_predicts_poses(make_inputs, modalities, fusion):
    model = build_model(modalities, fusion, "small").eval()
    inputs = make_inputs(2)
    assert list(model.encoders) == list(modalities)
    assert model({name: inputs[name] for name in modalities}).shape == (2, 17, 3)


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_the_order_of_the_modalities_does_not_matter(make_inputs, fusion):
    torch.manual_seed(0)
    model = build_model(["wifi", "rgb"], fusion, "small").eval()
    same = build_model(["rgb", "wifi"], fusion, "small").eval()
    same.load_state_dict(model.state_dict())
    inputs = make_inputs(2)
    assert torch.equal(model(inputs), same(dict(reversed(inputs.items()))))


@pytest.mark.parametrize("fusion", [*FUSIONS, DECISION])
def test_gradients_reach_every_parameter(make_inputs, fusion):
    model = build_model(MODALITIES, fusion, "small")
    model(make_inputs(4)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    # Biases may have none: a batch norm or a softmax behind them takes any constant away.
    idle = [name for name, gradient in gradients.items() if not gradient.any()]
    assert [name for name in idle if "bias" not in name] == []


def test_the_paper_preset_takes_a_step(make_inputs):
    model = build_model()
    prediction = model(make_inputs(2))
    prediction.square().mean().backward()
    assert prediction.shape == (2, 17, 3)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_a_saved_state_restores_the_predictions(make_inputs, fusion):
    model, inputs = build_model(MODALITIES, fusion, "small"), make_inputs(4)
    model(inputs)
    restored = build_model(MODALITIES, fusion, "small")
    restored.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(inputs), restored.eval()(inputs))


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_batch_mates_and_padding_do_not_matter_in_evaluation(make_inputs, fusion):
    model = build_model(MODALITIES, fusion, "small")
    model(make_inputs(4))
    model.eval()
    inputs = make_inputs(4, seed=1)
    alone = {}
    for name, reading in inputs.items():
        if isinstance(reading, tuple):
            points, mask = reading
            alone[name] = points[:1, mask[0]], mask[:1, mask[0]]
        else:
            alone[name] = reading[:1]
    torch.testing.assert_close(model(alone), model(inputs)[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_clouds_without_points_give_finite_poses(make_inputs, fusion):
    model, inputs = build_model(MODALITIES, fusion, "small"), make_inputs(4)
    for name in ("lidar", "mmwave"):
        inputs[name] = inputs[name][0], torch.zeros_like(inputs[name][1])
    assert model(inputs).isfinite().all()
    assert model.eval()(inputs).isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_lowers_the_loss(make_inputs, fusion):
    torch.manual_seed(0)
    model, inputs = build_model(MODALITIES, fusion, "small"), make_inputs(8)
    target = torch.randn(8, 17, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        loss = mpjpe(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_autocast_predicts_in_the_precision_of_the_weights(make_inputs, fusion):
    model, inputs = build_model(MODALITIES, fusion, "small"), make_inputs(4)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(inputs)
    assert prediction.dtype == torch.float32
    prediction.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs)
    torch.testing.assert_close(rough, model(inputs), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_double_precision_stays_double(make_inputs, fusion):
    model = build_model(MODALITIES, fusion, "small").double()
    assert model(make_inputs(4, dtype=torch.float64)).dtype == torch.float64


def test_modalities_that_the_model_lacks_are_not_read(make_inputs):
    model, inputs = build_model(["lidar"], preset="small").eval(), make_inputs(2)
    assert torch.equal(model(inputs), model({"lidar": inputs["lidar"], "rgb": None}))


def test_a_missing_modality_is_named(make_inputs):
    inputs = make_inputs(2)
    del inputs["mmwave"]
    with pytest.raises(ValueError, match=r"every modality of the model.*Got no \['mmwave'\]"):
        build_model(preset="small")(inputs)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"modalities": []}, r"`modalities` should name at least one.*Got \[\]"),
        ({"modalities": ["rgb", "radar"]}, r"`modalities` should name.*'radar'"),
        ({"modalities": "rgb"}, r"`modalities` should name.*Got 'rgb'"),
        ({"fusion": "sum"}, "`fusion` should be one of.*Got 'sum'"),
        ({"preset": "large"}, "`preset` should be one of.*Got 'large'"),
    ],
)
def test_unknown_names_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        build_model(**{"preset": "small", **arguments})


def test_presets_hold_whatever_is_built_from_them():
    assert set(PRESETS) == {"paper", "small", "tiny"}
    with pytest.raises(AttributeError):
        PRESETS["paper"].features = 1
