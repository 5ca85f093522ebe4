"""The interface that every balancing method stands behind: `Balancer`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import deepcopy
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor, nn, optim

from awc_balance.balancers.run import Run
from awc_balance.batches import Step, default_step, device_of, predict
from awc_balance.checks import check_callable, check_count
from awc_balance.encoders import Encoders, check_encoders, check_model
from awc_balance.fisher.objective import Criterion, task_loss
from awc_balance.nested import leaves_of
from awc_balance.processes import Processes
from awc_balance.state import check_state

ADAPTIVE = (
    optim.Adadelta,
    optim.Adafactor,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
    optim.SparseAdam,
    *([optim.Muon] if hasattr(optim, "Muon") else []),  # since torch 2.9
)
"""Optimizers that divide a gradient by its own running size, and so cancel any factor that varies slowly."""


class Balancer(nn.Module, ABC):
    """A method that changes the loss or the gradients by modality, in a training loop of the user's own.

    Three lines go into the loop: `start_epoch` at the start of every epoch, `loss(batch)` in place of
    `criterion(model(inputs), target)`, and `adjust_gradients_()` between `backward()` and `step()`. The model is used
    as it is and left as it is. A balancer is a module whose parameters are the heads that its method needs, none in
    most; give them to the optimizer, and drop the balancer after training. Its `state_dict` resumes a run bit for bit
    between two steps. A deep copy or a pickle takes a copy of the model along: copy both at once, and train the copy.

    With gradient accumulation call `loss` for every part and divide it as usual; call `adjust_gradients_` once per
    optimizer step, and after gradients are unscaled if they were scaled. Features are read by hooks, so that parts
    of the model that are compiled run uncompiled in the methods that read them.

    Under `DistributedDataParallel` pass the wrapped model. Scores by which gradients are changed after they were
    exchanged are averaged over the processes; all else each process decides by its own share of the batch, which the
    exchange of gradients averages. Heads are not exchanged. At the start of an epoch AWC and modality-level resampling
    put together what the processes measure on loaders of their own; for the other methods the loader should be the
    same in every process.

    To write a method of your own, implement `_balanced`; `_prepare` and `_adjust` are there if it needs them.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch.
        window: How many epochs, from the first, the method works; plain training afterwards. None: all, 0: never.
        step: `step(model, batch) -> (prediction, target)` says how to read a batch. The default takes a pair
            (inputs, target) and calls `model(inputs)`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an encoder is unknown to the model or shares parameters with another, or a number is out of
            its range.
    """

    scales_gradients: ClassVar[bool] = False
    """Whether all that the method does is a scale of gradients, which adaptive optimizers cancel."""
    _saved: ClassVar[tuple[str, ...]] = ()
    """The attributes that a resumed run needs beside parameters and buffers."""

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        *,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        inner = check_model(model)
        # In a tuple, or their parameters would become the balancer's. The model as given, a wrapper for several
        # processes perhaps, is trained; the one inside it is measured.
        self._user = (model, inner, check_encoders(encoders, inner))
        self._criterion: Criterion = check_callable("criterion", criterion, "Pass the loss function of your training.")
        self._step = default_step if step is None else check_callable("step", step, "Pass a function (model, batch).")
        if window is not None:
            check_count("window", window, 0)
        self.window = window
        self.epoch = 0
        self._calls = {"loss": 0, "adjust_gradients_": 0}  # in the present epoch

    @property
    def modalities(self) -> list[str]:
        """Their names."""
        return list(self._encoders)

    @property
    def active(self) -> bool:
        """Whether the method works in the present epoch."""
        return self.epoch > 0 and (self.window is None or self.epoch <= self.window)

    def start_epoch(self, loader: Iterable[Any]) -> None:
        """Begin an epoch. If anything fails, everything stays as it was before.

        Args:
            loader: The training batches; read by methods that measure at the start of an epoch, and by no other.

        Raises:
            RuntimeError: If `adjust_gradients_` was forgotten in the last epoch, in a method that needs it.
        """
        self._refuse_forgotten()
        if self.window is None or self.epoch < self.window:
            self._prepare(loader)
        self.epoch += 1
        self._calls = dict.fromkeys(self._calls, 0)

    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - a batch can be anything
        """The loss to call `backward()` on: the task loss, with what the method adds to it or changes in it.

        Outside the window and where gradients are disabled it is `criterion(prediction, target)` and nothing else.

        Raises:
            RuntimeError: If no epoch was started.
        """
        if self.epoch == 0:
            raise RuntimeError(
                "`loss` belongs to an epoch. Got none yet. Call start_epoch(loader) at the start of every epoch."
            )
        if self.active and torch.is_grad_enabled():
            loss = self._balanced(batch)
            self._calls["loss"] += 1
            return loss
        return self._plain(batch)

    def adjust_gradients_(self) -> None:
        """Change `.grad` by modality, in place. Call it between `backward()` and `step()`, whatever the method.

        Raises:
            RuntimeError: If `loss` was not called since the last time, in a method that needs it.
        """
        if self.active:
            self._adjust()
            self._calls["adjust_gradients_"] += 1

    def check(self, optimizer: optim.Optimizer) -> None:
        """Warn of what is known to be void or forgotten with this optimizer. Call it once, before training.

        Raises:
            TypeError: If it is not an optimizer.
        """
        if not isinstance(optimizer, optim.Optimizer):
            raise TypeError(
                f"`optimizer` should be a torch.optim.Optimizer. Got {type(optimizer).__name__}. "
                "Pass the one you train with."
            )
        if self.scales_gradients and isinstance(optimizer, ADAPTIVE):
            self._warn(
                f"scales gradients, and {type(optimizer).__name__} divides gradients by their own size: a scale that "
                "varies slowly has no effect. Train with SGD, or with a method that changes the loss."
            )
        given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if any(id(parameter) not in given for parameter in self.parameters()):
            self._warn(
                "has heads that the optimizer does not train. "
                'Call optimizer.add_param_group({"params": balancer.parameters()}).'
            )

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beside parameters and buffers, as plain values."""
        return {name: deepcopy(getattr(self, name)) for name in ("epoch", *self._saved)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_extra_state` gave."""
        for name in ("epoch", *self._saved):
            setattr(self, name, deepcopy(state[name]))
        self._forget_step()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch keeps the name of its return type to itself
        """Resume a run, after checking that the state belongs to this method and these encoders.

        Args:
            state_dict: From `state_dict()` of a balancer of the same kind and model.
            strict: Whether to refuse missing and unexpected keys.
            assign: As in `nn.Module.load_state_dict`.

        Raises:
            ValueError: With every key that is missing, unexpected, of another shape or not finite; nothing is loaded
                then.
        """
        before = self.state_dict()
        check_state(state_dict, before, {}, strict=strict)
        own, given = self.get_extra_state(), state_dict.get("_extra_state", {})
        if strict and set(own) != set(given):
            raise ValueError(
                f"`state_dict` should come from a balancer of the same kind, which keeps {', '.join(own)}. "
                f"Got {', '.join(given) or 'none'}. Load it into the kind that saved it."
            )
        _check_numbers(given)
        before, noted = deepcopy(before), dict(vars(self))
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            super().load_state_dict(before)
            self.__dict__.update(noted)
            raise ValueError(
                f"`state_dict` should be as state_dict() gave it. Got a part that does not load: {error!r}. "
                "Take an older checkpoint; nothing of this one is loaded."
            ) from error

    def extra_repr(self) -> str:
        """For `print`."""
        return f"{', '.join(self.modalities)}, window={self.window}, epoch={self.epoch}"

    @abstractmethod
    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss of a batch while the method works."""

    def _prepare(self, loader: Iterable[Any]) -> None:
        """What to do before an epoch in which the method works; `epoch` is still the number of epochs done."""

    def _adjust(self) -> None:
        """What to do to the gradients of an optimizer step."""

    def _forget_step(self) -> None:
        """Drop what was noted of a step that is not done, when another state is loaded."""
        self._calls = dict.fromkeys(self._calls, 0)

    def _refuse_forgotten(self) -> None:
        adjusts = type(self)._adjust is not Balancer._adjust
        if adjusts and self._calls["loss"] and not self._calls["adjust_gradients_"]:
            raise RuntimeError(
                f"{type(self).__name__} works on gradients, by adjust_gradients_(). "
                "It was not called in the last epoch. Call it between backward() and step()."
            )

    @property
    def _encoders(self) -> dict[str, nn.Module]:
        return self._user[2]

    def _plain(self, batch: Any) -> Tensor:  # noqa: ANN401
        return self._task_loss(*predict(self._step, self._user[0], batch))

    def _task_loss(self, prediction: Any, target: Any) -> Tensor:  # noqa: ANN401
        return task_loss(self._criterion, prediction, target)

    def _run(self, batch: Any, *, keep_gradient: bool = False) -> Run:  # noqa: ANN401
        """The training pass over a batch, with features kept."""
        model, inner, encoders = self._user
        return Run(model, inner, encoders, self._step, batch, keep_gradient=keep_gradient)

    def _mean_over_processes(self, scores: Mapping[str, float]) -> dict[str, float]:
        """What is done to gradients after they were exchanged has to be the same in all processes."""
        model = self._user[0]
        return Processes(model).mean(scores, device_of(model))

    def _warn(self, what: str) -> None:
        warnings.warn(f"{type(self).__name__} {what}", UserWarning, stacklevel=3)


def _check_numbers(extra: Mapping[str, Any]) -> None:
    """Refuse plain values of a saved state that no run can go on from."""
    if not extra:
        return
    check_count("epoch", extra["epoch"], 0)
    bad = [name for name, value in extra.items() if not all(map(_is_finite, leaves_of(value)))]
    if bad:
        raise ValueError(
            f"`state_dict` should hold finite numbers. Got nan or infinity in {', '.join(bad)}. "
            "Take an older checkpoint; nothing of this one is loaded."
        )


def _is_finite(leaf: object) -> bool:
    return not isinstance(leaf, float) or isfinite(leaf)
