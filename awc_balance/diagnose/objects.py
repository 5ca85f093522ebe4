"""Finding the user's objects by name: functions in modules, encoders in a model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from awc_balance.encoders import check_encoders, check_model


class UsageError(ValueError):
    """What the user of the command should change; shown without a traceback."""


def load_object(option: str, address: str) -> Any:  # noqa: ANN401 - whatever the user names
    """What `package.module:name` stands for; `name` may have dots.

    Raises:
        UsageError: If the address is of another form, or there is no such module or name.
    """
    module_name, _, name = address.partition(":")
    if not module_name or not name:
        raise UsageError(f"`{option}` should be package.module:name. Got {address!r}. Put a colon before the name.")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the user's own module misses is for the user to see in full.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"`{option}` should name a module that can be imported. There is no {error.name!r}. "
            "Run the command in the folder that holds it, or set PYTHONPATH."
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"`{option}` should name something in {module_name}. It has no {name!r}. Check the spelling."
            )
        found = getattr(found, part)
    return found


def load_function(option: str, address: str) -> Callable[..., Any]:
    """A function by its address.

    Raises:
        UsageError: If it cannot be called, and as `load_object`.
    """
    found = load_object(option, address)
    if not callable(found):
        raise UsageError(f"`{option}` should be a function. Got {type(found).__name__}. Name one.")
    function: Callable[..., Any] = found
    return function


def load_batches(option: str, address: str) -> Iterable[Any]:
    """A loader by its address, or what a function at that address returns.

    Raises:
        UsageError: If it cannot be iterated over, and as `load_object`.
    """
    found = load_object(option, address)
    if not isinstance(found, Iterable) and callable(found):
        found = found()
    if not isinstance(found, Iterable) and not hasattr(found, "__getitem__"):
        raise UsageError(
            f"`{option}` should be a loader, or a function that returns one. Got {type(found).__name__}. "
            "Return a DataLoader or a list of batches."
        )
    batches: Iterable[Any] = found
    return batches


def load_model(option: str, address: str) -> tuple[nn.Module, Mapping[str, nn.Module] | None]:
    """A model by its address, or what a function there returns: the model, or the model and its encoders.

    Raises:
        UsageError: If it is none, and as `load_object`.
    """
    found = load_object(option, address)
    if not isinstance(found, nn.Module) and callable(found):
        found = found()
    model, encoders = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"`{option}` should be a model, or a function that returns one. Got {type(model).__name__}. "
            "Return an nn.Module, or a pair (model, encoders)."
        )
    try:
        return check_model(model), encoders
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def find_encoders(model: nn.Module, given: Mapping[str, nn.Module] | None, paths: str | None) -> dict[str, nn.Module]:
    """The encoders that an option names, else those given with the model, else those in `model.encoders`.

    Args:
        model: Where to look.
        given: Encoders that came with the model.
        paths: `encoders` (an attribute that holds several by modality), or `a.rgb,a.wifi` (one each, named by its
            last part), or `camera=a.rgb,radio=a.wifi`.

    Raises:
        UsageError: If one is not found, or none is named and there is no `model.encoders`.
    """
    if paths is None:
        paths = "encoders" if given is None else ""
        if given is None and not isinstance(getattr(model, "encoders", None), Mapping | nn.ModuleDict):
            raise UsageError(
                "`--encoders` should say which parts of the model encode the modalities. Got nothing, and the model "
                f"has no mapping `encoders`. Name some of its parts: {_parts(model)}."
            )
    encoders = given if given is not None and not paths else _named(model, paths)
    try:
        return check_encoders(encoders, model)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _named(model: nn.Module, paths: str) -> Mapping[str, nn.Module] | nn.ModuleDict:
    items = [part.strip() for part in paths.split(",")]
    if len(items) == 1 and "=" not in items[0]:
        found = _attribute(model, items[0])
        if isinstance(found, Mapping | nn.ModuleDict):
            return found
    named = [_name_and_path(item) for item in items]
    if len({name for name, _ in named}) < len(named):
        named = [(item.partition("=")[0], path) for item, (_, path) in zip(items, named, strict=True)]
    if len({name for name, _ in named}) < len(named):
        raise UsageError(f"`--encoders` should name each modality once. Got {paths!r}. Give other names, as in a=x.y.")
    return {name: _attribute(model, path) for name, path in named}


def _name_and_path(item: str) -> tuple[str, str]:
    name, given, path = item.partition("=")
    return (name.strip(), path.strip()) if given else (item.rpartition(".")[2], item)


def _attribute(model: nn.Module, path: str) -> Any:  # noqa: ANN401 - checked by `check_encoders`
    found: Any = model
    for part in path.split("."):
        if isinstance(found, Mapping | nn.ModuleDict) and part in found:
            found = found[part]
        elif part and hasattr(found, part):
            found = getattr(found, part)
        else:
            raise UsageError(
                f"`--encoders` should name parts of the model. There is no {path!r}. Name some of: {_parts(model)}."
            )
    return found


def _parts(model: nn.Module) -> str:
    """The parts of a model down to the second level."""
    return ", ".join(name for name, _ in model.named_modules() if name and name.count(".") < 2) or "it has none"
