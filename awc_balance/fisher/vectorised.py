"""Squared gradients of the loss of single samples by `torch.func`, or by autograd one at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from awc_balance.batches import split_samples
from awc_balance.fisher.gradients import Gradients, Key, Measured, gradients
from awc_balance.fisher.objective import Objective, loops_allowed
from awc_balance.precision import at_least_float32, squared
from awc_balance.preserve import measuring

CHUNK_ELEMENTS = 2**25
"""Elements of per-sample gradients held at once if no chunk size is given: 128 MiB of float32."""

CHECKED = 2
"""Samples whose vectorised gradients are compared with autograd's."""

Way: TypeAlias = Literal["rule", "vmap", "one by one"]
"""How per-sample gradients were taken: by the rules of layers, vectorised by `torch.func`, or one sample at a time."""

Samples: TypeAlias = list[Tensor]
Rebuild: TypeAlias = Callable[[Samples], Any]
Found: TypeAlias = tuple[Gradients, Tensor]
"""Gradients `[samples, ...]` and losses `[samples]`."""


class Vectorised:
    """Sums of squared per-sample gradients, vectorised over samples where `torch.func` can, else one at a time.

    Before the vectorised gradients are relied on, those of the first samples are compared with autograd's.

    Args:
        objective: The loss.
        parameters: The parameters to differentiate by.
        chunk_size: Samples to vectorise over at once; None chooses by memory.
    """

    def __init__(self, objective: Objective, parameters: Mapping[Key, nn.Parameter], chunk_size: int | None) -> None:
        """See the class."""
        self._objective = objective
        self._parameters = dict(parameters)
        self._names = _names_of(objective, self._parameters)
        elements = sum(parameter.numel() for parameter in self._parameters.values())
        self._chunk = chunk_size or max(1, CHUNK_ELEMENTS // max(elements, 1))
        self._vectorise: bool | None = None
        self._reached: set[Key] = set()

    @property
    def way(self) -> Way:
        """How gradients were taken last."""
        return "vmap" if self._vectorise else "one by one"

    def can_vectorise(self, samples: Samples, rebuild: Rebuild) -> bool:
        """Whether `torch.func` gets through at all."""
        try:
            with measuring(self._objective, mode="current"):
                self._vectorised(samples, rebuild)
        except Exception:
            return False
        return True

    def measure(self, batch: Any) -> Measured:  # noqa: ANN401
        """The sums of squared gradients over the samples of a batch."""
        count, samples, rebuild = split_samples(batch)
        if self._vectorise is None:
            self._vectorise = True
            exact, fast = ([leaf[:CHECKED].clone() for leaf in samples] for _ in range(2))
            if not self._agree(self._one_by_one(exact, rebuild)[0], self._gradients(fast, rebuild)[0]):
                self._stop_vectorising("the vectorised ones differ from autograd's")
        total: Gradients = {}
        losses: list[Tensor] = []
        chunk = self._chunk  # of this batch: it shrinks when vectorising stops on the way
        for start in range(0, count, chunk):
            # Copies, since the model may change its inputs in place.
            found, loss = self._gradients([leaf[start : start + chunk].clone() for leaf in samples], rebuild)
            losses.append(loss)
            for key, gradient in found.items():
                square = squared(gradient).sum(0)
                total[key] = total[key].add_(square) if key in total else square
        # Vectorised gradients are zeros, not None, where there is no dependence.
        self._reached |= {key for key, value in total.items() if key not in self._reached and bool(value.any())}
        return Measured(total, count, torch.cat(losses).mean(), self._reached)

    def _gradients(self, samples: Samples, rebuild: Rebuild) -> Found:
        """In the fastest way that is known to be right."""
        if self._vectorise:
            try:
                # Or what a forward pass leaves on a module would be a tensor of torch.func's, dead by now.
                with measuring(self._objective, mode="current"):
                    return self._vectorised(samples, rebuild)
            except Exception as error:
                self._stop_vectorising(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return self._one_by_one(samples, rebuild)

    def _one_by_one(self, samples: Samples, rebuild: Rebuild) -> Found:
        """By autograd."""
        found, losses, reached = one_by_one(self._objective, self._parameters, samples, rebuild)
        self._reached |= reached
        return found, losses

    @torch.no_grad()  # or the gradients would keep a graph to the parameters that are not differentiated
    def _vectorised(self, samples: Samples, rebuild: Rebuild) -> Found:
        """By `vmap(grad)`."""

        def objective(values: Gradients, *sample: Tensor) -> Tensor:
            named = {name: values[key] for key, names in self._names.items() for name in names}
            batch = rebuild([leaf.unsqueeze(0) for leaf in sample])
            loss: Tensor = functional_call(self._objective, named, (batch,), tie_weights=False)
            return loss

        values = {key: parameter.detach() for key, parameter in self._parameters.items()}
        in_dims = (None, *(0 for _ in samples))
        with loops_allowed():
            found, losses = vmap(grad_and_value(objective), in_dims, randomness="different")(values, *samples)
        return {key: at_least_float32(gradient) for key, gradient in found.items()}, losses

    def _stop_vectorising(self, reason: str) -> None:
        self._vectorise = False
        self._chunk = 1
        warnings.warn(
            f"Per-sample gradients of this model cannot be vectorised ({reason}); one sample is taken at a time, "
            "which is right but slow. form='corrected' needs no per-sample gradients.",
            stacklevel=2,
        )

    def _agree(self, exact: Gradients, fast: Gradients) -> bool:
        rounding = max(torch.finfo(parameter.dtype).eps for parameter in self._parameters.values())
        return agreeing(exact, fast, rounding) == set(exact)


def one_by_one(
    objective: Objective, parameters: Mapping[Key, nn.Parameter], samples: Samples, rebuild: Rebuild
) -> tuple[Gradients, Tensor, set[Key]]:
    """Gradients `[samples, ...]` and losses by autograd, and the parameters that these losses depend on."""
    found, losses, reached = [], [], set[Key]()
    for i in range(len(samples[0])):
        loss = objective(rebuild([leaf[i : i + 1] for leaf in samples]))
        gradient, of_this = gradients(loss, parameters)
        reached |= of_this
        found.append(gradient)
        losses.append(loss.detach())
    return {key: torch.stack([g[key] for g in found]) for key in parameters}, torch.stack(losses), reached


def agreeing(exact: Gradients, fast: Gradients, rounding: float) -> set[Key]:
    """The parameters whose gradients are equal up to what the order of summation makes of them."""
    norms = {key: float(torch.linalg.vector_norm(gradient)) for key, gradient in exact.items()}
    if not all(map(isfinite, norms.values())):
        return set(exact)  # nothing to compare; such a batch is refused as a whole
    largest = max(norms.values(), default=0.0)
    return {
        key
        for key, norm in norms.items()
        if key in fast
        and float(torch.linalg.vector_norm(fast[key] - exact[key])) <= rounding**0.5 * norm + 10 * rounding * largest
    }


def _names_of(objective: nn.Module, parameters: Mapping[Key, nn.Parameter]) -> dict[Key, list[str]]:
    """Every place where a parameter is registered, once: a module may be reached under several names."""
    keys = {id(parameter): key for key, parameter in parameters.items()}
    names: dict[Key, list[str]] = {key: [] for key in parameters}
    for prefix, module in objective.named_modules():  # names every module once
        for name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            if id(parameter) in keys:
                names[keys[id(parameter)]].append(name)
    return names
