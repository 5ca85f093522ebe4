"""Anchors and Fisher diagonals of encoders, kept as buffers: `Anchored`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awc_balance.encoders import check_encoders, in_words, parameters_by_modality
from awc_balance.fisher.diagonal import Diagonal
from awc_balance.fisher.gradients import non_finite
from awc_balance.penalty import Bundle, Pulled, bundles
from awc_balance.precision import at_least_float32
from awc_balance.sharded import local
from awc_balance.state import buffer_name
from awc_balance.watch import Watch

FISHER_DTYPES = (None, torch.bfloat16, torch.float32, torch.float64)


class _Plan(NamedTuple):
    """What is pulled, and what that was worked out from; while the latter stays, so does the former."""

    model: Watch
    buffers: dict[str, Tensor | None]
    alphas: dict[str, float]
    bundles: list[Bundle]


class Anchored(nn.Module):
    """A module without parameters that keeps an anchor and a Fisher diagonal for every parameter of some encoders.

    An anchor has the dtype of its parameter, whatever the options: near the anchor any coarser one would turn the
    pull into rounding errors, while one of a Fisher diagonal, which is an estimate, only changes the pull by its
    relative error. bfloat16, with the range of float32, does so by up to 0.4 %; float16 would underflow.

    Args:
        encoders: The checked encoders by modality.
        model: What they are parts of.
        fisher_dtype: Of the Fisher diagonals that are kept; None for that of their parameter, float32 or better.
        state_device: Where both are kept; None for where their parameter is.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If the dtype is none of those above.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        model: nn.Module,
        fisher_dtype: torch.dtype | None = None,
        state_device: torch.device | str | None = None,
    ) -> None:
        """Anchors at the present parameters, and Fisher diagonals of 0."""
        super().__init__()
        self._fisher_dtype = _check_dtype(fisher_dtype)
        self._state_device = None if state_device is None else _check_device(state_device)
        # A plain dict and a tuple, or they would become parts of this module.
        self._encoders = dict(encoders)
        self._whole = (model,)
        self._plan: _Plan | None = None
        self._keep({m: {n: torch.zeros_like(p.detach().real) for n, p in named.items()} for m, named in self._named()})

    def _keep(self, diagonal: Diagonal, divisor: float = 1.0, *, to_zero: bool = False) -> None:
        """Take the parameters' present values, or zeros, as anchors, with these Fisher diagonals.

        Raises:
            ValueError: If one does not fit `fisher_dtype`; nothing is changed then.
        """
        with torch.inference_mode(False):  # or the penalty could not be differentiated
            fishers = {
                (modality, name): self._stored(at_least_float32(value / divisor).to(dtype=self._fisher_dtype))
                for modality, named in diagonal.items()
                for name, value in named.items()
            }
            _refuse_overflow(fishers, self._fisher_dtype)
            kept = {
                buffer_name(kind, modality, name): tensor
                for modality, named in self._named()
                for name, parameter in named.items()
                for kind, tensor in (
                    ("anchor", self._stored(_anchor(parameter, to_zero=to_zero))),
                    ("fisher", fishers[modality, name]),
                )
            }
        self._plan = None  # or it would hold what is replaced now until the next step
        for key in self._buffers.keys() - kept.keys():  # of parameters that are gone
            del self._buffers[key]
        for key, tensor in kept.items():
            self.register_buffer(key, tensor)

    def _bundles(self, alphas: Mapping[str, float]) -> list[Bundle]:
        """What is pulled with these alphas: trainable parameters, with their anchors and Fisher diagonals.

        Raises:
            RuntimeError: If a parameter is new, has another shape, or is on the meta device.
            ValueError: If an encoder is no longer a part of the model.
        """
        if self._plan is None or not self._still_holds(self._plan, alphas):
            if any(alphas.values()):  # else the model may have lost them
                check_encoders(self._encoders, *self._whole)
            with torch.inference_mode(False):
                found = bundles(
                    (alphas[modality], self._pulled(modality, name, parameter))
                    for modality, named in self._named()
                    if alphas[modality] > 0
                    for name, parameter in named.items()
                    if parameter.requires_grad
                )
            watch = Watch([*self._whole, *self._encoders.values()])
            self._plan = _Plan(watch, dict(self._buffers), dict(alphas), found)
        return self._plan.bundles

    def _still_holds(self, plan: _Plan, alphas: Mapping[str, float]) -> bool:
        """Whether nobody has exchanged, moved, cast or frozen anything since; far quicker than to plan anew."""
        buffers = self._buffers
        same = len(buffers) == len(plan.buffers) and all(map(is_, buffers.values(), plan.buffers.values()))
        return same and alphas == plan.alphas and plan.model.unchanged()

    def _named(self) -> Iterator[tuple[str, dict[str, nn.Parameter]]]:
        yield from parameters_by_modality(self._encoders).items()

    def _stored(self, tensor: Tensor) -> Tensor:
        return tensor if self._state_device is None else tensor.to(self._state_device)

    def _pulled(self, modality: str, name: str, parameter: nn.Parameter) -> Pulled:
        if parameter.is_meta:
            raise RuntimeError(
                f"The encoders should hold values. The parameter {name} of `{modality}` is on the meta device. Call "
                "to_empty(device=...) and load its state; the anchors are still where they were."
            )
        kept = []
        for kind in ("anchor", "fisher"):
            key = buffer_name(kind, modality, name)
            buffer = self._buffers.get(key)
            if buffer is None or buffer.shape != parameter.shape:
                raise RuntimeError(
                    "The encoders should keep their parameters during training. The parameter "
                    f"{name} of `{modality}` is new or has another shape. Build a new AWCRegularizer."
                )
            # The model may have been moved or cast after the epoch began.
            device = self._state_device or parameter.device
            moved = buffer.to(device, parameter.dtype if kind == "anchor" else buffer.dtype)
            if moved is not buffer:
                self.register_buffer(key, moved)
            kept.append(moved)
        return Pulled(parameter, *kept)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:  # noqa: ANN401 - as in torch
        """Move what is kept with a larger module, but leave its dtype, which `half()` would lower, alone.

        torch offers no public way to keep buffers out of a cast; its recurrent layers override this, too.
        """
        if self._state_device is not None:
            return self

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]


