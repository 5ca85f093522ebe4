"""Two processes, started by torchrun, against one."""

import json
import subprocess
import sys
import warnings

import pytest
import torch

from examples.mmfi import processes
from tests.mmfi.raw_tree import REPOSITORY
from tests.mmfi.training.two_processes import METHODS, steps_of_an_epoch


@pytest.fixture(scope="module")
def together(simulated, tmp_path_factory):
    """What two processes wrote, and in the same folder what one alone did."""
    out = tmp_path_factory.mktemp("together")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "tests.mmfi.training.two_processes", str(simulated[1]), str(out)]
    done = subprocess.run([*start, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    steps_of_an_epoch(simulated[1], out)
    return out


def state(out, name):
    return torch.load(out / name, weights_only=True)


def tensors(state):
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("kind", ["model", "balancer"])
def test_processes_have_equal_weights_anchors_and_strengths(together, kind):
    first, second = (state(together, f"state{rank}of2.pt")[kind] for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in tensors(first).items())
    assert first.get("_extra_state") == second.get("_extra_state")


@pytest.mark.parametrize("kind", ["model", "balancer"])
def test_two_processes_do_what_one_does(together, kind):
    alone, first = (tensors(state(together, name)[kind]) for name in ("state0of1.pt", "state0of2.pt"))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["errors", "contributions", "spread"])
def test_two_processes_measure_what_one_does(together, kind):
    alone, *both = (
        json.loads((together / f"measures{name}.json").read_text())[kind] for name in ("0of1", "0of2", "1of2")
    )
    assert both[0] == both[1]
    for name, value in alone.items():
        assert both[0][name] == pytest.approx(value, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_report_the_same_and_resume_bit_for_bit(together, method):
    (whole, resumed), other = (json.loads((together / f"run{rank}.json").read_text())[method] for rank in (0, 1))
    assert whole == resumed
    assert [whole, resumed] == other
    assert whole["hardware"].startswith("2 x")


def test_a_warning_of_torch_that_means_nothing_here_is_not_shown(monkeypatch):
    """Every run of MetaFi in several processes met it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with processes.joined(torch.device("cpu")):
        warnings.warn("Grad strides do not match bucket view strides. This may", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="another"):
            warnings.warn("another", UserWarning, stacklevel=1)


def test_a_single_process_needs_no_others():
    value = torch.ones(3)
    assert (processes.rank(), processes.count()) == (0, 1)
    assert processes.summed(value) is value
    assert processes.gathered({"a": 1}) == [{"a": 1}]
    processes.copy_buffers(torch.nn.BatchNorm1d(2))
