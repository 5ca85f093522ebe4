"""Balancers in Lightning: `BalancerCallback`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from awc_balance.balancers import Balancer
from awc_balance.integrations.adapter import Adapter
from awc_balance.integrations.measured import Measured
from awc_balance.integrations.missing import missing
from awc_balance.integrations.numbers import numbers_of

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise missing("lightning") from error

__all__ = ["BalancerCallback"]


class BalancerCallback(Callback):
    """Any balancer in a Lightning `Trainer`, with automatic optimization.

    AWC needs the callback and nothing else. Every other method works on the loss of a step as well, so
    `training_step` returns `callback.loss(batch)` in place of the criterion; a step without it is an error. The
    callback is no module: a `LightningModule` may hold it without holding the balancer's parameters, and may put it
    into the trainer with `configure_callbacks`.

    Gradients are changed after they are unscaled and before they are clipped, so **the pull of AWC is clipped along
    with them**. With `accumulate_grad_batches` this happens once per optimizer step. Epochs are measured in the
    precision of the parameters, without autocast, on the batches of the training loader, on the device.

    In several processes (`strategy="ddp"`) each runs the balancer on its share, and heads are exchanged; see
    `Balancer` for what the methods put together. The state of the balancer is part of Lightning's checkpoints, and
    resuming is bitwise equal to not having stopped wherever Lightning itself resumes so. Sharded strategies are not
    supported.

    Args:
        balancer: Made for the `LightningModule`, or for the model inside it. Heads that it has are to be trained:
            `configure_optimizers` takes `[*self.parameters(), *balancer.parameters()]`.
        loader: What to measure on at the start of an epoch. None: the training loader, in its present order, as far
            as `limit_train_batches` goes.
        log: Whether contributions, strengths and the penalty at the end of every epoch go to the trainer's loggers.

    Raises:
        TypeError: If it is no balancer.

    Example:
        >>> import torch
        >>> from awc_balance.balancers import AWC
        >>> class Regression(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        ...     def training_step(self, batch, batch_idx):
        ...         return nn.functional.mse_loss(self.net(batch[0]), batch[1])
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> module = Regression()
        >>> awc = AWC(module.net, {"table": module.net[0]}, nn.functional.mse_loss)
        >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(
        ...     max_epochs=2, accelerator="cpu", callbacks=[BalancerCallback(awc)], enable_checkpointing=False, **quiet
        ... )
        >>> data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
        >>> trainer.fit(module, torch.utils.data.DataLoader(data, 4))
        >>> [row["epoch"] for row in awc.regularizer.history]
        [1, 2]
    """

    def __init__(self, balancer: Balancer, *, loader: Iterable[Any] | None = None, log: bool = True) -> None:
        """See the class."""
        self._adapter = Adapter(balancer, loader)
        self.log = log
        self._epoch: int | None = None  # of the trainer, to which the balancer's present one belongs
        self._saved_epoch: int | None = None

    @property
    def balancer(self) -> Balancer:
        """The balancer."""
        return self._adapter.balancer

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of the balancer's heads, for the optimizer; none in most methods."""
        return self.balancer.parameters()

    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - a batch can be anything
        """What `training_step` returns, for every method that works on the loss."""
        return self._adapter.loss(batch)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Bring the heads to the device before optimizers are made.

        Raises:
            RuntimeError: If the module optimizes by hand.
        """
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise RuntimeError(
                "BalancerCallback should be used with automatic optimization. Got automatic_optimization=False. "
                "Call start_epoch, loss and adjust_gradients_ of the balancer in your training_step instead."
            )
        self._adapter.start_training(trainer.strategy.root_device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Warn of what is void or forgotten with this optimizer."""
        self._epoch, self._saved_epoch = self._saved_epoch, None
        for optimizer in trainer.optimizers:
            self.balancer.check(optimizer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Begin an epoch of the balancer where the trainer has begun one.

        Not in `on_train_epoch_start`, which Lightning leaves out where it resumes from the last batch of an epoch.
        """
        if self._epoch == trainer.current_epoch:
            return

        def prepare(batch: Any) -> Any:  # noqa: ANN401
            batch = pl_module.on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), 0)
            return trainer.strategy.batch_to_device(batch, pl_module.device)

        batches = trainer.num_training_batches
        self._adapter.start_epoch(
            Measured(trainer.train_dataloader, prepare, int(batches) if batches != float("inf") else None)
        )
        self._epoch = trainer.current_epoch

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Change the gradients, unscaled and not yet clipped."""
        self._adapter.adjust_gradients_()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log what the balancer found and did."""
        if self.log:
            pl_module.log_dict(numbers_of(self.balancer))

    def state_dict(self) -> dict[str, Any]:
        """The balancer's, for a checkpoint."""
        return {"balancer": self.balancer.state_dict(), "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back the balancer as it was saved.

        Raises:
            ValueError: If it is the state of another kind of balancer, or of other encoders.
        """
        self.balancer.load_state_dict(state_dict["balancer"])
        self._saved_epoch = state_dict["epoch"]
