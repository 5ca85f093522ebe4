"""What the example assumes about the files of MM-Fi, as options that `doctor` checks.

A comment says where a value comes from. "Public toolbox" is the code published with the data set; "users" is
what public code that reads the data says, unverified; "inferred" is our reading. MM-Fi itself was not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

MODALITIES = ("rgb", "lidar", "mmwave", "wifi")
POINT_MODALITIES = ("lidar", "mmwave")
SUFFIXES = {"rgb": ".npy", "lidar": ".bin", "mmwave": ".bin", "wifi": ".mat"}  # public toolbox
LIDAR_COLUMNS = ("x", "y", "z")
MMWAVE_COLUMNS = ("x", "y", "z", "doppler", "intensity")  # the order in a batch, whatever it is on disk
KEYPOINT_UNITS = ("pixels", "unit", "screen")
POINT_DTYPES = ("float64", "float32")
_SWITCHES = ("prefer_filtered_mmwave", "first_frame")  # not measured: may be 0


@dataclass(frozen=True)
class Conventions:
    """How MM-Fi's files are named, shaped and scaled, and how a batch is made of them.

    Attributes:
        ground_truth_file: Name of the poses of a clip, `(frames, joints, 3)`.
        rgb_folder: Folder of the 2D keypoints, `(keypoints, 2)` a frame; `infra1` and
            `infra2` hold the same kind.
        lidar_folder: Folder of the LiDAR points.
        mmwave_folder: Folder of the radar points.
        wifi_folder: Folder of the channel state information.
        filtered_mmwave_folder: Name of the separately published radar tree, inside or beside the data.
        prefer_filtered_mmwave: Read radar points from that tree also where the clip has its own.
        frames_per_clip: Frames `doctor` expects of a clip. Reading takes the number from the ground truth.
        first_frame: Number in the name of a clip's first frame file.
        joints: Joints of the ground truth.
        keypoints: 2D keypoints of a frame.
        mmwave_columns: Order of the radar columns on disk, a permutation of `MMWAVE_COLUMNS`.
        point_dtype: Numbers in the point files, `float64` or `float32`.
        farthest_point: Bound of the coordinates of points; a file beyond it is damaged, or of another dtype.
        largest_signal: The same for radar intensity and Doppler; one bound, as their order is in doubt.
        csi_variable: MATLAB variable of the amplitude.
        csi_antennas: First axis of the amplitude.
        csi_subcarriers: Second axis.
        csi_packets: Third axis, packets in one frame.
        keypoint_unit: `pixels`; `unit` for coordinates in [0, 1] of width and height; `screen` for keypoints
            that are already divided by half the width and centred.
        image_width: Width of the camera image in pixels.
        image_height: Height of the camera image in pixels.
        metres_per_unit: Length of one unit of the ground truth, 0.001 if it is in millimetres.
        rgb_window: Keypoint frames of one sample, centred on the frame that is predicted; odd.
        lidar_points: Points a LiDAR frame is sampled to; None pads to the largest frame of the batch.
        mmwave_points: The same for radar.
    """

    ground_truth_file: str = "ground_truth.npy"  # public toolbox
    rgb_folder: str = "rgb"  # public toolbox
    lidar_folder: str = "lidar"  # public toolbox
    mmwave_folder: str = "mmwave"  # public toolbox
    wifi_folder: str = "wifi-csi"  # public toolbox
    filtered_mmwave_folder: str = "filtered_mmwave"  # users
    prefer_filtered_mmwave: bool = False
    frames_per_clip: int = 297  # public toolbox
    first_frame: int = 1  # public toolbox
    joints: int = 17  # public toolbox
    keypoints: int = 17  # public toolbox
    mmwave_columns: tuple[str, ...] = ("x", "y", "z", "intensity", "doppler")  # users; papers: swapped
    point_dtype: str = "float64"  # public toolbox
    farthest_point: float = 100.0  # inferred: metres, in a room
    largest_signal: float = 1e6  # inferred
    csi_variable: str = "CSIamp"  # public toolbox
    csi_antennas: int = 3  # public toolbox
    csi_subcarriers: int = 114  # public toolbox
    csi_packets: int = 10  # public toolbox
    keypoint_unit: str = "pixels"  # inferred
    image_width: int = 640  # public toolbox: size of the depth images
    image_height: int = 480  # public toolbox: size of the depth images
    metres_per_unit: float = 1.0  # one published ground-truth frame is in metres
    rgb_window: int = 81  # inferred: the receptive field of VideoPose3D's filters 3,3,3,3
    lidar_points: int | None = None
    mmwave_points: int | None = None

    def __post_init__(self) -> None:
        """Reject values that no copy of the data can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _SWITCHES or not isinstance(value, (int, float)):
                continue
            if not value > 0:
                raise ValueError(f"`{field.name}` should be positive. Got `{value}`.")
        if sorted(self.mmwave_columns) != sorted(MMWAVE_COLUMNS):
            raise ValueError(
                f"`mmwave_columns` should name each of {', '.join(MMWAVE_COLUMNS)} once. Got "
                f"`{','.join(self.mmwave_columns)}`. Give them in the order of the file's columns."
            )
        self._check_choices()
        if self.rgb_window % 2 == 0:
            raise ValueError(f"`rgb_window` should be odd, to have a centre. Got `{self.rgb_window}`.")

    def _check_choices(self) -> None:
        if self.first_frame not in (0, 1):
            raise ValueError(f"`first_frame` should be 0 or 1. Got `{self.first_frame}`.")
        if self.keypoint_unit not in KEYPOINT_UNITS:
            raise ValueError(
                f"`keypoint_unit` should be one of {', '.join(KEYPOINT_UNITS)}. Got `{self.keypoint_unit}`. "
                "`doctor` says which your copy has."
            )
        if self.point_dtype not in POINT_DTYPES:
            raise ValueError(
                f"`point_dtype` should be one of {', '.join(POINT_DTYPES)}. Got `{self.point_dtype}`. "
                "The published files have float64."
            )

    @property
    def csi_shape(self) -> tuple[int, int, int]:
        """Shape of the amplitude of one frame: antennas, subcarriers, packets."""
        return self.csi_antennas, self.csi_subcarriers, self.csi_packets

    def folder(self, modality: str) -> str:
        """Name of the folder that holds the frames of a modality."""
        return str(getattr(self, f"{modality}_folder"))

    def columns(self, modality: str) -> tuple[str, ...]:
        """Columns of a point modality on disk."""
        return self.mmwave_columns if modality == "mmwave" else LIDAR_COLUMNS

    def limits(self, modality: str) -> tuple[float, ...]:
        """Bound of the absolute value of each column of a point modality on disk."""
        return tuple(
            self.farthest_point if column in LIDAR_COLUMNS else self.largest_signal for column in self.columns(modality)
        )

    def point_count(self, modality: str) -> int | None:
        """Points that a frame of a point modality is sampled to; None for no sampling."""
        return self.mmwave_points if modality == "mmwave" else self.lidar_points

    def updated(self, options: Iterable[str]) -> Conventions:
        """Return a copy with `name=value` options applied, values as written on a command line.

        Raises:
            ValueError: An option is not `name=value`, its name is unknown, or its value does not parse.
        """
        return replace(self, **dict(_parsed(option) for option in options))

    def to_json(self) -> dict[str, Any]:
        """Return the conventions as plain data that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conventions:
        """Rebuild conventions from what `to_json` returned and JSON kept."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**values)


def add_convention_option(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable option `--convention NAME=VALUE` to a command."""
    names = ", ".join(f"{field.name}={_shown(field.default)}" for field in fields(Conventions))
    parser.add_argument(
        "--convention",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=f"change an assumption about the files; may be repeated. Names and defaults: {names}",
    )


def _parsed(option: str) -> tuple[str, Any]:
    name, equals, text = option.partition("=")
    kinds = {field.name: str(field.type) for field in fields(Conventions)}
    if not equals or name not in kinds:
        raise ValueError(
            f"A convention should be NAME=VALUE with a known name. Got `{option}`. Names: {', '.join(kinds)}."
        )
    try:
        return name, _PARSERS[kinds[name]](text)
    except (ValueError, KeyError):
        raise ValueError(f"`{name}` should be a value of kind `{kinds[name]}`. Got `{text}`.") from None


def _shown(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


# Keyed by the annotation of a field of `Conventions`.
_PARSERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int | None": lambda text: None if text.lower() == "none" else int(text),
    "tuple[str, ...]": lambda text: tuple(text.split(",")),
}
