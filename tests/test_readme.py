"""Every block of the README is executed."""

import argparse
import re
import subprocess
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from awc_balance.diagnose.command import _parser as diagnose_parser
from benchmarks.compare.__main__ import _parser as compare_parser
from examples.mars.__main__ import _parser
from examples.mmfi.__main__ import COMMANDS

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rgb = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.wifi = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.head = nn.Linear(16, 6)

    def forward(self, inputs):
        return self.head(torch.cat([self.rgb(inputs["rgb"]), self.wifi(inputs["wifi"])], 1)).unflatten(1, (2, 3))


def blocks(language):
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", README, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def test_python_blocks_run_one_after_the_other(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    data = [({"rgb": torch.randn(4), "wifi": torch.randn(6)}, torch.randn(2, 3)) for _ in range(48)]
    model = Model()
    loader, other = (torch.utils.data.DataLoader(data, 8, shuffle=True) for _ in range(2))
    names = {
        "model": model,
        "mpjpe": lambda prediction, target: (prediction - target).norm(dim=-1).mean(),
        "optimizer": torch.optim.Adam(model.parameters()),
        "train_loader": loader,
        "held_out_loader": other,
        "test_loader": other,
    }
    found = blocks("python")
    assert len(found) >= 5
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Contributions(rgb: " in printed
    assert "torch.Size([2, 3])" in printed
    assert "{'rgb': 0.0, 'wifi': 2.0}" in printed
    assert "<html" in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize("command", re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
def test_make_targets_exist(command):
    done = subprocess.run(["make", "--dry-run", command], cwd=PROJECT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def commands_of(module):
    found = re.findall(rf"python -m {re.escape(module)}\b(.*)", "\n".join(blocks("sh")))
    return [options.split("#")[0].split() for options in found]


def test_commands_of_the_examples_take_the_options_shown():
    assert commands_of("examples.mars")
    for options in commands_of("examples.mars"):
        _parser().parse_args(options)
    assert {name for name, *_ in commands_of("examples.mmfi")} <= set(COMMANDS)
    for name, *options in commands_of("examples.mmfi"):
        parser = argparse.ArgumentParser()
        import_module(f"examples.mmfi.{name}").add_arguments(parser)
        parser.parse_args(options)


def test_commands_of_the_comparison_take_the_options_shown():
    assert commands_of("benchmarks.compare")
    for options in commands_of("benchmarks.compare"):
        compare_parser().parse_args(options)


def test_the_command_that_diagnoses_takes_the_options_shown():
    found = [block for block in blocks("sh") if "awc_balance diagnose" in block]
    assert found
    for block in found:
        diagnose_parser().parse_args(block.split("#")[0].replace("\\\n", " ").split()[3:])


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_the_code_that_is_named_exists():
    for name in re.findall(r"`((?:examples|tests|benchmarks|awc_balance)/[\w/.]+)`", README):
        assert (PROJECT / name).exists(), name
