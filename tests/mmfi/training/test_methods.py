"""Every balancing method and every system as a run of the example."""

import json
import math

import pytest
import torch

from awc_balance.balancers import AWC, Plain
from examples.mmfi.learner import Learner
from examples.mmfi.methods import BALANCERS, pose_loss, table_options
from examples.mmfi.packed import PackedClips
from examples.mmfi.settings import METHODS, Resources
from examples.mmfi.training import train
from examples.pose_metrics import mpjpe
from tests.mmfi.training.runs import settings_for, without_batch_statistics, without_times
from tests.mmfi.training.test_training import parts_of

CPU = torch.device("cpu")
BALANCED = [method for method in METHODS if method != "plain"]
SYSTEMS = {
    "MM-Fi": {"fusion": "decision"},
    "X-Fi": {"fusion": "x-fi"},
    "HPE-Li": {"modalities": ("wifi",), "wifi_encoder": "hpe-li"},
}
FAST = {"epochs": 2, "learning_rate": 0.01}  # until predictions correlate with poses
# Known of them, and said to the user; see `Balancer.check`.
pytestmark = pytest.mark.filterwarnings("ignore:(OGMGE|AGM) scales gradients, and Adam:UserWarning")


class StoppedError(Exception):
    pass


def options(method):
    """Those of Table 1, but at work from the first epoch on."""
    return {**table_options(method, 3), **({"warmup": 0} if method.endswith("-level") else {})}


def balanced(packed, method, **changes):
    return settings_for(packed, method=method, method_options=options(method), **changes)


def stopped_and_resumed(settings, folder, monkeypatch, last=4):
    """The result of a run that was stopped in its second epoch, between two checkpoints."""
    resources = Resources(device="cpu", checkpoints=str(folder), checkpoint_steps=1)
    update, steps = Learner.update, []

    def stop(learner, parts):
        if len(steps) == last:
            raise StoppedError
        steps.append(1)
        return update(learner, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", stop)
        with pytest.raises(StoppedError):
            train(settings, lambda: None, resources)
    return train(settings, lambda: None, resources)


def test_there_is_a_balancer_for_every_method():
    assert tuple(BALANCERS) == METHODS


@pytest.mark.parametrize("method", BALANCED)
def test_every_method_trains_and_resumes_bit_for_bit(simulated, tmp_path, monkeypatch, method):
    settings = balanced(simulated[1], method, fusion="attention", accumulation=2, epochs=2)
    whole = train(settings, lambda: None, Resources(device="cpu"))
    assert math.isfinite(whole["test"]["mpjpe_mm"])
    json.dumps(whole, allow_nan=False)
    resumed = stopped_and_resumed(settings, tmp_path, monkeypatch)
    assert without_times(resumed) == without_times(whole)


@pytest.fixture(scope="module")
def plain(simulated):
    return train(settings_for(simulated[1], **FAST), lambda: None, Resources(device="cpu"))


@pytest.mark.parametrize("method", BALANCED)
def test_every_method_changes_the_training_and_not_the_model(simulated, plain, method):
    result = train(balanced(simulated[1], method, **FAST), lambda: None, Resources(device="cpu"))
    assert result["epochs"] != plain["epochs"]
    assert result["parameters"] == plain["parameters"], "heads of a method are not of the model"


@pytest.mark.parametrize("method", BALANCED)
def test_every_method_works_in_bfloat16_and_with_one_modality(simulated, method):
    changes = {"precision": "bfloat16", "modalities": ("rgb",), "fusion": "mlp", "epochs": 1}
    result = train(balanced(simulated[1], method, **changes), lambda: None, Resources(device="cpu"))
    assert math.isfinite(result["test"]["mpjpe_mm"])


@pytest.mark.parametrize("method", ["AGM", "G-Blending", "InfoReg", "MMPareto", "OGM-GE", "Sample-level"])
def test_a_scaled_loss_does_not_change_the_first_step(simulated, method):
    """In float16 the loss is scaled by 65 536, and the method should not notice."""
    parts = parts_of(PackedClips(simulated[1]), 16)
    weights = []
    for precision in ("float32", "float16"):
        learner = Learner(balanced(simulated[1], method, precision=precision), CPU, parts)
        without_batch_statistics(learner.model)
        learner.start_epoch([parts])
        before = torch.cat([p.detach().flatten().clone() for p in learner.model.parameters()])
        learner.update(parts)
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters()]) - before)
    assert torch.nn.functional.cosine_similarity(*weights, dim=0) > 0.8  # Adam's first step is a sign