def _anchor(parameter: nn.Parameter, *, to_zero: bool) -> Tensor:
    return torch.zeros_like(parameter.detach()) if to_zero else parameter.detach().clone()


def check_parameters(encoders: Mapping[str, nn.Module]) -> None:
    """Refuse to take anchors at parameters that hold no numbers.

    Raises:
        RuntimeError: If a parameter is on the meta device.
        ValueError: If one that is trained is nan or infinite.
    """
    named = {(m, name): p for m, members in parameters_by_modality(encoders).items() for name, p in members.items()}
    empty = [key for key, parameter in named.items() if parameter.is_meta]
    if empty:
        raise RuntimeError(
            f"Encoders should hold values when an epoch starts. Got the meta device for {in_words(empty)}. "
            "Call to_empty(device=...) and load their state."
        )
    bad = non_finite({key: local(parameter.detach()) for key, parameter in named.items() if parameter.requires_grad})
    if bad:
        raise ValueError(
            "Parameters of encoders should be finite when an epoch starts. Got nan or infinity in "
            f"{in_words(bad)}. Load a state from before, and look for the cause in the steps since."
        )


def _check_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"`fisher_dtype` should be a torch.dtype. Got {type(dtype).__name__}. Pass torch.bfloat16.")
    if dtype not in FISHER_DTYPES:
        raise ValueError(
            f"`fisher_dtype` should be one of {', '.join(map(str, FISHER_DTYPES))}. Got {dtype}. "
            "Pass torch.bfloat16 to save memory."
        )
    return dtype


def _check_device(device: torch.device | str) -> torch.device:
    if not isinstance(device, torch.device | str):
        raise TypeError(f"`state_device` should be a device. Got {type(device).__name__}. Pass 'cpu'.")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"`state_device` should be a device. Got {device!r}. Pass 'cpu'.") from error


def _refuse_overflow(fishers: dict[tuple[str, str], Tensor], dtype: torch.dtype | None) -> None:
    too_large = non_finite(fishers) if dtype is not None else []
    if too_large:
        raise ValueError(
            f"Fisher diagonals should stay within `fisher_dtype`. They overflow {dtype} in "
            f"{in_words(too_large)}. Leave fisher_dtype=None, or scale the loss down."
        )
