"""Reading a batch: the prediction and target of it, its size, its device, its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.nested import leaves_of, map_tensors, tree_flatten, tree_unflatten

Step: TypeAlias = Callable[[nn.Module, Any], tuple[Any, Any]]
Progress: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]

STEP_REMEDY = "Pass a function step(model, batch) -> (prediction, target)."


def default_step(model: nn.Module, batch: Any) -> tuple[Any, Any]:  # noqa: ANN401 - a batch can be anything
    """Predict from a batch `(inputs, target)` by `model(inputs)`, on the device of the model's parameters.

    Raises:
        ValueError: If the batch is not such a pair.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        shape = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise ValueError(
            f"A batch should be a pair (inputs, target). Got a {type(batch).__name__}{shape}. "
            "Pass step=lambda model, batch: (prediction, target) to say how to read yours."
        )
    inputs, target = to_device(batch, device_of(model))
    return model(inputs), target


def predict(step: Step, model: nn.Module, batch: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """The prediction and target that `step` reads from a batch.

    Raises:
        TypeError: If `step` returns anything but a pair.
    """
    result = step(model, batch)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(
            f"`step` should return a pair (prediction, target). Got {type(result).__name__}. "
            "Return both, as in step=lambda model, batch: (model(batch['x']), batch['y'])."
        )
    return result[0], result[1]


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def to_device(batch: Any, device: torch.device) -> Any:  # noqa: ANN401
    """The batch with every tensor in it on `device`."""
    return map_tensors(lambda tensor: tensor.to(device), batch)


def sample_count(*values: Any) -> int:  # noqa: ANN401
    """The number of samples: the length of the first tensor in the first value that holds one.

    Raises:
        ValueError: If no value holds a tensor with a batch dimension, or if that dimension is empty.
    """
    for leaf in leaves_of(values):
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            if len(leaf) == 0:
                break
            return len(leaf)
    raise ValueError(
        "A batch should hold at least one sample. Found no tensor with a non-empty first dimension in the "
        "prediction, the target or the batch. Let `step` return tensors of shape [batch, ...]."
    )


def split_samples(batch: Any) -> tuple[int, list[Tensor], Callable[[list[Tensor]], Any]]:  # noqa: ANN401
    """Take a batch apart along its samples.

    Returns:
        The number of samples, the tensors that run over them, and a function that puts slices of those tensors
        back into the structure of the batch. Everything else in the batch is common to all samples.

    Raises:
        ValueError: If the tensors disagree on the number of samples.
    """
    leaves, structure = tree_flatten(batch)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    sizes = sorted({len(leaves[i]) for i in places})
    if len(sizes) != 1 or sizes[0] == 0:
        shapes = ", ".join(str(tuple(leaves[i].shape)) for i in places) or "no tensor"
        raise ValueError(
            "To take samples one by one, every tensor of a batch should have the samples along its first "
            f"dimension. Got the shapes {shapes}. Use form='corrected', which needs whole batches only."
        )

    def rebuild(slices: list[Tensor]) -> Any:  # noqa: ANN401
        filled = list(leaves)
        for place, part in zip(places, slices, strict=True):
            filled[place] = part
        return tree_unflatten(filled, structure)

    return sizes[0], [leaves[i] for i in places], rebuild


def iterate(loader: Iterable[Any], progress: Progress | None = None) -> Iterator[Any]:
    """The batches of a loader, seen through a progress bar such as `tqdm.tqdm` if one is given.

    Raises:
        TypeError: If it cannot be iterated over.
        ValueError: If the loader yields nothing.
    """
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise TypeError(f"`loader` should be iterable. Got {type(loader).__name__}. Pass a DataLoader.")
    empty = True
    for batch in loader if progress is None else progress(loader):
        empty = False
        yield batch
    if empty:
        raise ValueError(
            "`loader` should yield at least one batch. Got none. "
            "An iterator can be read only once: pass the DataLoader itself, and check drop_last."
        )
