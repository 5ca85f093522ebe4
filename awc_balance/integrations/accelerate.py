"""Balancers in a loop that is prepared by Accelerate: `AcceleratedBalancer`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from awc_balance.balancers import Balancer
from awc_balance.integrations.adapter import Adapter
from awc_balance.integrations.measured import Measured
from awc_balance.integrations.missing import missing
from awc_balance.integrations.numbers import numbers_of

try:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.utils import send_to_device
except ModuleNotFoundError as error:
    raise missing("accelerate") from error

__all__ = ["AcceleratedBalancer"]


class AcceleratedBalancer:
    """The lines of a balancer in a loop of Accelerate.

    ```python
    with accelerator.accumulate(model):
        loss = balance.loss(batch)               # in place of criterion(model(inputs), target)
        accelerator.backward(loss)
        balance.adjust_gradients_(optimizer)     # only where gradients are complete; unscales them if need be
        optimizer.step()
        optimizer.zero_grad()
    ```

    **Whether the pull of AWC is clipped is up to you**: call `accelerator.clip_grad_norm_` before
    `adjust_gradients_` for gradients to be clipped and the pull not, or after it for both. In float16 Accelerate
    refuses the latter, since it would unscale twice; use `torch.nn.utils.clip_grad_norm_`, where
    `accelerator.sync_gradients` is set.

    The state of the balancer is saved by `accelerator.save_state` and put back by `load_state`: go on in the middle
    of an epoch with `accelerator.skip_first_batches` and without `start_epoch`. In several processes gradients are
    exchanged as in plain training, and heads too. Accelerate puts autocast into the model itself, so epochs are
    measured in mixed precision, in which float16 gradients may come out as 0; bfloat16 is safe.

    Args:
        balancer: Made for the model, before or after it was prepared. Give heads that it has to the optimizer before
            that is prepared, and not to `prepare`.
        accelerator: As the model was prepared with it.
        model: As `accelerator.prepare` gave it.
        optimizer: The same; what is void or forgotten with it brings a warning.
        loader: What to measure on at the start of an epoch. None: the loader that `start_epoch` is given.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the balancer was made for another model.

    Example:
        >>> import torch
        >>> from awc_balance.balancers import AWC
        >>> accelerator, mse = Accelerator(cpu=True), nn.functional.mse_loss
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
        >>> model, optimizer, loader = accelerator.prepare(
        ...     model, torch.optim.SGD(model.parameters(), lr=0.1), torch.utils.data.DataLoader(data, 4)
        ... )
        >>> balance = AcceleratedBalancer(AWC(model, {"table": model[0]}, mse), accelerator, model, optimizer)
        >>> for epoch in range(2):
        ...     balance.start_epoch(loader)
        ...     for batch in loader:
        ...         with accelerator.accumulate(model):
        ...             accelerator.backward(balance.loss(batch))
        ...             balance.adjust_gradients_(optimizer)
        ...             optimizer.step(); optimizer.zero_grad()
        >>> balance.balancer.epoch
        2
    """

    def __init__(
        self,
        balancer: Balancer,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: AcceleratedOptimizer,
        *,
        loader: Iterable[Any] | None = None,
    ) -> None:
        """See the class."""
        if not isinstance(optimizer, AcceleratedOptimizer):
            raise TypeError(
                f"`optimizer` should be one that was prepared. Got {type(optimizer).__name__}. "
                "Pass what accelerator.prepare gave."
            )
        self._adapter = Adapter(balancer, loader)
        self._adapter.train_through(model)
        self._adapter.start_training(accelerator.device)
        self._accelerator = accelerator
        accelerator.register_for_checkpointing(balancer)
        balancer.check(optimizer.optimizer)

    @property
    def balancer(self) -> Balancer:
        """The balancer."""
        return self._adapter.balancer

    def start_epoch(self, loader: Iterable[Any]) -> None:
        """Begin an epoch.

        Args:
            loader: As it was prepared; its count of epochs and its random state are as before.
        """
        self._adapter.start_epoch(Measured(loader, lambda batch: send_to_device(batch, self._accelerator.device)))

    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - a batch can be anything
        """What to call `accelerator.backward` on; under autocast, as the model itself."""
        with self._accelerator.autocast():
            return self._adapter.loss(batch)

    def adjust_gradients_(self, optimizer: AcceleratedOptimizer) -> None:
        """Unscale and change the gradients where they are complete; while they are accumulated, nothing.

        Args:
            optimizer: Whose step is next.
        """
        if not self._accelerator.sync_gradients:
            return
        self._unscale(optimizer)
        self._adapter.adjust_gradients_()

    def log(self, step: int | None = None) -> None:
        """Give contributions, strengths and the penalty to the accelerator's trackers.

        Args:
            step: As in `accelerator.log`.
        """
        self._accelerator.log(numbers_of(self.balancer), step=step)

    def _unscale(self, optimizer: AcceleratedOptimizer) -> None:
        try:
            self._accelerator.unscale_gradients(optimizer)
        except RuntimeError as error:
            if "already been called" not in str(error):  # else gradients were clipped, which unscaled them
                raise
