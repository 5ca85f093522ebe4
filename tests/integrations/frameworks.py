"""One model, trained in a loop of one's own and by every framework."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Sampler

from awc_balance.balancers import (
    AGM,
    AWC,
    OGMGE,
    GBlending,
    InfoReg,
    MMPareto,
    ModalityResampling,
    Plain,
    SampleResampling,
    linear_heads,
)
from tests.models import Concat, build

SAMPLES, BATCH = 32, 8


class Judged(nn.Module):
    """A model that computes its own loss, as the models of Transformers do."""

    def __init__(self):
        super().__init__()
        self.inner = Concat()

    @property
    def encoders(self):
        return self.inner.encoders

    def forward(self, labels=None, **inputs):
        prediction = self.inner(inputs)
        found = {"logits": prediction}
        return found if labels is None else {"loss": mse_loss(prediction, labels), **found}


def read(model, batch):
    return model(**batch)["logits"], batch["labels"]


class ByEpoch(Sampler):
    """Another order in every epoch, which a resumed run finds again."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return SAMPLES


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs, target = Concat().batch(SAMPLES, generator)
    target = target / 10 + inputs["m0"].sum(1, keepdim=True)
    return [{**{m: x[i] for m, x in inputs.items()}, "labels": target[i]} for i in range(SAMPLES)]


def loader_of(items=None, **options):
    options = options or {"sampler": ByEpoch()}
    return DataLoader(data() if items is None else items, BATCH, **options)


def model_of():
    return build(Judged)


def headed(method):
    def make(model, encoders, criterion, **options):
        heads = linear_heads(model, encoders, next(iter(loader_of())), step=read)
        return method(model, encoders, criterion, heads, **options)

    return make


METHODS = {
    "AWC": lambda *args, **options: AWC(*args, alpha_superior=50.0, alpha_inferior=20.0, window=3, **options),
    "OGM-GE": lambda *args, **options: OGMGE(*args, alpha=0.5, **options),
    "AGM": AGM,
    "G-Blending": lambda *args, **options: headed(GBlending)(
        *args, held_out=list(loader_of(data(1))), super_epoch=1, **options
    ),
    "modality resampling": lambda *args, **options: ModalityResampling(
        *args, profit="pearson", warmup=0, alpha=3.0, **options
    ),
    "sample resampling": lambda *args, **options: SampleResampling(*args, warmup=0, **options),
    "MMPareto": headed(MMPareto),
    "InfoReg": InfoReg,
    "Plain": Plain,
}


def balancer_of(name, model):
    return None if name is None else METHODS[name](model, model.encoders, mse_loss, step=read)


def optimizer_of(model, balancer, lr=0.05):
    heads = [] if balancer is None else list(balancer.parameters())
    return torch.optim.SGD([*model.parameters(), *heads], lr=lr, momentum=0.9)


def autocast():
    """As Lightning has it; a cache of cast parameters would sum their gradients in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def by_hand(model, balancer, loader, *, epochs=3, accumulate=1, clip=None, clip_last=True, precision="no"):
    """Train in a loop of one's own, in which `clip_last` says whether what the balancer did is clipped, too."""
    optimizer = optimizer_of(model, balancer)
    for epoch in range(epochs):
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        if balancer is not None:
            balancer.start_epoch(loader)
        for number, batch in enumerate(loader):
            with autocast() if precision == "bf16" else nullcontext():
                loss = mse_loss(*read(model, batch)) if balancer is None else balancer.loss(batch)
            (loss / accumulate).backward()
            if (number + 1) % accumulate:
                continue
            changes = [lambda: balancer is None or balancer.adjust_gradients_()]
            if clip is not None:
                changes.insert(1 if clip_last else 0, lambda: nn.utils.clip_grad_norm_(model.parameters(), clip))
            for change in changes:
                change()
            optimizer.step()
            optimizer.zero_grad()
    return model


def by_lightning(model, balancer, loader, folder, *, own_loss=False, callbacks=(), resume=None, module=None, **options):
    """Train by a Lightning trainer; with `own_loss` the module's loss is not the balancer's."""
    pl = pytest.importorskip("lightning.pytorch")
    from awc_balance.integrations.lightning import BalancerCallback

    callback = None if balancer is None else BalancerCallback(balancer)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model

        def training_step(self, batch, batch_idx):
            if callback is None or own_loss:
                return mse_loss(*read(self.net, batch))
            return callback.loss(batch)

        def configure_optimizers(self):
            return optimizer_of(self.net, balancer)

    names = {"epochs": "max_epochs", "accumulate": "accumulate_grad_batches", "clip": "gradient_clip_val"}
    options = {names.get(name, name): value for name, value in {"epochs": 3, **options}.items()}
    if options.get("precision") == "bf16":
        options["precision"] = "bf16-mixed"
    options = {"logger": False, "enable_checkpointing": bool(callbacks), **options}
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*([] if callback is None else [callback]), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, **options},
    )
    trainer.fit(Module() if module is None else module(callback), loader, ckpt_path=resume)
    return model


