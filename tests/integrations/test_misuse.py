"""What cannot work is refused, and nothing is imported that was not asked for."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from awc_balance.integrations.adapter import Adapter
from awc_balance.integrations.measured import Measured
from tests.integrations.frameworks import (
    FRAMEWORKS,
    balancer_of,
    by_accelerate,
    by_lightning,
    loader_of,
    model_of,
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_nothing_is_imported_before_it_is_asked_for():
    found = run(
        "import sys, awc_balance, awc_balance.balancers, awc_balance.integrations\n"
        "print(*{'lightning', 'transformers', 'accelerate'} & set(sys.modules))"
    )
    assert (found.stdout.strip(), found.returncode) == ("", 0), found.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_package_that_is_missing(framework):
    found = run(f"import sys\nsys.modules[{framework!r}] = None\nimport awc_balance.integrations.{framework}")
    assert f"pip install 'awc_balance[{framework}]'" in found.stderr


def test_only_balancers():
    with pytest.raises(TypeError, match="awc_balance.balancers"):
        Adapter(nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["AGM", "OGM-GE", "MMPareto", "InfoReg"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_method_that_works_on_the_loss_has_to_be_asked_for_it(framework, name, tmp_path):
    model = model_of()
    with pytest.raises(RuntimeError, match="works on the loss"):
        FRAMEWORKS[framework](model, balancer_of(name, model), loader_of(), tmp_path, own_loss=True)


def test_an_epoch_that_was_not_begun():
    with pytest.raises(RuntimeError, match="start_epoch"):
        Adapter(balancer_of("AWC", model_of())).adjust_gradients_()


def test_a_trainer_whose_loss_is_nobodys(tmp_path):
    transformers = pytest.importorskip("transformers")
    from awc_balance.integrations.transformers import BalancedTrainer

    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(RuntimeError, match="callbacks="):
        BalancedTrainer(model_of(), arguments, train_dataset=loader_of().dataset).train()


def test_optimizing_by_hand(tmp_path):
    pl = pytest.importorskip("lightning.pytorch")
    model = model_of()

    def module(callback):
        class ByHand(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                pass

            def configure_optimizers(self):
                pass

        return ByHand()

    with pytest.raises(RuntimeError, match="automatic optimization"):
        by_lightning(model, balancer_of("AWC", model), loader_of(), tmp_path, module=module)


def test_a_balancer_of_another_model():
    with pytest.raises(ValueError, match="model that is trained"):
        by_accelerate(model_of(), balancer_of("AGM", model_of()), loader_of())


def test_an_optimizer_that_was_not_prepared():
    accelerate = pytest.importorskip("accelerate")
    from awc_balance.integrations.accelerate import AcceleratedBalancer

    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="prepare"):
        AcceleratedBalancer(balancer_of("AWC", model), accelerate.Accelerator(cpu=True), model, optimizer)


def test_copies_of_a_model_in_one_process():
    model = model_of()
    with pytest.raises(TypeError, match="torchrun"):
        Adapter(balancer_of("AGM", model)).train_through(nn.DataParallel(model))


class TestMeasured:
    def test_stays_within_the_batches_of_an_epoch(self):
        assert len(list(Measured(loader_of(), batches=3))) == 3

    def test_prepares_batches(self):
        loader = torch.utils.data.DataLoader([1.0, 2.0])
        assert torch.cat(list(Measured(loader, lambda batch: -batch))).tolist() == [-1.0, -2.0]

    @pytest.mark.parametrize("loader", [{"a": []}, [], ()])
    def test_refuses_collections_of_loaders(self, loader):
        with pytest.raises(TypeError, match="loader="):
            list(Measured(loader))

    def test_refuses_workers_that_outlive_a_pass(self):
        loader = loader_of(num_workers=1, persistent_workers=True)
        with pytest.raises(ValueError, match="loader="):
            list(Measured(loader))

    def test_a_loader_that_is_never_read_may_be_anything(self, tmp_path):
        model = model_of()
        balancer_of("AGM", model).start_epoch(Measured({}))

    def test_puts_back_the_count_of_a_sampler_that_counts_its_passes(self):
        accelerate = pytest.importorskip("accelerate")
        sampler = accelerate.data_loader.SeedableRandomSampler(loader_of().dataset, data_seed=1)
        loader = loader_of(sampler=sampler)
        first = [batch["labels"] for batch in Measured(loader)]
        again = [batch["labels"] for batch in loader]
        assert torch.equal(torch.cat(first), torch.cat(again))
