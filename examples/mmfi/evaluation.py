"""What is measured after an epoch, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from examples.measures import contributions, error_sums, mean_errors, pose_pairs, spread
from examples.mmfi import processes
from examples.mmfi.batches import Placed, evenly, part_size
from examples.mmfi.dataset import PoseFrames, frame_loader
from examples.mmfi.models import PoseModel
from examples.mmfi.precision import batch_step
from examples.mmfi.settings import Settings

SAMPLE_POSES = 4


class Evaluation:
    """Measures of a model on some frames, the same on every process.

    Attributes:
        measured: Batches of some of the frames, all of them in every process.
    """

    def __init__(self, frames: PoseFrames, settings: Settings, device: torch.device) -> None:
        """Measure on frames that are not trained on."""
        self._frames, self._device = frames, device
        size = part_size(settings)
        self._step = batch_step(device, settings.precision)
        measured = evenly(range(len(frames)), settings.measured_frames)
        self.measured = self._loader(measured, size)
        self._measured_share = self._loader(_dealt(measured), size)
        self._share = self._loader(_dealt(range(len(frames))), size)

    def errors(self, model: PoseModel) -> dict[str, float]:
        """MPJPE and PA-MPJPE over all frames, in mm; every process predicts its share."""
        sums: Tensor = error_sums(model, self._share, self._step).to(self._device)
        return mean_errors(processes.summed(sums))

    def contributions(self, model: PoseModel) -> dict[str, dict[str, float]]:
        """Contribution by modality under each of `measures.PROFITS`, which the library puts together."""
        return contributions(model, model.encoders, self._measured_share, self._step)

    def spread(self, model: PoseModel) -> dict[str, float]:
        """Standard deviation, in mm, of predictions from one modality alone; see `measures.spread`."""
        return spread(model, model.encoders, self._measured_share, self._step)

    def poses(self, model: PoseModel) -> dict[str, Any]:
        """True and predicted poses of a few frames, far apart, in whole mm."""
        (batch,) = self._loader(evenly(range(len(self._frames)), SAMPLE_POSES), SAMPLE_POSES)
        return pose_pairs(model, batch, self._step)

    def _loader(self, chosen: Sequence[int], batch_size: int) -> Placed:
        return Placed(frame_loader(self._frames, batch_size, sampler=chosen), self._device)


def _dealt(frames: Sequence[int]) -> Sequence[int]:
    """This process's share of some frames; all of them where there is not one for every process."""
    return frames[processes.rank() :: processes.count()] if len(frames) >= processes.count() else frames
