"""Predictions of one batch from coalitions: one run of the model, then the part after its encoders again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from awc_balance.batches import Step, check_prediction, default_step, device_of, predict, to_device
from awc_balance.contributions.features import Feature, Features, pooled
from awc_balance.contributions.moments import rounding
from awc_balance.nested import copied, leaves_of, with_same_tensors
from awc_balance.preserve import RandomState
from awc_balance.threads import SharedSetting

T = TypeVar("T")

LEAST_TOGETHER = 8
"""Fewer coalitions than these are run one by one: running them together would save less than the check costs."""

ALL_CHECKED = 32
"""Up to so many of the first coalitions that run together also run one by one, to see whether that is the same."""

BYTES_TOGETHER = 32 * 2**20
"""Features and predictions of the coalitions that run together may take so much."""

_ROUNDINGS = 64
_MOST = 0.02


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_quietly = SharedSetting(_without_warnings)


class Measured(NamedTuple):
    """What belongs to the user."""

    model: nn.Module
    encoders: Mapping[str, nn.Module]
    step: Step
    head: Callable[[dict[str, Feature]], Tensor] | None


class BatchRun:
    """One run of the model on a batch, from which it is predicted again from any coalition.

    Args:
        measured: The model and how to run it.
        batch: What `step` reads; it is not written to.
        keep: Whether to give every run a copy of the batch of its own, because the user's code writes to it.
    """

    def __init__(self, measured: Measured, batch: Any, *, keep: bool = False) -> None:  # noqa: ANN401
        """See the class."""
        self._user = measured
        self._batch = to_device(batch, device_of(measured.model)) if measured.step is default_step else batch
        self._features = Features(measured.encoders)
        self._working = copied(self._batch)
        self._keep = keep
        self._start = RandomState()
        with self._features.recorded():
            self.prediction, self.target = predict(measured.step, measured.model, self._given())
        self._after = RandomState()
        self._keep = not self.intact() or keep

    def intact(self) -> bool:
        """Whether the user's code left the batch as it was, if the runs share one copy of it."""
        return self._keep or all(map(_equal, leaves_of(self._working), leaves_of(self._batch)))

    def size(self) -> int:
        """Bytes of a coalition's features and prediction, in float64 as they are measured."""
        return self._features.size() + 8 * check_prediction(self.prediction).numel()

    def rows(self) -> dict[str, Tensor]:
        """The features of every modality, pooled to one row per sample, in double precision on the CPU."""
        samples = len(self.prediction)
        features = self._features.of(self._user.encoders)
        pooled_rows = {modality: pooled(feature, samples).detach() for modality, feature in features.items()}
        return {
            modality: (torch.view_as_real(x).flatten(1) if x.is_complex() else x).double().cpu()
            for modality, x in pooled_rows.items()
        }

    def alone(self, present: Tensor) -> Tensor:
        """The prediction from one coalition.

        Args:
            present: Which modalities are in it, boolean, `[M]`.
        """
        coalition = [m for m, here in zip(self._user.encoders, present.tolist(), strict=True) if here]
        return check_prediction(self._predict(self._features, coalition))

    def together(self, members: Tensor) -> Tensor | None:
        """The predictions from several coalitions in one run, with their features stacked along the batch dimension.

        Args:
            members: Of the coalitions, boolean, `[coalitions, M]`.

        Returns:
            `[coalitions, batch, ...]`, to be checked: the user's code may mix samples. None if it fails, as where
            something else than features, of the size of the batch, reaches the prediction.
        """
        try:
            with _quietly():
                stacked = self._features.stacked(members, len(self.prediction))
                prediction = check_prediction(self._predict(stacked, list(self._user.encoders)))
        except Exception:  # whatever the user's code raises; one by one it will raise its own error, if it is one
            return None
        if len(prediction) != len(members) * len(self.prediction):
            return None
        return prediction.reshape(len(members), -1, *prediction.shape[1:])

    def finish(self) -> None:
        """Leave the random state as one run of the model leaves it."""
        self._after.restore()

    def rewind(self) -> None:
        """Put the random state back to what it was before the run."""
        self._start.restore()

    def _predict(self, features: Features, coalition: list[str]) -> Any:  # noqa: ANN401
        self._start.restore()  # whatever the user's code draws, it is the same for every coalition
        if self._user.head is not None:
            return self._user.head(features.of(coalition))
        with features.replayed(coalition):
            return predict(self._user.step, self._user.model, self._given())[0]

    def _given(self) -> Any:  # noqa: ANN401
        """The batch for one run: with tensors of its own, or with those of the one copy."""
        return copied(self._batch) if self._keep else with_same_tensors(self._working)


