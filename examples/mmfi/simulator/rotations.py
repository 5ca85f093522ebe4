"""Rotation matrices about the camera's axes (x right, y down, z forward), for arrays of angles."""

from __future__ import annotations

import numpy as np

from examples.mmfi.simulator.common import Array


def _about(first: int, second: int, angle: Array) -> Array:
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., range(3), range(3)] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -matrix[..., second, first]
    return matrix


def about_x(angle: Array) -> Array:
    """Turn from y towards z by `angle` radians: `[...]` to `[..., 3, 3]`."""
    return _about(1, 2, angle)


def about_y(angle: Array) -> Array:
    """Turn from z towards x by `angle` radians: `[...]` to `[..., 3, 3]`."""
    return _about(2, 0, angle)


def about_z(angle: Array) -> Array:
    """Turn from x towards y by `angle` radians: `[...]` to `[..., 3, 3]`."""
    return _about(0, 1, angle)
