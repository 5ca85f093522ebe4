"""Record what the encoders put out in one run of a model, and run the rest of the model again without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.nested import copied, leaves_of, map_tensors

Feature: TypeAlias = Any
"""A tensor, or tuples, lists, dicts and dataclasses of tensors."""


class Features:
    """The features of every modality in one run of a model.

    Args:
        encoders: One module per modality; containers without a forward of their own, such as `nn.ModuleList`, stand
            for the modules in them.
        keep_gradient: Whether what is predicted from the features can be differentiated by the encoders.

    Raises:
        ValueError: If a module of one encoder is called inside another, so that their calls cannot be told apart.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], *, keep_gradient: bool = False) -> None:
        """See the class."""
        self._copied = _cloned if keep_gradient else copied
        self._modules = {modality: _callable_parts(encoder) for modality, encoder in encoders.items()}
        self._refuse_nested()
        self._outputs: dict[nn.Module, list[Feature]] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the output of every call of every encoder while the model runs.

        Raises:
            RuntimeError: If an encoder did not run.
            TypeError: If an encoder put out something that holds no tensor, or that hides tensors.
        """
        self._outputs = {module: [] for modules in self._modules.values() for module in modules}

        def record(module: nn.Module, inputs: object, output: Feature) -> None:  # noqa: ARG001
            self._outputs[module].append(self._copied(output))  # the model may go on to change its output in place

        with ExitStack() as stack:
            for module in self._outputs:
                stack.callback(module.register_forward_hook(record).remove)
            yield
        for modality, modules in self._modules.items():
            self._check(modality, [output for module in modules for output in self._outputs[module]])

    @contextmanager
    def replayed(self, coalition: Collection[str]) -> Iterator[None]:
        """Let every call of an encoder return its recorded feature, zeroed for modalities outside the coalition."""
        with ExitStack() as stack:
            for modality, modules in self._modules.items():
                take = self._copied if modality in coalition else zeroed
                for module in modules:
                    stack.enter_context(_replaced(module, modality, self._outputs[module], take))
            yield

    @contextmanager
    def only(self, coalition: Collection[str]) -> Iterator[None]:
        """Let encoders outside the coalition put out zeros, whatever they are given; all others run as they are."""
        with ExitStack() as stack:
            for modality, modules in self._modules.items():
                for module in modules if modality not in coalition else []:
                    stack.callback(module.register_forward_hook(lambda _, __, output: zeroed(output)).remove)
            yield

    def of(self, coalition: Collection[str]) -> dict[str, Feature]:
        """The feature by modality, zeroed outside the coalition; a tuple where an encoder ran more than once."""
        features = {}
        for modality, modules in self._modules.items():
            take = self._copied if modality in coalition else zeroed
            calls = tuple(take(output) for module in modules for output in self._outputs[module])
            features[modality] = calls[0] if len(calls) == 1 else calls
        return features

    def size(self) -> int:
        """Bytes of all features together."""
        leaves = leaves_of(list(self._outputs.values()))
        return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))

    def stacked(self, members: Tensor, samples: int) -> Features:
        """Features of several coalitions, one after the other along the batch dimension.

        Args:
            members: Of the coalitions, boolean, `[coalitions, M]`, modalities in the order of the encoders.
            samples: In the batch.

        Raises:
            ValueError: If a feature has numbers that are not by sample, `[batch, ...]`.
        """
        together = copy.copy(self)
        together._outputs = {
            module: [map_tensors(partial(_stacked, present, samples), output) for output in self._outputs[module]]
            for present, modules in zip(members.T, self._modules.values(), strict=True)
            for module in modules
        }
        return together

    def _refuse_nested(self) -> None:
        owners: dict[nn.Module, str] = {}
        parts = [(modality, part) for modality, modules in self._modules.items() for part in modules]
        for modality, part in parts:
            if part in owners:
                raise ValueError(_nested(owners[part], modality))
            owners[part] = modality
        for modality, part in parts:
            for inner in part.modules():
                if inner is not part and inner in owners:
                    raise ValueError(_nested(modality, owners[inner]))

    @staticmethod
    def _check(modality: str, outputs: list[Feature]) -> None:
        if not outputs:
            raise RuntimeError(
                f"Every encoder should run when the model predicts. The encoder of `{modality}` was not called. "
                "Name the module whose forward() the model calls."
            )
        leaves = leaves_of(outputs)
        hidden = {
            type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor | bool | int | float | str | None)
        }
        if hidden or not any(isinstance(leaf, Tensor) and _is_numeric(leaf) for leaf in leaves):
            got = ", ".join(sorted(hidden)) or "no tensor of real or complex numbers"
            raise TypeError(
                "A feature should be a tensor or nested tuples, lists, dicts and dataclasses of tensors. "
                f"The encoder of `{modality}` put out {got}. Name a module inside it that puts out tensors."
            )


def zeroed(feature: Feature) -> Feature:
    """The feature with zeros for its numbers; masks and indices, which are boolean or integer, stay."""
    return map_tensors(lambda part: torch.zeros_like(part) if _is_numeric(part) else part.clone(), feature)


def _stacked(present: Tensor, samples: int, part: Tensor) -> Tensor:
    """A feature's part once for every coalition, zeroed where its modality is absent; masks and indices stay."""
    by_sample = part.dim() > 0 and len(part) == samples
    if not _is_numeric(part):
        return part.repeat(len(present), *[1] * (part.dim() - 1)) if by_sample else part.clone()
    if not by_sample:
        raise ValueError(f"A feature should be by sample to be stacked, [{samples}, ...]. Got {tuple(part.shape)}.")
    present = present.to(part.device).reshape(-1, *[1] * part.dim())
    return torch.where(present, part, part.new_zeros(())).flatten(0, 1)


