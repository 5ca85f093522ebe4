"""Wrong settings, data and files, and what is said about them."""

import shutil
from dataclasses import replace

import pytest
import torch

from examples.mmfi.__main__ import main
from examples.mmfi.checkpoint import save
from examples.mmfi.conventions import Conventions
from examples.mmfi.pack import pack
from examples.mmfi.prepared import describe
from examples.mmfi.settings import Resources
from examples.mmfi.training import train
from examples.sweep import file_stem
from tests.mmfi.training.runs import awc, settings_for

CPU = Resources(device="cpu")


def nothing():
    pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ("rgb", "radar")}, "`modalities` should be of rgb, lidar, mmwave, wifi. Got `rgb, radar`"),
        ({"modalities": ()}, "`modalities` should be of"),
        ({"modalities": ("rgb", "rgb")}, "Got `rgb, rgb`"),
        ({"fusion": "sum"}, "`fusion` should be of concat, mlp, attention, decision, x-fi. Got `sum`"),
        ({"preset": "huge"}, "`preset` should be of"),
        ({"protocol": "P9"}, "`protocol` should be of P1, P2, P3"),
        ({"split": "random"}, "`split` should be of S1, S2, S3"),
        ({"precision": "double"}, "`precision` should be of float32, bfloat16, float16"),
        ({"epochs": 0}, "`epochs` should be 1 or more. Got `0`"),
        ({"batch_size": 0}, "`batch_size` should be 1 or more"),
        ({"batch_size": "abc"}, "`batch_size` should be 1 or more. Got `abc`"),
        ({"accumulation": 3}, "`accumulation` should divide `batch_size`. Got `3` and `16`"),
        ({"method_frames": 0}, "`method_frames` should be 1 or more"),
        ({"held_out": 0.0}, "`share` .`--held-out`. should be between 0 and 1"),
        ({"batch_size": 99}, "`batch_size` should not exceed the 50 training frames. Got `99`"),
        ({"split": "S3"}, "should have validation clips of protocol P1, split S3"),
        ({"protocol": "P2"}, "should have training clips of protocol P2"),
        (awc(alpha_superior=-1.0), "alpha_superior"),
        (awc(fisher="exact"), "`fisher` should be one of"),
        ({"wifi_encoder": "resnet"}, "`wifi_encoder` should be of metafi, hpe-li. Got `resnet`"),
        ({"method": "OGM"}, "`method` should be of plain, AWC, .*. Got `OGM`"),
        ({"method_options": {"alpha": 1.0}}, "`method_options` should be of a balancing method"),
        ({"method": "AGM", "fusion": "decision"}, "with the fusion decision, which trains every modality for itself"),
        ({"method": "AGM", "method_options": {"alpha": -1.0}}, "`alpha` should"),
        ({"method": "AGM", "method_options": {"beta": 1.0}}, "should be options of AGM. Got .*'beta'"),
        ({"learning_rate": 1e30}, "finite"),
    ],
)
def test_wrong_settings_name_the_rule(simulated, changes, message):
    with pytest.raises(ValueError, match=message):
        train(settings_for(simulated[1], **changes), nothing, CPU)


def test_a_folder_that_is_missing_or_not_packed_says_how_to_pack(simulated, tmp_path):
    for folder in (tmp_path / "nowhere", simulated[0]):
        with pytest.raises(ValueError, match="python -m examples.mmfi pack ROOT OUT"):
            train(settings_for(folder), nothing, CPU)


def test_a_modality_that_was_not_packed_is_named(simulated, tmp_path):
    pack(simulated[0], tmp_path / "some", Conventions(), modalities=["rgb"])
    with pytest.raises(ValueError, match="Got wifi"):
        train(settings_for(tmp_path / "some"), nothing, CPU)


def test_a_table_that_was_cut_is_named(simulated, tmp_path):
    shutil.copytree(simulated[1], tmp_path / "cut")
    table = tmp_path / "cut" / "wifi.bin"
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(ValueError, match="copied incompletely"):
        train(settings_for(tmp_path / "cut"), nothing, CPU)


def checkpoint_of(settings, folder):
    return folder / f"{file_stem(settings, describe(settings))}.pt"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "cut"], ids=["empty", "other", "cut"])
def test_a_damaged_checkpoint_is_refused(simulated, tmp_path, content):
    settings = settings_for(simulated[1])
    path = checkpoint_of(settings, tmp_path)
    if content == "cut":
        save(path, describe(settings), {"weights": torch.zeros(1000)})
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not read. Delete it to start anew"):
        train(settings, nothing, Resources(device="cpu", checkpoints=str(tmp_path)))
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_run_is_refused(simulated, tmp_path):
    settings = settings_for(simulated[1])
    other = describe(replace(settings, seed=7, fusion="mlp")) | {"simulated": True}
    save(checkpoint_of(settings, tmp_path), other, {})
    with pytest.raises(ValueError, match="seed = 7 in place of 0, fusion = 'mlp' in place of 'concat'"):
        train(settings, nothing, Resources(device="cpu", checkpoints=str(tmp_path)))


def test_a_checkpoint_of_other_data_is_refused(simulated, tmp_path):
    settings = settings_for(simulated[1])
    save(checkpoint_of(settings, tmp_path), describe(settings) | {"data": "other", "simulated": True}, {})
    with pytest.raises(ValueError, match="written with data = 'other' in place of"):
        train(settings, nothing, Resources(device="cpu", checkpoints=str(tmp_path)))


def test_a_checkpoint_of_more_processes_is_refused(simulated, tmp_path):
    settings = settings_for(simulated[1])
    save(checkpoint_of(settings, tmp_path), describe(settings) | {"simulated": True}, {"random": [{}, {}]})
    with pytest.raises(ValueError, match="Got 1 in place of 2"):
        train(settings, nothing, Resources(device="cpu", checkpoints=str(tmp_path)))


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_an_unknown_device_is_refused(simulated, device):
    with pytest.raises(ValueError, match="`device` should be one that torch finds"):
        train(settings_for(simulated[1]), nothing, Resources(device=device))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "3"], "`window` should go with --awc"),
        (["--scale", "mean", "--alpha-inferior", "1"], "`alpha_inferior, scale` should go with --awc"),
        (["--method-frames", "9"], "`method_frames` should go with --method"),
        (["--option", "alpha=1"], "`option` should go with --method"),
        (["--awc", "--method", "AGM"], "`--awc` is short for --method AWC. Got --method AGM"),
        (["--method", "AGM", "--option", "alpha"], "`--option` should be NAME=VALUE. Got `alpha`"),
        (["--method", "AGM", "--fusion", "decision"], "`method` should be plain with the fusion decision"),
        (["--modalities", "radar"], "`modalities` should be of"),
        (["--split", "S3"], "should have validation clips"),
    ],
)
def test_the_command_refuses_in_one_line(simulated, tmp_path, capsys, words, message):
    assert main(["train", str(simulated[1]), "--out", str(tmp_path), "--device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
