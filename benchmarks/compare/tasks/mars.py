"""MARS: poses from the geometry, the Doppler and the intensity of the points of a mmWave radar."""

from __future__ import annotations

from torch import Tensor

from benchmarks.compare.task import Task
from examples import data_folder
from examples.mars.data import LAYOUT, load
from examples.mars.model import PoseModel
from examples.pose_metrics import joint_errors, mpjpe


def task(data: str | None = None) -> Task:
    """The recording and the model of `examples/mars`."""
    splits = load(data_folder.find("mars", LAYOUT, data))
    return Task(
        "MARS, poses from radar", "MPJPE, mm", splits, PoseModel, mpjpe, millimetres, search_seeds=1, feature=64
    )


def millimetres(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean joint error of each sample."""
    return 1000 * joint_errors(prediction, target).mean(1)
