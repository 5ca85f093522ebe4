import json
import math
import shutil
from itertools import pairwise

import pytest
import torch

from examples.mmfi.checkpoint import load
from examples.mmfi.conventions import Conventions
from examples.mmfi.data import open_data
from examples.mmfi.dataset import PoseFrames
from examples.mmfi.learner import Learner
from examples.mmfi.pack import pack
from examples.mmfi.packed import PackedClips
from examples.mmfi.protocols import hold_out, split_clips
from examples.mmfi.settings import Resources
from examples.mmfi.training import train
from tests.mmfi.training.runs import awc, same_tensors, settings_for, without_batch_statistics, without_times

RESULT = {
    *("run", "simulated", "frames", "test", "test_last_epoch", "spread_mm", "poses", "epochs", "awc"),
    *("parameters", "versions", "hardware", "seconds", "seconds_per_step"),
}
CPU = torch.device("cpu")


def run(packed, resources=None, **changes):
    return train(settings_for(packed, **changes), lambda: None, resources or Resources(device="cpu"))


@pytest.fixture(scope="module")
def plain(simulated):
    return run(simulated[1])


@pytest.fixture(scope="module")
def balanced(simulated):
    return run(simulated[1], **awc())


def test_a_result_says_everything_in_plain_values(balanced):
    assert json.loads(json.dumps(balanced, allow_nan=False)).keys() == RESULT
    assert balanced["simulated"] is True
    assert balanced["versions"].keys() == {"python", "awc_balance", "torch", "numpy", "scipy", "scikit-learn"}
    assert balanced["spread_mm"].keys() == {"rgb", "wifi", "target"}
    assert [len(balanced["poses"][kind]) for kind in ("true", "predicted")] == [4, 4]
    for row in balanced["epochs"]:
        assert row.keys() == {"loss", "held_out_mm", "pearson", "negative_mse"}
        assert row["pearson"].keys() == row["negative_mse"].keys() == {"rgb", "wifi"}
    assert [row["epoch"] for row in balanced["awc"]] == [1, 2]


def test_frames_that_lack_a_modality_are_counted(simulated, tmp_path, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(simulated[0], raw)
    for number in (2, 3):  # of a training clip, and of a test clip
        (raw / "E01" / "S01" / "A02" / "rgb" / f"frame{number:03d}.npy").unlink()
    (raw / "E01" / "S05" / "A02" / "wifi-csi" / "frame001.mat").write_bytes(b"")
    pack(raw, tmp_path / "packed", Conventions())
    result = run(tmp_path / "packed", Resources(device="cpu", progress=True), epochs=1)
    used = {name: part["used"] for name, part in result["frames"].items()}
    assert sum(used.values()) == 80 - 3
    assert used["test"] == 20 - 1
    assert sum(part["left_out"] for part in result["frames"].values()) == 3
    assert result["frames"]["test"]["left_out"] == 1
    text = "{train} frames to train on, {held_out} held out, {test} to test; 3 left out, which lack a modality"
    assert text.format(**used) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fusion", "modalities"),
    [
        ("concat", ("lidar",)),
        ("mlp", ("wifi", "mmwave")),
        ("attention", ("rgb", "lidar", "mmwave", "wifi")),
        ("concat", ("rgb", "lidar", "mmwave", "wifi")),
    ],
)
def test_any_modalities_and_any_fusion_train(simulated, fusion, modalities):
    result = run(simulated[1], fusion=fusion, modalities=modalities, epochs=1, **awc(), seed=1)
    assert math.isfinite(result["test"]["mpjpe_mm"])
    assert result["epochs"][0]["pearson"].keys() == set(modalities)


def test_the_same_settings_give_the_same_result_whatever_the_resources(simulated, balanced, tmp_path):
    resources = Resources(device="cpu", workers=1, checkpoints=str(tmp_path), checkpoint_steps=2)
    assert without_times(run(simulated[1], resources, **awc())) == without_times(balanced)


def test_parts_may_be_smaller_than_the_sample_of_poses(simulated):
    result = run(simulated[1], batch_size=12, accumulation=4, epochs=1)
    assert [len(result["poses"][kind]) for kind in ("true", "predicted")] == [4, 4]


def test_another_seed_gives_another_result(simulated, plain):
    assert run(simulated[1], seed=1)["epochs"] != plain["epochs"]


@pytest.mark.parametrize("nothing", [{"window": 0}, {"alpha_superior": 0.0, "alpha_inferior": 0.0}])
def test_awc_without_a_window_or_strength_is_plain_training(simulated, plain, nothing):
    result = run(simulated[1], **awc(**nothing))
    assert [result[name] for name in ("epochs", "test", "poses")] == [plain[n] for n in ("epochs", "test", "poses")]


def test_awc_changes_the_training(plain, balanced):
    assert balanced["epochs"] != plain["epochs"]


def test_the_epoch_is_chosen_on_held_out_clips_and_the_test_clips_change_nothing(simulated, monkeypatch):
    packed = simulated[1]
    usual = run(packed, learning_rate=0.05)
    errors = [row["held_out_mm"] for row in usual["epochs"]]
    assert errors.index(min(errors)) < len(errors) - 1, "the last epoch should not be the best, to tell the two apart"
    assert usual["test"] != usual["test_last_epoch"]
    until_best = run(packed, learning_rate=0.05, epochs=errors.index(min(errors)) + 1)
    assert until_best["test_last_epoch"] == usual["test"]

    def other_test(settings):
        data = open_data(settings)
        data.test.rows = data.test.rows[:2]
        data.test._clip = data.test._clip[:2]
        return data

    monkeypatch.setattr("examples.mmfi.training.open_data", other_test)
    assert run(packed, learning_rate=0.05)["epochs"] == usual["epochs"]


