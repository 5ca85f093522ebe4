"""Balancers in Transformers: `BalancerCallback`, and `BalancedTrainer` for methods that work on the loss."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance.balancers import Balancer
from awc_balance.batches import to_device
from awc_balance.integrations.adapter import Adapter
from awc_balance.integrations.measured import Measured
from awc_balance.integrations.missing import missing
from awc_balance.integrations.numbers import numbers_of

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ModuleNotFoundError as error:
    raise missing("transformers") from error

__all__ = ["BalancedLoss", "BalancedTrainer", "BalancerCallback"]

STATE = "balancer.pt"
"""The file in a checkpoint's folder that holds the balancer's state."""


class BalancerCallback(TrainerCallback):
    """A balancer in a Transformers `Trainer`.

    AWC needs the callback and nothing else, in any `Trainer`. Every other method works on the loss of a step as well,
    and needs a `BalancedTrainer`; a step without it is an error.

    Gradients are changed once per optimizer step, after they are unscaled and **after they were clipped, so the pull
    of AWC is not clipped**, nor are the gradients of heads. The trainer puts autocast into the model itself, so
    epochs are measured in mixed precision, in which float16 gradients may come out as 0; bfloat16 is safe.

    The balancer's state is saved beside the model as `checkpoint-<step>/balancer.pt`, without pickled code, and put
    back when training resumes, also in the middle of an epoch.

    Args:
        balancer: Made for the model that the trainer is given. A batch is what the data collator makes, so that most
            need `step`, such as `lambda model, batch: (model(**batch).logits, batch["labels"])`.
        loader: What to measure on at the start of an epoch. None: the training loader.
        resume_from: The folder of the checkpoint to resume from, where it is not in the output folder.

    Raises:
        TypeError: If it is no balancer.

    Example:
        >>> import tempfile
        >>> from awc_balance.balancers import AWC
        >>> class Regression(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        ...     def forward(self, x, labels):
        ...         prediction = self.head(self.encoder(x).relu())
        ...         return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}
        >>> def step(model, batch):
        ...     return model(**batch)["logits"], batch["labels"]
        >>> model = Regression()
        >>> awc = AWC(model, {"table": model.encoder}, nn.functional.mse_loss, step=step)
        >>> data = [{"x": torch.randn(3), "labels": torch.randn(1)} for _ in range(8)]
        >>> arguments = TrainingArguments(
        ...     tempfile.mkdtemp(), num_train_epochs=2, report_to=[], save_strategy="no", disable_tqdm=True,
        ...     use_cpu=True, logging_strategy="no",
        ... )
        >>> trainer = Trainer(model, arguments, train_dataset=data, callbacks=[BalancerCallback(awc)])
        >>> _ = trainer.train()  # doctest: +ELLIPSIS
        {'train_runtime'...}
        >>> [row["epoch"] for row in awc.regularizer.history]
        [1, 2]
    """

    def __init__(
        self, balancer: Balancer, *, loader: Iterable[Any] | None = None, resume_from: str | Path | None = None
    ) -> None:
        """See the class."""
        self._adapter = Adapter(balancer, loader)
        self._resume_from = resume_from
        self._within_epoch = False

    @property
    def balancer(self) -> Balancer:
        """The balancer."""
        return self._adapter.balancer

    def loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - a batch can be anything
        """The balancer's loss of a training batch, as `BalancedTrainer` needs it.

        Args:
            model: As the trainer wrapped it.
            batch: On the device.
        """
        self._adapter.train_through(model)
        return self._adapter.loss(batch)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        optimizer: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Bring the heads to the device, warn of what is void, and resume where the trainer does.

        Raises:
            FileNotFoundError: If the checkpoint was written without the balancer, or is elsewhere.
            ValueError: If it holds another kind of balancer, or other encoders.
        """
        if state.global_step:
            self._resume(Path(args.output_dir), state.global_step)
        self._within_epoch = state.epoch is not None and state.epoch != int(state.epoch)
        self._adapter.start_training(args.device)
        self.balancer.check(getattr(optimizer, "optimizer", optimizer))  # that of Accelerate is around the user's

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        train_dataloader: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Begin an epoch of the balancer, unless the trainer resumes in the middle of one."""
        within, self._within_epoch = self._within_epoch, False
        if within:
            return
        if hasattr(train_dataloader, "set_epoch"):  # as the trainer does after this event, for the order of samples
            train_dataloader.set_epoch(int(state.epoch or 0))
        self._adapter.start_epoch(Measured(train_dataloader, lambda batch: to_device(batch, args.device)))

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Change the gradients, unscaled and clipped."""
        self._adapter.adjust_gradients_()

    def on_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Clear the gradients of heads; the trainer clears those of the model only."""
        self.balancer.zero_grad()

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Save the balancer's state beside the model."""
        if args.should_save:
            torch.save(self.balancer.state_dict(), _folder(Path(args.output_dir), state.global_step) / STATE)

    def _resume(self, output: Path, step: int) -> None:
        file = (_folder(output, step) if self._resume_from is None else Path(self._resume_from)) / STATE
        if not file.is_file():
            raise FileNotFoundError(
                f"The checkpoint that is resumed from should hold {STATE}. Not found: {file}. "
                "Pass resume_from=, the folder of the checkpoint, to BalancerCallback."
            )
        self.balancer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def _folder(output: Path, step: int) -> Path:
    """Where the trainer puts the checkpoint of a step."""
    return output / f"{PREFIX_CHECKPOINT_DIR}-{step}"


class BalancedLoss:
    """Let the training loss of a `Trainer` be that of the balancer among its callbacks; put it before the `Trainer`.

    ```python
    class MyTrainer(BalancedLoss, MyOtherTrainer): ...
    ```

    Evaluation is as before. The loss is the mean over each batch, which the trainer divides by the number of
    accumulated batches. Heads are added to the optimizer that the trainer makes. Contributions, strengths and the
    penalty are logged along with the training loss, to where the trainer logs.
    """

    loss_is_scaled_for_ga = False

    @property
    def balance(self) -> BalancerCallback:
        """The callback.

        Raises:
            RuntimeError: If there is none.
        """
        for callback in self.callback_handler.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BalancerCallback):
                return callback
        raise RuntimeError(
            f"{type(self).__name__} should have a BalancerCallback among its callbacks. Got none. "
            "Pass callbacks=[BalancerCallback(balancer)], or use a plain Trainer."
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,  # noqa: ANN401
        return_outputs: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """That of the balancer while training, that of the trainer otherwise."""
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)  # type: ignore[misc]
        return self.balance.loss(model, inputs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """That of the trainer, with the balancer's heads."""
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        heads = [parameter for parameter in self.balance.balancer.parameters() if id(parameter) not in known]
        if heads:
            optimizer.add_param_group({"params": heads})
        return optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Log what the balancer found and did along with the training loss."""
        if "loss" in logs:
            logs = {**logs, **numbers_of(self.balance.balancer)}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class BalancedTrainer(BalancedLoss, Trainer):
    """A `Trainer` whose training loss is that of the balancer among its callbacks; see `BalancedLoss`.

    Example:
        >>> BalancedTrainer.loss_is_scaled_for_ga
        False
    """
