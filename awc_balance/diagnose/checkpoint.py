"""Loading a checkpoint into a model: where in the file its parameters are, and under which names."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awc_balance.diagnose.objects import UsageError

PREFIXES = ("", "module.", "model.", "module.model.", "model.module.")
"""Taken off before any other: `module.` is put before every name by data parallelism, `model.` by what holds the
model as `self.model`."""

_DEPTH = 3
_LISTED = 20


class Found(NamedTuple):
    """A state dict in a checkpoint."""

    key: str
    """Where it is, with dots; empty if it is the checkpoint itself."""
    prefix: str
    """What was taken off its names."""
    state: dict[str, Tensor]
    """By the model's own names."""
    aside: list[str]
    """Names without that prefix, which belong to something beside the model."""
    faults: list[str]
    """Why it does not fit; none if it does."""

    @property
    def place(self) -> str:
        """Where it is, with dots, down to the prefix."""
        return ".".join(filter(None, (self.key, self.prefix.rstrip("."))))


def load_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, *, trust: bool = False, key: str | None = None
) -> str:
    """Load the parameters and buffers that a checkpoint holds for this model.

    The state dict may be the checkpoint itself or an entry of it at any name, and its names may start with
    `module.`, `model.` or the name of whatever held the model, and contain `_orig_mod.`. The model is changed only if
    everything fits.

    Args:
        path: The file, written by `torch.save`.
        model: The model, changed in place.
        trust: Whether the file may run code while it is read, as a pickle does.
        key: Where in the checkpoint the state dict is, with dots between entries and before a prefix, if more than one
            fits.

    Returns:
        What was loaded, in words.

    Raises:
        UsageError: If the file cannot be read without trust, or nothing in it fits the model; with every name that
            is missing, unexpected, of another shape or not finite.
    """
    content = read_checkpoint(path, trust=trust)
    found = _choose(list(_candidates(content)), _own_state(model), str(path), key)
    names = {_plain(name): name for name in model.state_dict()}
    model.load_state_dict({names[name]: value for name, value in found.state.items()}, strict=False)
    what = f"entry {found.key!r}" if found.key else "the whole file"
    taken = f", without the prefix {found.prefix!r}" if found.prefix else ""
    aside = f"; left aside: {_few(found.aside)}" if found.aside else ""
    return f"{what}{taken}{aside}"


def read_checkpoint(path: str | os.PathLike[str], *, trust: bool = False) -> Any:  # noqa: ANN401 - any object
    """What `torch.save` wrote, on the CPU; no code of the file is run unless it is trusted.

    Raises:
        UsageError: If there is no such file, it is damaged, or it needs trust.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except FileNotFoundError as error:
        raise UsageError(f"`--checkpoint` should be a file. There is none at {path}. Check the path.") from error
    except pickle.UnpicklingError as error:
        if trust:
            raise _unreadable(path, error) from error
        raise UsageError(
            f"`--checkpoint` should hold tensors and plain values only. {path} holds more, or is damaged: reading it "
            "may run code. Save model.state_dict() alone; or pass --trust-checkpoint if you trust whoever made it."
        ) from error
    except Exception as error:  # torch raises a dozen unrelated kinds on damaged content
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> UsageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"`--checkpoint` should be a file that torch.save wrote. {path} does not read: {reason}. "
        "Check that it is whole; read other formats in the function that builds the model."
    )


def _candidates(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Tensor]]]:  # noqa: ANN401
    """All mappings from names to tensors in the checkpoint."""
    if isinstance(content, nn.Module):
        yield key, content.state_dict()
    elif isinstance(content, Mapping):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors and all(isinstance(name, str) for name in tensors):
            yield key, tensors
        if depth < _DEPTH:
            for name, value in content.items():
                yield from _candidates(value, f"{key}.{name}".lstrip("."), depth + 1)


def _choose(
    candidates: list[tuple[str, Mapping[str, Tensor]]], own: dict[str, Tensor], path: str, key: str | None
) -> Found:
    """The only candidate that fits.

    Raises:
        UsageError: If none fits, or more than one and the key does not decide.
    """
    found = [every for name, state in candidates for every in _fitted(name, state, own)]
    if key is not None:
        found = [candidate for candidate in found if key in (candidate.key, candidate.place)]
    fitting = [candidate for candidate in found if not candidate.faults]
    fitting = [candidate for candidate in fitting if candidate.prefix in PREFIXES] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"`--checkpoint` should hold one state dict of this model. {path} holds several: "
            f"{', '.join(candidate.place or 'the file itself' for candidate in fitting)}. Choose one with --key."
        )
    if not found:
        where = "" if key is None else f" at {key!r}"
        raise UsageError(
            f"`--checkpoint` should hold a state dict. {path} holds no names with tensors{where}. "
            "Save model.state_dict() with torch.save."
        )
    nearest = min(found, key=lambda candidate: len(candidate.faults))
    listed = "\n  ".join(nearest.faults[:_LISTED])
    more = f"\n  and {len(nearest.faults) - _LISTED} more" if len(nearest.faults) > _LISTED else ""
    raise UsageError(
        f"`--checkpoint` should fit the model. Nothing in {path} does; nearest is {nearest.key or 'the file itself'}:\n"
        f"  {listed}{more}\nBuild the model as it was when it was saved."
    )


def _fitted(key: str, state: Mapping[str, Tensor], own: dict[str, Tensor]) -> list[Found]:
    """The state dict under the model's names, by every prefix that leaves one of them."""
    plain = {_plain(name): value for name, value in state.items()}
    ends = [(name, name[at:]) for name in plain for at in _starts(name)]
    prefixes = {name.removesuffix(end) for name, end in ends if end in own} | {""}
    return [_without(key, plain, own, prefix) for prefix in sorted(prefixes)]


def _starts(name: str) -> list[int]:
    """Where the parts of a dotted name start."""
    return [0, *(at + 1 for at, character in enumerate(name) if character == ".")]


def _without(key: str, plain: dict[str, Tensor], own: dict[str, Tensor], prefix: str) -> Found:
    state = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
    aside = [name for name in plain if not name.startswith(prefix)]
    faults = [f"{name}: missing" for name in own if name not in state]
    faults += [f"{name}: unexpected" for name in state if name not in own]
    faults += [fault for name, value in state.items() if name in own and (fault := _fault(name, value, own[name]))]
    return Found(key, prefix, state, aside, faults)


def _fault(name: str, found: Tensor, own: Tensor) -> str:
    if found.shape != own.shape:
        return f"{name}: shape {tuple(found.shape)} in place of {tuple(own.shape)}"
    return "" if found.isfinite().all() else f"{name}: not finite"


def _own_state(model: nn.Module) -> dict[str, Tensor]:
    return {_plain(name): value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _plain(name: str) -> str:
    """A name without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