def test_gradients_of_heads_do_not_pile_up(simulated):
    parts = parts_of(PackedClips(simulated[1]), 8, 8)
    learner = Learner(balanced(simulated[1], "MMPareto"), CPU)
    learner.start_epoch([parts])
    before = [parameter.detach().clone() for parameter in learner.balancer.parameters()]
    learner.update(parts)
    assert before
    assert all(parameter.grad is None for parameter in learner.balancer.parameters())
    assert not any(torch.equal(*pair) for pair in zip(before, learner.balancer.parameters(), strict=True))


def test_a_method_that_adam_undoes_is_named(simulated):
    with pytest.warns(UserWarning, match="OGMGE scales gradients, and Adam"):
        Learner(balanced(simulated[1], "OGM-GE"), CPU)


def test_plain_training_and_awc_stand_behind_the_same_interface(simulated):
    assert isinstance(Learner(settings_for(simulated[1]), CPU).balancer, Plain)
    learner = Learner(balanced(simulated[1], "AWC"), CPU)
    assert isinstance(learner.balancer, AWC)
    assert learner.awc_history == []


def test_g_blending_is_given_held_out_batches_and_fixed_weights_need_none(simulated):
    parts = parts_of(PackedClips(simulated[1]), 16)
    learner = Learner(balanced(simulated[1], "G-Blending"), CPU, parts)
    learner.start_epoch([parts])
    assert set(learner.balancer.measured) == {"rgb", "wifi", "joint"}
    fixed = {"weights": {"rgb": 0.25, "wifi": 0.25, "joint": 0.5}}
    Learner(settings_for(simulated[1], method="G-Blending", method_options=fixed), CPU).start_epoch([parts])


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains_and_resumes_bit_for_bit(simulated, tmp_path, monkeypatch, system):
    settings = settings_for(simulated[1], **SYSTEMS[system], epochs=2)
    whole = train(settings, lambda: None, Resources(device="cpu"))
    losses = [row["loss"] for row in whole["epochs"]]
    assert losses[-1] < losses[0]
    assert whole["epochs"][0]["pearson"].keys() == set(settings.modalities)
    assert without_times(stopped_and_resumed(settings, tmp_path, monkeypatch)) == without_times(whole)


def test_decision_fusion_trains_every_modality_as_if_it_were_alone(simulated):
    parts = parts_of(PackedClips(simulated[1]), 16)
    joint = Learner(settings_for(simulated[1], fusion="decision"), CPU)
    without_batch_statistics(joint.model.encoders)
    alone = Learner(settings_for(simulated[1], modalities=("rgb",)), CPU)
    alone.model.encoders["rgb"].load_state_dict(joint.model.encoders["rgb"].state_dict())
    alone.model.fusion.head.load_state_dict(joint.model.fusion.heads[0].state_dict())
    without_batch_statistics(alone.model)
    for learner in (joint, alone):
        learner.start_epoch([])
        for _ in range(3):
            learner.update(parts)
    for name, value in alone.model.encoders["rgb"].state_dict().items():
        torch.testing.assert_close(joint.model.encoders["rgb"].state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_loss_of_several_predictions_is_the_sum_of_theirs():
    torch.manual_seed(0)
    target, predictions = torch.randn(4, 17, 3), torch.randn(3, 4, 17, 3)
    torch.testing.assert_close(pose_loss(predictions, target), sum(mpjpe(poses, target) for poses in predictions))
    assert pose_loss(target + 1, target) == mpjpe(target + 1, target)