def test_the_three_parts_share_no_clip(simulated):
    data = open_data(settings_for(simulated[1], seed=3))
    parts = [set(frames.clips) for frames in (data.train, data.held_out, data.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    packed = PackedClips(simulated[1])
    assert parts[2] == set(split_clips(packed.clips, "P1", "S2").validation)
    assert parts[1] == set(hold_out(split_clips(packed.clips, "P1", "S2").train, 0.2, 3).validation)


def parts_of(packed, *sizes):
    frames = PoseFrames(packed, packed.clips, ("rgb", "wifi"))
    edges = [0, *(sum(sizes[: i + 1]) for i in range(len(sizes)))]
    return [frames.__getitems__(list(range(start, end))) for start, end in pairwise(edges)]


def learner_without_batch_statistics(packed, **changes):
    learner = Learner(settings_for(packed, **changes), CPU)
    without_batch_statistics(learner.model)
    return learner


@pytest.mark.parametrize("fisher", ["per_batch", "corrected", "per_sample"])
def test_parts_do_not_change_what_awc_measures(simulated, fisher):
    weak = awc(fisher=fisher, alpha_superior=2.0, alpha_inferior=1.0)
    whole, parted = (run(simulated[1], **weak, accumulation=parts, epochs=1)["awc"][0] for parts in (1, 4))
    for name in ("fisher", "contributions"):
        assert parted[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("method", [{}, awc(alpha_superior=2e7, alpha_inferior=1e7)])
def test_parts_give_the_step_of_the_whole_batch_and_count_the_penalty_once(simulated, method):
    packed = PackedClips(simulated[1])
    whole, parted = (learner_without_batch_statistics(simulated[1], **method) for _ in range(2))
    for learner, parts in ((whole, parts_of(packed, 16)), (parted, parts_of(packed, 4, 4, 4, 4))):
        learner.start_epoch([parts])
        losses = [learner.update(parts) for _ in range(4)]  # from the second step on there is a pull
        assert losses[0].requires_grad is False
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parted.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    if method:
        first, second = whole.awc_history[0], parted.awc_history[0]
        assert first["fisher"] == pytest.approx(second["fisher"], rel=1e-4)
        assert first["contributions"] == pytest.approx(second["contributions"], abs=1e-4)


def task_gradient_when_pulled(settings, parts, monkeypatch):
    """The norm of the gradients at the moment that the pull is added."""
    learner = Learner(settings, CPU)
    norms = []
    add = learner.balancer.adjust_gradients_

    def look():
        gradients = [parameter.grad.flatten() for parameter in learner.model.encoders.parameters()]
        norms.append(torch.cat(gradients).norm().item())
        add()

    monkeypatch.setattr(learner.balancer, "adjust_gradients_", look)
    learner.start_epoch([parts])
    learner.update(parts)
    return norms[0]


def test_the_pull_meets_gradients_that_are_no_longer_scaled(simulated, monkeypatch):
    """In float16 the loss is scaled by 65 536; the penalty is not."""
    parts = parts_of(PackedClips(simulated[1]), 16)
    exact, scaled = (
        task_gradient_when_pulled(settings_for(simulated[1], **awc(), precision=precision), parts, monkeypatch)
        for precision in ("float32", "float16")
    )
    assert scaled == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_mixed_precision_trains(simulated, plain, precision, accumulation):
    result = run(simulated[1], precision=precision, accumulation=accumulation, **awc())
    losses = [row["loss"] for row in result["epochs"]]
    assert losses == pytest.approx([row["loss"] for row in plain["epochs"]], rel=0.05)


def test_the_weights_of_the_best_epoch_are_kept_and_the_checkpoint_is_not(simulated, tmp_path):
    settings = settings_for(simulated[1], epochs=1)
    train(settings, lambda: None, Resources(device="cpu", checkpoints=str(tmp_path), weights=str(tmp_path)))
    (file,) = tmp_path.iterdir()
    learner = Learner(settings, CPU)
    learner.model.load_state_dict(load(file, {}))
    assert not same_tensors(learner.model.state_dict(), Learner(settings, CPU).model.state_dict())


def test_every_epoch_ticks(simulated):
    ticks = []
    train(settings_for(simulated[1]), lambda: ticks.append(1), Resources(device="cpu"))
    assert len(ticks) == 3


def test_fewer_frames_for_awc_are_whole_batches_whoever_gathers_them(simulated):
    few, all_frames = (run(simulated[1], **awc(), method_frames=frames, epochs=2) for frames in (17, 48))
    assert few["awc"] != all_frames["awc"]
    gathered_ahead = run(simulated[1], Resources(device="cpu", workers=2), **awc(), method_frames=17, epochs=2)
    assert gathered_ahead["awc"] == few["awc"]
    assert run(simulated[1], **awc(), epochs=2)["awc"] == all_frames["awc"]