@dataclass
class Runner:
    """Runs coalitions together where that was seen to give the same as one by one.

    Args:
        together: Whether to try.
    """

    together: bool
    checked: bool = False
    """Whether coalitions have been run both ways."""

    def run(self, run: BatchRun, members: Tensor, number: int) -> Iterator[Tensor]:
        """Predictions `[some coalitions, batch, ...]` of the coalitions in turn.

        Args:
            run: Of the batch.
            members: Of the coalitions, `[coalitions, M]`.
            number: Of the batch; it decides which coalition is checked.
        """
        for rows in members.split(max(1, BYTES_TOGETHER // run.size())):
            yield self._some(run, rows, number)

    def _some(self, run: BatchRun, rows: Tensor, number: int) -> Tensor:
        if self.together and len(rows) >= LEAST_TOGETHER:
            found = run.together(rows)
            if found is not None and self._agrees(run, rows, found, number):
                return found
            self.together = False
        return torch.stack([run.alone(row) for row in rows])

    def _agrees(self, run: BatchRun, rows: Tensor, found: Tensor, number: int) -> bool:
        """Whether coalitions run one by one give the same: many of them the first time, then one each time."""
        count = 1 if self.checked else min(len(rows), ALL_CHECKED)
        picked = [(number + i * (len(rows) - 1) // max(count - 1, 1)) % len(rows) for i in range(count)]
        self.checked = all(same(found[i], run.alone(rows[i])) for i in picked)
        return self.checked


def run_batch(user: Measured, batch: Any, measure: Callable[[BatchRun], tuple[T, Tensor]]) -> T:  # noqa: ANN401
    """What is measured of one run of the model on a batch, and again of another where the model wrote to the batch.

    Args:
        user: The model and how to run it.
        batch: What `step` reads.
        measure: From a run to what is measured, and the prediction from all features.
    """
    for keep in (False, True):
        run = BatchRun(user, batch, keep=keep)
        found, again = measure(run)
        if run.intact():
            break
        run.rewind()
    run.finish()
    if user.head is None:
        _warn_of_other_paths(again, run.prediction)
    return found


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two predictions differ by no more than what other orders of summation make of them."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    tolerance = min(_ROUNDINGS * rounding(a), _MOST)
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax())


def _warn_of_other_paths(again: Tensor, whole: Tensor) -> None:
    """Warn if the model, run again with all of its own features, does not give its own prediction."""
    if again.shape == whole.shape:
        again, whole = (
            prediction.to(torch.promote_types(prediction.dtype, torch.float32)) for prediction in (again, whole)
        )
        difference, size = torch.linalg.vector_norm(again - whole), torch.linalg.vector_norm(whole)
        if not difference > 0.01 * size:  # also where they are not finite, which is refused elsewhere
            return
    warnings.warn(
        "Run again with all features, the model does not give its own prediction, so that contributions may be wrong. "
        "Something reaches the prediction beside the features: an input that an encoder changes in place, an "
        "attribute that an encoder sets. Give the part after the encoders as head=.",
        stacklevel=2,
    )


def _equal(a: object, b: object) -> bool:
    """Whether two leaves of a batch hold the same; what is no tensor is never shared between runs."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return True
    return a.layout == torch.strided and not a.is_nested and torch.equal(a, b)
