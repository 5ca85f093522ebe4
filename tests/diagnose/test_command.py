import html
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from awc_balance import Calibration, ShapleyContribution
from awc_balance.diagnose import train_alone, verdict
from awc_balance.diagnose.checkpoint import load_checkpoint
from awc_balance.diagnose.command import main
from awc_balance.diagnose.objects import UsageError, find_encoders
from tests.models import Concat, build

PROJECT = """
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rgb, self.wifi, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 1)
            self.parts = {"camera": self.rgb, "radio": self.wifi}

        def forward(self, inputs):
            return self.head(self.rgb(inputs["rgb"]) + self.wifi(inputs["wifi"]))

    def loader(seed=0):
        draw = torch.Generator().manual_seed(seed)
        pairs = [(torch.randn(8, 3, generator=draw), torch.randn(8, 2, generator=draw)) for _ in range(6)]
        return [({"rgb": rgb, "wifi": wifi}, rgb[:, :1]) for rgb, wifi in pairs]

    def held_out():
        return loader(1)

    def with_encoders():
        model = Model()
        return model, {"a": model.rgb, "b": model.wifi}

    def named_batches():
        return [{"x": inputs, "y": target} for inputs, target in loader()]

    def step(model, batch):
        return model(batch["x"]), batch["y"]

    def profit(prediction, target):
        return -(prediction - target).abs().mean()

    def raising(model, batch):
        raise ValueError("in my own step")

    def once():
        yield from loader()

    batches = loader()
    empty = []
    ready = Model()
    number = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a module of the user's and a checkpoint of its model."""
    (tmp_path / "my_project.py").write_text(textwrap.dedent(PROJECT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    import my_project

    torch.manual_seed(0)
    torch.save(my_project.Model().state_dict(), "trained.pt")
    yield my_project
    del sys.modules["my_project"]


def diagnose(*arguments, data="my_project:loader", model="my_project:Model"):
    return main(["diagnose", "--model", model, "--data", data, *arguments])


def test_contributions_diagnosis_and_report(project, capsys):
    call = ["--encoders", "rgb,wifi", "--checkpoint", "trained.pt", "--held-out", "my_project:held_out"]
    assert diagnose(*call) == 0
    out = capsys.readouterr().out
    model = project.Model()
    model.load_state_dict(torch.load("trained.pt", weights_only=True))
    expected = ShapleyContribution(model, {"rgb": model.rgb, "wifi": model.wifi}).evaluate(project.loader())
    assert f"{expected['rgb']:.3g}" in out
    assert "held-out" in out
    assert "all contributions" in out or "cannot tell" in out
    page = Path("awc_balance_report.html").read_text()
    assert "my_project:Model" in page
    assert "trained.pt" in page


def test_with_held_out_data_the_verdict_comes_first(project, capsys):
    call = ["--encoders", "rgb,wifi", "--checkpoint", "trained.pt", "--held-out", "my_project:held_out"]
    assert diagnose(*call) == 0
    model = project.Model()
    model.load_state_dict(torch.load("trained.pt", weights_only=True))
    calibration = Calibration(model, {"rgb": model.rgb, "wifi": model.wifi})
    judged = verdict(calibration.evaluate(project.loader(), costs=False), calibration.evaluate(project.held_out()))
    out, page = capsys.readouterr().out, html.unescape(Path("awc_balance_report.html").read_text())
    assert out.index(judged.sentences()[0]) < out.index("carr")
    assert all(sentence in out and sentence in page for sentence in judged.sentences())


def test_modalities_are_learned_alone_where_that_is_asked_for(project, capsys):
    call = ["--model", "my_project:ready", "--data", "my_project:loader", "--held-out", "my_project:held_out"]
    assert main(["diagnose", *call, "--encoders", "rgb,wifi", "--alone", "2"]) == 0
    model, held_out = project.ready, project.held_out()
    encoders = {"rgb": model.rgb, "wifi": model.wifi}
    calibration = Calibration(model, encoders)
    alone = train_alone(model, encoders, project.loader(), held_out, epochs=2)
    judged = verdict(calibration.evaluate(project.loader(), costs=False), calibration.evaluate(held_out), alone)
    out = capsys.readouterr().out
    assert all(sentence in out for sentence in judged.sentences())


def test_without_held_out_data_there_is_no_verdict(project, capsys):
    assert diagnose("--encoders", "rgb,wifi") == 0
    assert "Verdict: none. Whether a modality is idle, overfits or is starved takes" in capsys.readouterr().out


def test_from_a_shell(project, tmp_path):
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "awc_balance", "diagnose", "--model", "my_project:with_encoders"]
    command += ["--data", "my_project:batches", "--checkpoint", "trained.pt", "--out", "deep/er/page.html"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "report: deep/er/page.html" in done.stdout
    assert (tmp_path / "deep/er/page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"encoders": "camera=rgb,radio=wifi"}, "camera"),
        ({"encoders": "parts"}, "radio"),
        ({"encoders": "rgb"}, "rgb"),
        ({"encoders": "rgb,wifi", "profit": "negative_mse"}, "negative_mse"),
        ({"encoders": "rgb,wifi", "profit": "my_project:profit"}, "my_project:profit"),
        ({"encoders": "rgb,wifi", "data": "my_project:named_batches", "step": "my_project:step"}, "rgb"),
        ({"model": "my_project:ready", "encoders": "rgb,wifi"}, "no checkpoint was loaded"),
    ],
)
def test_other_calls(project, capsys, arguments, shown):
    places = {name: arguments.pop(name) for name in ("data", "model") if name in arguments}
    assert diagnose(*(word for name, value in arguments.items() for word in (f"--{name}", value)), **places) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "my_project"}, "Put a colon"),
        ({"model": "no_such_module:f"}, "There is no 'no_such_module'"),
        ({"model": "my_project.deeper:f"}, "There is no 'my_project.deeper'"),
        ({"model": "my_project:nothing"}, "It has no 'nothing'"),
        ({"model": "my_project:loader"}, "Got list"),
        ({"model": "my_project:number"}, "Got int"),
        ({"data": "my_project:number"}, "`--data` should be a loader"),
        ({"step": "my_project:number"}, "`--step` should be a function"),
        ({"profit": "pearsn"}, "pearsn"),
        ({"encoders": "rgb,nose"}, "There is no 'nose'. Name some of: rgb, wifi, head"),
        ({"encoders": "a=rgb,a=wifi"}, "name each modality once"),
        ({"encoders": "a=rgb,b=rgb"}, "should not share parameters"),
        ({"encoders": None}, "the model has no mapping `encoders`. Name some of its parts: rgb, wifi, head"),
        ({"checkpoint": "missing.pt"}, "There is none at missing.pt"),
        ({"key": "model"}, "Pass --checkpoint FILE"),
        ({"data": "my_project:named_batches"}, "`--data` could not be measured. A batch should be a pair"),
        ({"data": "my_project:named_batches"}, "On the command line that is --step package.module:step."),
        ({"held-out": "my_project:empty"}, "`--held-out` could not be measured. `loader` should yield"),
        ({"alone": "5"}, "`--alone` should be a number of epochs, 1 or more, together with --held-out. Got 5 and no"),
        ({"alone": "0", "held-out": "my_project:held_out"}, "`--alone` should be a number of epochs, 1 or more"),
        ({"held-out": "my_project:loader"}, "data that the model was not trained on. Got `my_project:loader` for"),
        (
            {"alone": "5", "held-out": "my_project:held_out", "data": "my_project:once"},
            "`--data` could not be measured. `loader` should be a loader, which is read more than once. Got generator",
        ),
        ({"out": "/dev/null/report.html"}, "`--out` should be a file that can be written"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_without_a_traceback(project, capsys, arguments, said):
    arguments = {"model": "my_project:Model", "data": "my_project:loader", "encoders": "rgb,wifi"} | arguments
    words = [word for name, value in arguments.items() if value is not None for word in (f"--{name}", value)]
    assert main(["diagnose", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_error_in_the_users_own_module_is_shown_in_full(project, tmp_path):
    (tmp_path / "broken.py").write_text("import missing_by_the_user")
    with pytest.raises(ModuleNotFoundError, match="missing_by_the_user"):
        diagnose(model="broken:build")


def test_an_error_in_the_users_own_step_is_shown_in_full(project):
    with pytest.raises(ValueError, match="in my own step"):
        diagnose("--encoders", "rgb,wifi", "--step", "my_project:raising")


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def lightning(state):
    return {"epoch": 3, "state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(2)}, "loops": {}}


def with_optimizer(state):
    return {"model": state, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: state, "the whole file"),
        (lambda state: {"state_dict": state}, "'state_dict'"),
        (with_optimizer, "'model'"),
        (lambda state: {"run": {"weights": {"ema": state}}}, "'run.weights.ema'"),
        (lambda state: prefixed(state, "module."), "without the prefix 'module.'"),
        (lambda state: prefixed(state, "_orig_mod."), "the whole file"),
        (lambda state: prefixed(state, "module._orig_mod."), "'module.'"),
        (lambda state: prefixed(state, "_orig_mod.module."), "'module.'"),
        (lightning, "left aside: criterion.weight"),
        (lambda state: {"state_dict": prefixed(state, "net.")}, "'state_dict', without the prefix 'net.'"),
        (lambda state: prefixed(state, "net.inner."), "without the prefix 'net.inner.'"),
        (lambda state: prefixed(state, "model.") | prefixed(state, "ema."), "without the prefix 'model.'"),
    ],
)
def test_parameters_are_found_where_trainers_put_them(tmp_path, wrap, said):
    saved, model = build(Concat), build(Concat)
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.normal_()
    torch.save(wrap(saved.state_dict()), tmp_path / "file.pt")
    assert said in load_checkpoint(tmp_path / "file.pt", model)
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_compiled_part_and_a_child_called_model_are_no_prefix(tmp_path):
    model = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "file.pt")
    assert load_checkpoint(tmp_path / "file.pt", model) == "the whole file"
    torch.save(
        {"model._orig_mod.weight": torch.ones(2, 2), "model._orig_mod.bias": torch.ones(2)}, tmp_path / "file.pt"
    )
    load_checkpoint(tmp_path / "file.pt", model)
    assert model["model"].weight.sum() == 4


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: without(state, "head.0.bias"), "head.0.bias: missing"),
        (lambda state: {"model": without(prefixed(state, "module."), "module.head.0.bias")}, "head.0.bias: missing"),
        (lambda state: state | {"more": torch.ones(1)}, "more: unexpected"),
        (lambda state: state | {"head.0.bias": torch.ones(3)}, "head.0.bias: shape (3,) in place of (8,)"),
        (lambda state: state | {"head.0.bias": torch.full((8,), torch.nan)}, "head.0.bias: not finite"),
        (lambda state: {"model": state, "ema": state}, "holds several: model, ema. Choose one with --key"),
        (lambda state: prefixed(state, "student.") | prefixed(state, "teacher."), "holds several: student, teacher."),
        (lambda state: without(prefixed(state, "net."), "net.head.0.bias"), "head.0.bias: missing"),
        (lambda state: {"epoch": 3}, "no names with tensors"),
        (lambda state: prefixed(state, "x" * 10), "and 4 more"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_why_and_changes_nothing(tmp_path, wrap, said):
    model = build(Concat, modalities=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(wrap(model.state_dict()), tmp_path / "file.pt")
    with pytest.raises(UsageError) as raised:
        load_checkpoint(tmp_path / "file.pt", model)
    assert said in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_key_decides_between_several(tmp_path):
    model, other = build(Concat), build(Concat)
    with torch.no_grad():
        other.head[0].bias.fill_(7)
    torch.save({"model": model.state_dict(), "ema": other.state_dict()}, tmp_path / "file.pt")
    load_checkpoint(tmp_path / "file.pt", model, key="ema")
    assert model.head[0].bias.eq(7).all()
    torch.save(
        {"state": prefixed(model.state_dict(), "ema.") | prefixed(build(Concat).state_dict(), "model.")},
        tmp_path / "file.pt",
    )
    load_checkpoint(tmp_path / "file.pt", other, key="state.ema")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(UsageError, match="at 'swa'"):
        load_checkpoint(tmp_path / "file.pt", model, key="swa")


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickle_runs_only_when_it_is_trusted(tmp_path, write):
    model, canary, file = build(Concat), tmp_path / "canary", tmp_path / "file.pt"
    write({"model": model.state_dict(), "harm": Harm(canary)}, file)
    with pytest.raises(UsageError, match="--trust-checkpoint"):
        load_checkpoint(file, model)
    assert not canary.exists()
    if write is torch.save:
        load_checkpoint(file, model, trust=True)
        assert canary.exists()


def test_a_whole_model_loads_when_it_is_trusted(tmp_path):
    model = build(Concat)
    torch.save(model, tmp_path / "file.pt")
    with pytest.raises(UsageError, match="--trust-checkpoint"):
        load_checkpoint(tmp_path / "file.pt", model)
    assert load_checkpoint(tmp_path / "file.pt", model, trust=True) == "the whole file"


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04"])
def test_a_damaged_file_is_refused(tmp_path, content, trust):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(UsageError, match="--checkpoint"):
        load_checkpoint(tmp_path / "file.pt", build(Concat), trust=trust)


def test_encoders_with_one_last_name_are_known_by_their_paths():
    model = torch.nn.ModuleDict({m: torch.nn.ModuleDict({"net": torch.nn.Linear(1, 1)}) for m in ("a", "b")})
    assert list(find_encoders(model, None, "a.net,b.net")) == ["a.net", "b.net"]