def _is_numeric(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def numbers_of(feature: Feature) -> list[Tensor]:
    """The tensors of real or complex numbers in a feature; masks and indices are left out."""
    return [leaf for leaf in leaves_of(feature) if isinstance(leaf, Tensor) and _is_numeric(leaf)]


def pooled(feature: Feature, samples: int) -> Tensor:
    """The numbers of a feature as one row per sample, `[samples, width]`, differentiable.

    Tokens `[samples, tokens, width]` are averaged over the tokens, maps `[samples, channels, ...]` of more dimensions
    over all but the channels; the parts of a nested feature are put side by side. Masks, indices and tensors that do
    not run over the samples, such as the states of a recurrent layer, are left out.

    Raises:
        TypeError: If nothing is left.
    """
    rows = [_row(leaf) for leaf in numbers_of(feature) if leaf.dim() and len(leaf) == samples]
    if not rows:
        raise TypeError(
            f"A feature should hold numbers for each of the {samples} samples, [batch, ...]. Found none. "
            "Name a module inside the encoder that puts out such a tensor."
        )
    return torch.cat(rows, dim=1)


def _row(leaf: Tensor) -> Tensor:
    if leaf.dim() == 3:
        return leaf.mean(1)
    return leaf.flatten(2).mean(2) if leaf.dim() > 3 else leaf.reshape(len(leaf), -1)


def _cloned(feature: Feature) -> Feature:
    return map_tensors(torch.clone, feature)


def _nested(outer: str, inner: str) -> str:
    return (
        "Encoders should not contain each other's modules. "
        f"The encoder of `{outer}` holds a module that is named for `{inner}`, too. "
        "Name modules that the model calls one after the other."
    )


def _callable_parts(encoder: nn.Module) -> list[nn.Module]:
    """The modules that a model calls: containers without a forward of their own stand for their children."""
    bare = type(encoder).forward is nn.Module.forward and "forward" not in vars(encoder)
    if bare and isinstance(encoder, nn.ModuleList | nn.ModuleDict):
        return [part for child in encoder.children() for part in _callable_parts(child)]
    return [encoder]


@contextmanager
def _replaced(
    module: nn.Module, modality: str, outputs: list[Feature], take: Callable[[Feature], Feature]
) -> Iterator[None]:
    """Let calls of the module return `take` of the recorded outputs, in order, instead of running it."""
    calls = 0

    def forward(*args: object, **kwargs: object) -> Feature:  # noqa: ARG001
        nonlocal calls
        calls += 1
        if calls > len(outputs):
            raise _unequal_calls(modality, len(outputs), calls)
        return take(outputs[calls - 1])

    def override(module: nn.Module, inputs: object, output: Feature) -> Feature:  # noqa: ARG001
        return take(outputs[calls - 1])  # the recorded feature is what the user's own hooks left of it

    own = vars(module).get("forward")
    hook = module.register_forward_hook(override) if module._forward_hooks else None
    module.forward = forward
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
        del module.forward
        if own is not None:
            module.forward = own
    if calls < len(outputs):
        raise _unequal_calls(modality, len(outputs), calls)


def _unequal_calls(modality: str, recorded: int, calls: int) -> RuntimeError:
    return RuntimeError(
        "An encoder should be called equally often whichever modalities are present. "
        f"The encoder of `{modality}` was called {recorded} times with all of them, and {calls} times or more "
        "without some. Give the part after the encoders as head=."
    )
