"""Where a sensor stands and which way its axes point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmfi.simulator.common import Array

_AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}


@dataclass(frozen=True)
class Mount:
    """A sensor's coordinates: the signed camera axis behind each of its columns, plus an offset in metres.

    Raises:
        ValueError: If `axes` are not three signed camera axes, each used once.
    """

    axes: tuple[str, str, str]
    offset: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the axes."""
        if sorted(axis.removeprefix("-") for axis in self.axes) != ["x", "y", "z"]:
            raise ValueError(
                f"`axes` should name x, y and z once each, with or without a minus. Got `{self.axes}`. "
                "Pass for example ('z', '-x', '-y')."
            )

    @property
    def matrix(self) -> Array:
        """Rotation (or mirroring) from camera to sensor axes, `[3, 3]`."""
        return np.array([_AXES[axis] for axis in self.axes], dtype=np.float64)

    @property
    def position(self) -> Array:
        """The sensor's origin in camera coordinates, `[3]`."""
        return np.asarray(-self.matrix.T @ np.array(self.offset))

    def to_sensor(self, points: Array) -> Array:
        """Points `[..., 3]` from camera to sensor coordinates."""
        return np.asarray(points @ self.matrix.T + np.array(self.offset))

    def to_camera(self, points: Array) -> Array:
        """Points `[..., 3]` from sensor to camera coordinates."""
        return np.asarray((points - np.array(self.offset)) @ self.matrix)

    def moved(self, shift: Array) -> Mount:
        """The same axes with another offset."""
        x, y, z = (float(value) for value in np.add(self.offset, shift))
        return Mount(self.axes, (x, y, z))
