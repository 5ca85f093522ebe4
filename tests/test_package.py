"""What is published: the metadata agree with each other, annotations resolve, and the page for contributors is true."""

import inspect
import re
import typing
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

import awc_balance
from tests.balancers.methods import parameters, train
from tests.models import Concat, build, loader_of

PROJECT = Path(__file__).parents[1]
PUBLIC = ["awc_balance", "awc_balance.balancers", "awc_balance.contributions", "awc_balance.fisher"]


def text(name):
    return (PROJECT / name).read_text()


def test_there_is_one_version():
    version = awc_balance.__version__
    assert metadata("awc_balance")["Version"] == version
    assert f'\nversion = "{version}"\n' in text("pyproject.toml")
    assert f"\nversion: {version}\n" in text("CITATION.cff")
    assert f"\n## {version} " in text("CHANGELOG.md")


def test_the_library_needs_torch_numpy_and_scikit_learn_alone():
    needed = [line for line in metadata("awc_balance").get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.split(r"[<>=!~ ]", line)[0] for line in needed} == {"torch", "numpy", "scikit-learn"}


@pytest.mark.parametrize("module", PUBLIC)
def test_annotations_of_public_objects_resolve(module):
    """As editors, documentation and dependency injection need it; a name that is not there raises."""
    module = import_module(module)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            typing.get_type_hints(value.__init__ if inspect.isclass(value) else value)


def test_the_oldest_releases_tested_are_those_that_the_project_allows():
    oldest = dict(re.findall(r"^([\w-]+)==(\d+\.\d+)", text(".ci/oldest.txt"), re.MULTILINE))
    bounds = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)",', text("pyproject.toml"), re.MULTILINE))
    for package in ("numpy", "scikit-learn", "matplotlib"):
        assert oldest[package] == bounds[package]


def method_of_contributing():
    (block,) = re.findall(r"^```python\n(.*?)^```", text("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names["Damped"]


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_method_of_the_page_for_contributors_scales_gradients_of_encoders(factor):
    method, model, other = method_of_contributing(), build(Concat), build(Concat)
    loader = loader_of(model)
    slower = {"params": other.encoders.parameters(), "lr": 0.1 * factor}
    plain = torch.optim.SGD([{"params": other.head.parameters()}, slower], lr=0.1)
    train(other, loader, mse_loss, None, plain)
    balancer = method(model, model.encoders, mse_loss, factor=factor)
    train(model, loader, mse_loss, balancer, torch.optim.SGD(model.parameters(), lr=0.1))
    assert balancer.get_extra_state() == {"epoch": 3, "steps": 9}
    torch.testing.assert_close(parameters(model), parameters(other))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_code_that_pages_name_exists(page):
    for name in re.findall(r"`((?:\.ci|examples|tests|benchmarks)/[\w/.]+)`", text(page)):
        assert (PROJECT / name).exists(), name
    for target in re.findall(r"^make (\w+)", text(page), re.MULTILINE):
        assert f"\n{target}: " in text("Makefile")
