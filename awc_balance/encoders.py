"""Encoders by modality: what a valid mapping is, and the parameters it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Encoders: TypeAlias = Mapping[str, nn.Module] | nn.ModuleDict

Parameters: TypeAlias = dict[str, dict[str, nn.Parameter]]
"""By modality and by name inside the encoder."""

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of `torch.compile` and (distributed) data parallelism."""
    for wrapped in ("_orig_mod", "module"):
        inner = getattr(module, wrapped, None)
        if isinstance(inner, nn.Module) and (wrapped == "_orig_mod" or isinstance(module, _PARALLEL)):
            return unwrap(inner)
    return module


def check_model(model: nn.Module) -> nn.Module:
    """The unwrapped model.

    Raises:
        TypeError: If it is not an `nn.Module`, or parts of it are TorchScript, which cannot be looked into.
        ValueError: If it has parameters that are made only when it first runs.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` should be an nn.Module. Got {type(model).__name__}. Pass the module itself.")
    scripted = [
        name or "the model" for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)
    ]
    if scripted:
        raise TypeError(
            f"The model should be plain modules. Scripted are {', '.join(scripted)}. Use torch.compile instead."
        )
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"The model should have its parameters. Not yet made are {', '.join(lazy)}. Run a batch first."
        )
    return unwrap(model)


def check_encoders(encoders: Encoders, model: nn.Module | None = None) -> dict[str, nn.Module]:
    """The encoders by modality, unwrapped, after checking that they can be told apart.

    Args:
        encoders: One module per modality, in a mapping or an `nn.ModuleDict`. Several modules of one modality may be
            given as an `nn.ModuleList`, bare parameters as an `nn.ParameterList`.
        model: If given, every encoder has to be a part of it.

    Raises:
        TypeError: If `encoders` is not a mapping from `str` to `nn.Module`.
        ValueError: If it is empty, if two modalities share a module or a parameter, or if an encoder is not a
            part of the model.
    """
    if not isinstance(encoders, Mapping | nn.ModuleDict):
        raise TypeError(
            "`encoders` should be a mapping from modality to module. "
            f"Got {type(encoders).__name__}. Pass a mapping such as {{'rgb': model.rgb}}."
        )
    encoders = dict(encoders.items())
    if not encoders:
        raise ValueError(
            "`encoders` should name at least one modality. Got `{}`. Pass a mapping such as {'rgb': model.rgb}."
        )
    for modality, encoder in encoders.items():
        if not isinstance(modality, str) or not modality:
            raise TypeError(f"A modality should be a non-empty str. Got {modality!r}. Name it, as in 'rgb'.")
        if not isinstance(encoder, nn.Module):
            raise TypeError(
                f"The encoder of `{modality}` should be an nn.Module. Got {type(encoder).__name__}. "
                "Pass the module itself, or an nn.ModuleList of several."
            )
    unwrapped = {modality: unwrap(encoder) for modality, encoder in encoders.items()}
    _refuse_shared(unwrapped)
    if model is not None:
        _refuse_foreign(unwrapped, model)
    return unwrapped


def parameters_by_modality(encoders: Mapping[str, nn.Module]) -> Parameters:
    """All parameters of each encoder, frozen ones too, by their name inside the encoder."""
    return {
        modality: {
            # torch.compile of a layer puts its prefix into the middle of a name.
            name.replace("_orig_mod.", ""): parameter
            for name, parameter in encoder.named_parameters()
        }
        for modality, encoder in encoders.items()
    }


def in_words(keys: Iterable[tuple[str, str]], most: int = 3) -> str:
    """Parameters of encoders for an error, by modality.

    Args:
        keys: Modality and name of each.
        most: How many of a modality to name.

    Example:
        >>> in_words([("rgb", "0.weight"), ("rgb", "0.bias"), ("wifi", "weight")])
        '`rgb` (0.weight, 0.bias), `wifi` (weight)'
    """
    names: dict[str, list[str]] = {}
    for modality, name in keys:
        names.setdefault(modality, []).append(name)
    parts = {
        modality: ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "")
        for modality, some in names.items()
    }
    return ", ".join(f"`{modality}` ({part})" for modality, part in parts.items())


def _refuse_shared(encoders: Mapping[str, nn.Module]) -> None:
    owners: dict[int, tuple[str, str]] = {}
    shared = []
    for modality, encoder in encoders.items():
        parts = {id(parameter): name for name, parameter in encoder.named_parameters()}
        for part, name in (parts or {id(encoder): "the encoder itself"}).items():
            if part in owners:
                other, other_name = owners[part]
                shared.append(f"`{other}` ({other_name}) and `{modality}` ({name})")
            owners[part] = (modality, name)
    if shared:
        raise ValueError(
            f"Encoders should not share parameters. Shared by {', '.join(shared)}. "
            "Give each modality its own encoder, or name both as one modality."
        )


def _refuse_foreign(encoders: Mapping[str, nn.Module], model: nn.Module) -> None:
    known = {id(part) for part in (*model.modules(), *model.parameters())}
    for modality, encoder in encoders.items():
        parts: list[tuple[str, object]] = (
            [*encoder.named_parameters()] or [*encoder.named_children()] or [("", encoder)]
        )
        foreign = [name or type(encoder).__name__ for name, part in parts if id(part) not in known]
        if foreign:
            raise ValueError(
                f"The encoder of `{modality}` should be a part of the model. "
                f"Not found in {type(model).__name__}: {', '.join(foreign)}. "
                "Pass the module that the model itself calls, not a copy of it."
            )
