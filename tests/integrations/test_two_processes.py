"""Two processes that train together by a framework keep equal copies of the model, and of heads."""

import os
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist

from tests.balancers.methods import parameters
from tests.integrations.frameworks import (
    FRAMEWORKS,
    METHODS,
    balancer_of,
    loader_of,
    model_of,
)
from tests.processes import in_two_processes

OPTIONS = {"lightning": {"devices": 2, "strategy": "ddp"}, "transformers": {}, "accelerate": {}}


def train_together(rank, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="localhost",
        MASTER_PORT="0",
    )  # fmt: skip
    for framework in filter(find_spec, FRAMEWORKS):
        for name in METHODS:
            train(rank, framework, name, folder)


def train(rank, framework, name, folder):
    model = model_of()
    balancer = balancer_of(name, model)
    for parameter in balancer.parameters():
        torch.nn.init.constant_(parameter, rank)  # as if drawn from other seeds
    FRAMEWORKS[framework](model, balancer, loader_of(shuffle=False), folder, epochs=2, **OPTIONS[framework])
    assert balancer.epoch == 2
    for module in (model, balancer):
        if any(True for _ in module.parameters()):
            copies = [torch.zeros_like(parameters(module)) for _ in range(2)]
            dist.all_gather(copies, parameters(module))
            what = f"{framework}, {name}, {type(module).__name__}"
            assert torch.allclose(*copies, rtol=1e-5, atol=1e-6), what


@pytest.mark.skipif(not any(map(find_spec, FRAMEWORKS)), reason="needs lightning, transformers or accelerate")
def test_copies_stay_equal(tmp_path):
    in_two_processes(train_together, tmp_path, tmp_path / "run")
