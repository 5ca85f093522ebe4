"""One pass of a model over a batch whose features are kept, and predictions of coalitions from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from awc_balance.balancers.rows import Pool, row_by, row_of
from awc_balance.batches import Step, check_prediction, default_step, device_of, predict, to_device
from awc_balance.contributions.features import Features
from awc_balance.preserve import Mode, differentiable_rnns, measuring, uncompiled
from awc_balance.threads import only_thread


class Run:
    """A pass over a batch, made at once; encoders run here and never again.

    Args:
        model: What is called; it may be a wrapper of `inner`.
        inner: The model itself.
        encoders: One module per modality, parts of `inner`.
        step: How to read a batch.
        batch: What it reads.
        keep_gradient: Whether further predictions and pooled features can be differentiated by the encoders.

    Raises:
        RuntimeError: If an encoder does not run.
        TypeError: If the prediction is not a tensor, or a feature holds none.
    """

    def __init__(
        self,
        model: nn.Module,
        inner: nn.Module,
        encoders: Mapping[str, nn.Module],
        step: Step,
        batch: Any,  # noqa: ANN401
        *,
        keep_gradient: bool = False,
    ) -> None:
        """See the class."""
        if step is default_step:
            batch = to_device(batch, device_of(inner))  # once, not once per coalition
        self._again = (inner, step, batch)
        self.modalities = list(encoders)
        self._encoders = encoders
        self.features = Features(encoders, keep_gradient=keep_gradient)
        with only_thread(inner), uncompiled(), self.features.recorded():
            prediction, self.target = predict(step, model, batch)
        self.prediction: Tensor = check_prediction(prediction)

    @property
    def samples(self) -> int:
        """How many the batch holds."""
        return len(self.prediction)

    def predictions(self, coalitions: Iterable[Collection[str]], mode: Mode = "eval") -> list[Tensor]:
        """What the model predicts from the features of each coalition, those of the others being zeros.

        Args:
            coalitions: Modalities kept.
            mode: Whether the part after the encoders runs in evaluation mode or as it is set. Either way its buffers
                and the random state are as before.
        """
        inner, step, batch = self._again
        found = []
        with measuring(inner, mode=mode), differentiable_rnns(inner):
            for coalition in coalitions:
                with self.features.replayed(coalition):
                    found.append(check_prediction(predict(step, inner, batch)[0]))
        return found

    def alone(self) -> dict[str, Tensor]:
        """What the model predicts from each modality alone."""
        return dict(zip(self.modalities, self.predictions([{m} for m in self.modalities]), strict=True))

    def rows(self, pool: Pool | None = None) -> dict[str, Tensor]:
        """The feature of each modality as one row per sample, `[batch, width]`.

        Args:
            pool: How to make rows of the features of some modalities.
        """
        rows = {}
        for modality, feature in self.features.of(self.modalities).items():
            if pool and modality in pool:
                rows[modality] = row_by(pool[modality], modality, feature, self.samples)
            else:
                rows[modality] = row_of(self._encoders[modality], feature, self.samples)
        return rows
