"""Reading a batch: the prediction and target of it, its size, its device, its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from awc_balance.checks import check_callable
from awc_balance.nested import leaves_of, map_tensors

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


def check_prediction(prediction: Any) -> Tensor:  # noqa: ANN401
    """The prediction, if it is one tensor.

    Raises:
        TypeError: If it is anything else, or has no sample.
    """
    if not isinstance(prediction, Tensor) or prediction.dim() == 0 or len(prediction) == 0:
        got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
        raise TypeError(
            f"A prediction should be a tensor of at least one sample, [batch, ...]. Got {got}. "
            "Let `step` return the tensor to be compared with the target; mind squeeze() on a batch of one."
        )
    return prediction


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter; the CPU for a model without any."""
    for parameter in model.parameters():
        return parameter.device
    return torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:  # noqa: ANN401
    """The batch with every tensor in it on `device`."""
    return map_tensors(lambda tensor: tensor.to(device), batch)


def sample_count(prediction: Any, target: Any, batch: Any) -> int:  # noqa: ANN401
    """The number of samples: the first dimension of the prediction, else of the target, else of the whole batch.

    Raises:
        ValueError: If none of them has one, if it is empty, or if the tensors of the batch disagree.
    """
    for value in (prediction, target, batch):
        sizes = {len(leaf) for leaf in leaves_of(value) if isinstance(leaf, Tensor) and leaf.dim() > 0}
        if sizes:
            break
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "A batch should hold at least one sample, along the first dimension of all its tensors. "
            f"Got the lengths {sorted(sizes) or 'of no tensor'}. Let `step` return a prediction [batch, ...]."
        )
    return sizes.pop()


def split_samples(batch: Any) -> tuple[int, list[Tensor], Callable[[list[Tensor]], Any]]:  # noqa: ANN401
    """Take a batch apart along its samples.

    Returns:
        The number of samples, the tensors that run over them, and a function that puts slices of those tensors
        back into the structure of the batch. Everything else in the batch is common to all samples.

    Raises:
        ValueError: If the tensors disagree on the number of samples.
    """
    samples = [leaf for leaf in leaves_of(batch) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    sizes = {len(leaf) for leaf in samples}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in samples) or "no tensor"
        raise ValueError(
            "To take samples one by one, every tensor of a batch should have the samples along its first "
            f"dimension. Got the shapes {shapes}. Use form='corrected', which needs whole batches only."
        )

    def rebuild(slices: list[Tensor]) -> Any:  # noqa: ANN401
        following = iter(slices)
        return map_tensors(lambda tensor: next(following) if tensor.dim() > 0 else tensor, batch)

    return sizes.pop(), samples, rebuild


def iterate(loader: Iterable[Any], progress: Progress | None = None) -> Iterator[Any]:
    """The batches of a loader, seen through a progress bar such as `tqdm.tqdm` if one is given.

    Raises:
        TypeError: If it cannot be iterated over, is a data set of samples, or `progress` cannot be called.
        ValueError: If the loader yields nothing.
    """
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise TypeError(f"`loader` should be iterable. Got {type(loader).__name__}. Pass a DataLoader.")
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise TypeError(
            f"`loader` should yield batches. Got {type(loader).__name__}, a data set, which yields samples. Pass "
            "DataLoader(dataset, batch_size=...); batch_size=None if it yields batches already."
        )
    if progress is not None:
        loader = check_callable("progress", progress, "Pass a wrapper such as tqdm.tqdm.")(loader)
    empty = True
    for batch in loader:
        empty = False
        yield batch
    if empty:
        raise ValueError(
            "`loader` should yield at least one batch. Got none. "
            "An iterator can be read only once: pass the DataLoader itself, and check drop_last."
        )


def refuse_iterator(name: str, loader: object) -> None:
    """Refuse what can be read only once where it is read again and again; what has a length can be read again.

    Raises:
        ValueError: If the loader is an iterator.
    """
    if isinstance(loader, Iterator) and not isinstance(loader, Sized):
        raise ValueError(
            f"`{name}` should be a loader, which is read more than once. Got {type(loader).__name__}, which can be "
            "read once. Pass the DataLoader itself, or a list."
        )


def refuse_same(held_out: object, training: object) -> None:
    """Refuse training data where data are asked for that the model is not trained on.

    Raises:
        ValueError: If both are one object.
    """
    if held_out is training:
        raise ValueError(
            f"Held-out data should be some that the model is not trained on. Got one {type(training).__name__} for "
            "both. Pass a part of the training data that is left out of the training."
        )
