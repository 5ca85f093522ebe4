import argparse
import json
import shutil
import sys
import types
from dataclasses import asdict, replace

import pytest

from examples.mmfi import train as command
from examples.mmfi.__main__ import main
from examples.mmfi.scalars import Scalars
from examples.mmfi.settings import PAPER_AWC, Settings
from examples.mmfi.store import INDEX
from examples.mmfi.training import train

TINY = "--split S2 --preset tiny --epochs 1 --batch-size 16 --held-out 0.2 --modalities rgb --workers 0 --device cpu"


def parsed(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.settings_of(parser.parse_args(["packed", *words]))


def test_the_defaults_are_the_papers():
    settings = parsed()
    assert settings == Settings(name="run", data="packed")
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (50, 192, 1e-3)
    assert (settings.weight_decay, settings.drop_every, settings.preset) == (1e-4, 30, "paper")
    assert parsed("--awc") == parsed("--method", "AWC")
    awc = parsed("--awc").method_options
    assert awc == {"alpha_superior": 20_000.0, "alpha_inferior": 10_000.0, "window": 20} == PAPER_AWC


def test_options_reach_the_settings():
    words = "--awc --alpha-inferior 5 --window 7 --fisher corrected --scale root_mean --method-frames 640 --seed 3"
    settings = parsed(*words.split(), "--modalities", "wifi", "rgb", "--fusion", "mlp", "--accumulation", "4")
    options = PAPER_AWC | {"alpha_inferior": 5.0, "window": 7, "fisher": "corrected", "scale": "root_mean"}
    method = {"method": "AWC", "method_options": options, "method_frames": 640}
    changes = {**method, "seed": 3, "modalities": ("wifi", "rgb"), "fusion": "mlp"}
    assert settings == replace(parsed(), **changes, accumulation=4)


def test_points_may_be_padded_in_place_of_sampled():
    settings = parsed("--lidar-points", "all", "--mmwave-points", "7")
    assert (settings.lidar_points, settings.mmwave_points) == (None, 7)


def test_settings_survive_json():
    settings = parsed("--awc")
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_the_command_trains_once_and_then_shows_the_result(simulated, tmp_path, capsys, monkeypatch):
    words = ["train", str(simulated[1]), "--out", str(tmp_path), "--name", "Only keypoints", *TINY.split()]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "simulated test clips" in shown
    assert "MPJPE" in shown
    assert {file.suffixes[-1] for file in tmp_path.iterdir()} == {".json", ".pt"}
    assert all(file.name.startswith("only-keypoints-seed0-") for file in tmp_path.iterdir())

    def never(*_):
        raise AssertionError("a finished run should not be done again")

    monkeypatch.setattr(command, "train", never)
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == shown.splitlines()[-6:]


def test_a_result_belongs_to_the_data_not_to_its_path(simulated, tmp_path, monkeypatch):
    packed, out = tmp_path / "packed", tmp_path / "out"
    shutil.copytree(simulated[1], packed)
    monkeypatch.chdir(tmp_path)
    words = ["--out", str(out), *TINY.split()]
    assert main(["train", "packed", *words]) == main(["train", str(packed), *words]) == 0
    assert len(list(out.glob("*.json"))) == 1
    index = json.loads((packed / INDEX).read_text())
    index["entries"].popitem()
    (packed / INDEX).write_text(json.dumps(index))
    assert main(["train", str(packed), *words]) == 0
    assert len(list(out.glob("*.json"))) == 2


def test_an_interrupted_command_says_how_to_continue(simulated, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupt)
    assert main(["train", str(simulated[1]), "--out", str(tmp_path), *TINY.split()]) == 130
    assert "Run the same command again" in capsys.readouterr().out


class FakeWriter:
    def __init__(self, folder):
        self.folder, self.scalars, self.closed = folder, [], False
        FakeWriter.last = self

    def add_scalar(self, *scalar):
        self.scalars.append(scalar)

    def close(self):
        self.closed = True


def test_scalars_are_written_by_epoch(simulated, tmp_path, monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    main(["train", str(simulated[1]), "--out", str(tmp_path), "--tensorboard", *TINY.split()])
    (file,) = tmp_path.glob("*.json")
    (row,) = json.loads(file.read_text())["epochs"]
    assert FakeWriter.last.scalars == [
        ("loss", row["loss"], 1),
        ("held_out_mm", row["held_out_mm"], 1),
        ("pearson/rgb", row["pearson"]["rgb"], 1),
        ("negative_mse/rgb", row["negative_mse"]["rgb"], 1),
    ]
    assert FakeWriter.last.folder.startswith(str(tmp_path / "tensorboard"))
    assert FakeWriter.last.closed


def test_without_tensorboard_its_option_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Scalars(tmp_path)


def test_a_summary_names_the_chosen_epoch(simulated):
    settings = Settings(
        name="x", data=str(simulated[1]), split="S2", preset="tiny", epochs=2, batch_size=16, held_out=0.2,
        modalities=("wifi",),
    )  # fmt: skip
    result = train(settings, lambda: None)
    best = min((0, 1), key=lambda i: (result["epochs"][i]["held_out_mm"], -i))
    assert f"epoch {best + 1} of 2" in command.summary(result)
    assert "simulated" not in command.summary(result | {"simulated": False})
