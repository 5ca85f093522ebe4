"""Two processes that train together keep equal copies of the model."""

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from awc_balance.processes import Processes
from tests.balancers.methods import METHODS, optimizer_of, parameters, step, task_of
from tests.models import Concat, build, loader_of
from tests.processes import in_two_processes


def train_together(rank):
    for name, method in METHODS.items():
        model = build(Concat, modalities=3)
        wrapped = DistributedDataParallel(model)
        balancer = method(wrapped, model.encoders, cross_entropy)
        optimizer, loader = optimizer_of(model, balancer), task_of(loader_of(model), cross_entropy)
        share = slice(4 * rank, 4 * rank + 4)
        for _ in range(2):
            balancer.start_epoch(loader)
            for inputs, target in loader:
                batch = {m: x[share] for m, x in inputs.items()}, target[share]
                step(model, batch, cross_entropy, balancer, optimizer)
        copies = [torch.zeros_like(parameters(model)) for _ in range(2)]
        dist.all_gather(copies, parameters(model))
        torch.testing.assert_close(*copies, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_copies_of_the_model_stay_equal(tmp_path):
    in_two_processes(train_together, tmp_path)


def test_one_process_keeps_its_numbers():
    scores = {"a": 1.0, "b": 3.0}
    assert Processes(build(Concat)).mean(scores, torch.device("cpu")) == scores