def by_transformers(
    model,
    balancer,
    loader,
    folder,
    *,
    own_loss=False,
    callbacks=(),
    resume=None,
    resume_from=None,
    **options,
):
    """Train by a Trainer of Transformers, which a plain one is with `own_loss`."""
    transformers = pytest.importorskip("transformers")
    from awc_balance.integrations.transformers import BalancedTrainer, BalancerCallback

    kind = transformers.Trainer if balancer is None or own_loss else BalancedTrainer

    class WithLoader(kind):
        def get_train_dataloader(self):
            return self.accelerator.prepare(loader)

    clip, precision = options.pop("clip", None), options.pop("precision", "no")
    names = {"epochs": "num_train_epochs", "accumulate": "gradient_accumulation_steps"}
    arguments = {names.get(name, name): value for name, value in {"epochs": 3, **options}.items()}
    arguments = transformers.TrainingArguments(
        str(folder),
        max_grad_norm=clip or 0.0,
        bf16=precision == "bf16",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=BATCH,
        **{"save_strategy": "no", "logging_strategy": "no", **arguments},
    )
    optimizer = optimizer_of(model, balancer)
    own = [] if balancer is None else [BalancerCallback(balancer, resume_from=resume_from)]
    trainer = WithLoader(
        model,
        arguments,
        train_dataset=loader.dataset,
        callbacks=[*own, *callbacks],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    )
    trainer.train(resume_from_checkpoint=resume)
    return model


def by_accelerate(
    model, balancer, loader, folder=None, *, epochs=3, accumulate=1, precision="no", save=None,
    resume=None, tracker=None, **options,
):  # fmt: skip
    """Train in a loop with Accelerate; `save` and `resume` are epoch and batch, before which a run ends or begins."""
    accelerate = pytest.importorskip("accelerate")
    from awc_balance.integrations.accelerate import AcceleratedBalancer

    accelerate.state.AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision, log_with=tracker
    )
    if tracker is not None:
        accelerator.init_trackers("run")
    inner = model
    model, optimizer, loader = accelerator.prepare(model, optimizer_of(model, balancer), loader)
    balance = None
    if balancer is not None:
        balance = AcceleratedBalancer(balancer, accelerator, model, optimizer)
    if resume is not None:
        accelerator.load_state(folder)
    for epoch, number, batch in steps(accelerator, loader, epochs, balance, resume or (0, 0), save):
        if save == (epoch, number):
            accelerator.save_state(folder)
            break
        step(accelerator, model, balance, optimizer, batch, **options)
        if tracker is not None and accelerator.gradient_state.end_of_dataloader:
            balance.log(epoch)
    return inner


def steps(accelerator, loader, epochs, balance, begin, save):
    """Epoch, number and batch of every step from `begin` on; epochs are started, unless the run is saved before."""
    for epoch in range(begin[0], epochs):
        skip = begin[1] if epoch == begin[0] else 0
        loader.set_epoch(epoch)
        if balance is not None and not skip and save != (epoch, 0):
            balance.start_epoch(loader)
        batches = accelerator.skip_first_batches(loader, skip) if skip else loader
        for number, batch in enumerate(batches, start=skip):
            yield epoch, number, batch


def step(accelerator, model, balance, optimizer, batch, *, clip=None, clip_last=True, own_loss=False):
    """Lines of a loop of Accelerate."""

    def clip_norm():
        if clip is not None and accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), clip)

    with accelerator.accumulate(model):
        loss = mse_loss(*read(model, batch)) if balance is None or own_loss else balance.loss(batch)
        accelerator.backward(loss)
        if not clip_last:
            clip_norm()
        if balance is not None:
            balance.adjust_gradients_(optimizer)
        if clip_last:
            clip_norm()
        optimizer.step()
        optimizer.zero_grad()


FRAMEWORKS = {"lightning": by_lightning, "transformers": by_transformers, "accelerate": by_accelerate}
CLIPS_LAST = {"lightning": True, "transformers": False, "accelerate": True}
