"""Read one file of MM-Fi: poses of a clip, or one frame of one modality, checked for shape and kind."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import Conventions

_NEXT_TO_NOTHING, _MANY = 1e-9, 0.05  # metres, and the share of such numbers that is suspicious
_LARGEST = 1e6  # no pixel, metre, millimetre or radar intensity of this data comes near


class DamagedFileError(ValueError):
    """A file that is empty, truncated, or not what its place in the layout calls for."""

    def __init__(self, path: Path, reason: str) -> None:
        """Name the file and what is wrong with it."""
        super().__init__(f"`{path}` should be a readable file of MM-Fi. It {reason}. Fetch it again.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedFileError], tuple[Path, str]]:
        """Rebuild from the two arguments when it comes back from another process."""
        return type(self), (self.path, self.reason)


def read_ground_truth(path: Path, conventions: Conventions) -> Array:
    """Read the poses of a clip, `(frames, joints, 3)`, float64, in the unit of the file.

    Raises:
        DamagedFileError: The file is damaged or of another shape.
    """
    poses = _npy(path)
    if poses.ndim != 3 or poses.shape[1:] != (conventions.joints, 3) or len(poses) == 0:
        raise DamagedFileError(path, f"holds shape {poses.shape}, not (frames, {conventions.joints}, 3)")
    return _plausible(path, poses)


def read_rgb(path: Path, conventions: Conventions) -> Array:
    """Read the 2D keypoints of a frame, `(keypoints, 2)`, float64, in the unit of the file."""
    keypoints = _npy(path)
    if keypoints.shape != (conventions.keypoints, 2):
        raise DamagedFileError(path, f"holds shape {keypoints.shape} instead of ({conventions.keypoints}, 2)")
    return _plausible(path, keypoints)


def read_lidar(path: Path, conventions: Conventions) -> Array:
    """Read the LiDAR points of a frame, `(points, 3)`, float64 metres."""
    return _points(path, "lidar", conventions)


def read_mmwave(path: Path, conventions: Conventions) -> Array:
    """Read the radar points of a frame, `(points, 5)`, float64, columns in the order of the file."""
    return _points(path, "mmwave", conventions)


def read_wifi(path: Path, conventions: Conventions) -> Array:
    """Read the channel amplitude of a frame, `(antennas, subcarriers, packets)`, its inf and nan kept."""
    content = _bytes(path)
    try:
        variables = loadmat(BytesIO(content), variable_names=[conventions.csi_variable])
    except Exception as error:  # scipy raises a dozen unrelated kinds on damaged content
        raise DamagedFileError(path, f"does not read as a MATLAB file ({_first_line(error)})") from error
    if conventions.csi_variable not in variables:
        raise DamagedFileError(path, f"lacks the variable {conventions.csi_variable}")
    amplitude = _floats(path, variables[conventions.csi_variable])
    if amplitude.shape != conventions.csi_shape:
        raise DamagedFileError(path, f"holds shape {amplitude.shape} instead of {conventions.csi_shape}")
    if not np.isfinite(amplitude).any():
        raise DamagedFileError(path, "holds no finite value")
    return amplitude


READERS: dict[str, Callable[[Path, Conventions], Array]] = {
    "rgb": read_rgb,
    "lidar": read_lidar,
    "mmwave": read_mmwave,
    "wifi": read_wifi,
}


def _points(path: Path, modality: str, conventions: Conventions) -> Array:
    content = _bytes(path)
    columns, kind = conventions.columns(modality), np.dtype(conventions.point_dtype).newbyteorder("<")
    if len(content) % (kind.itemsize * len(columns)):
        raise DamagedFileError(path, f"has {len(content)} bytes, no multiple of {len(columns)} {kind.name} columns")
    points = np.frombuffer(content, dtype=kind).reshape(-1, len(columns))
    limits = np.array(conventions.limits(modality))
    beyond = ~(np.abs(points) <= limits).all(axis=0)  # also true of nan
    if beyond.any():
        column = int(beyond.argmax())
        raise DamagedFileError(path, f"holds nan, or {columns[column]} beyond {limits[column]:g} ({_other_kind(kind)})")
    if kind.itemsize == 8 and _are_pairs(content, points, limits):
        raise DamagedFileError(path, f"holds coordinates that are next to nothing ({_other_kind(kind)})")
    return points.astype(np.float64, copy=False)


def _other_kind(kind: np.dtype[np.floating[Any]]) -> str:
    other = {"float64": "float32", "float32": "float64"}[kind.name]
    return f"written as {other}, or with another number of columns?"


def _are_pairs(content: bytes, points: Array, limits: Array) -> bool:
    """Whether the float64 of a file are pairs of float32: many below a nanometre, and plausible as float32.

    Two float32 below a quarter read as one float64 below a nanometre. A sine of pi may be that small, too; but
    the second half of a float64 that was computed is no plausible float32.
    """
    tiny = (points != 0) & (np.abs(points) < _NEXT_TO_NOTHING)
    if tiny.mean() < _MANY:
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.abs(np.frombuffer(content, dtype="<f4").reshape(-1, len(limits))) <= limits).all())


def _npy(path: Path) -> Array:
    content = _bytes(path)
    try:
        array = np.load(BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError) as error:
        raise DamagedFileError(path, f"does not read as a .npy file ({_first_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise DamagedFileError(path, "is an archive of arrays, not one array")
    return _floats(path, array)


def _bytes(path: Path) -> bytes:
    # Reading and parsing are kept apart: a failing disk raises OSError and is not taken for a damaged file.
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise DamagedFileError(path, "is a folder") from None
    if not content:
        raise DamagedFileError(path, "is empty (0 bytes)")
    return content


def _floats(path: Path, array: Array) -> Array:
    if array.dtype.kind not in "fiu":
        raise DamagedFileError(path, f"holds {array.dtype} instead of real numbers")
    return array.astype(np.float64, copy=False)


def _plausible(path: Path, array: Array) -> Array:
    if not (np.abs(array) < _LARGEST).all():  # also true of nan
        raise DamagedFileError(path, f"holds nan, or values beyond {_LARGEST:g}, as a file of another kind would")
    return array


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
