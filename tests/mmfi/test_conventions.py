import argparse
import json
from dataclasses import fields

import pytest

from examples.mmfi.conventions import Conventions, add_convention_option


def test_options_are_parsed_by_kind():
    changed = Conventions().updated(
        [
            "frames_per_clip=60",
            "mmwave_columns=x,y,z,doppler,intensity",
            "prefer_filtered_mmwave=true",
            "lidar_points=512",
            "metres_per_unit=0.001",
            "keypoint_unit=unit",
        ]
    )
    assert changed == Conventions(
        frames_per_clip=60,
        mmwave_columns=("x", "y", "z", "doppler", "intensity"),
        prefer_filtered_mmwave=True,
        lidar_points=512,
        metres_per_unit=0.001,
        keypoint_unit="unit",
    )
    assert changed.updated(["lidar_points=none"]).lidar_points is None


def test_json_gives_the_same_conventions_back():
    conventions = Conventions(lidar_points=256)
    assert Conventions.from_json(json.loads(json.dumps(conventions.to_json()))) == conventions


def test_the_help_names_every_convention():
    parser = argparse.ArgumentParser()
    add_convention_option(parser)
    text = "".join(parser.format_help().split())
    assert all(f"{field.name}=" in text for field in fields(Conventions))


def test_every_convention_is_documented():
    assert all(f"        {field.name}: " in Conventions.__doc__ for field in fields(Conventions))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("frames_per_clip", "should be NAME=VALUE"),
        ("frames=3", "with a known name. Got `frames=3`"),
        ("frames_per_clip=many", "kind `int`. Got `many`"),
        ("prefer_filtered_mmwave=perhaps", "kind `bool`"),
        ("frames_per_clip=0", "`frames_per_clip` should be positive"),
        ("metres_per_unit=nan", "`metres_per_unit` should be positive"),
        ("lidar_points=-1", "`lidar_points` should be positive"),
        ("rgb_window=80", "`rgb_window` should be odd"),
        ("keypoint_unit=inch", "`keypoint_unit` should be one of"),
        ("first_frame=2", "`first_frame` should be 0 or 1. Got `2`"),
        ("point_dtype=float16", "`point_dtype` should be one of float64, float32. Got `float16`"),
        ("mmwave_columns=x,y,z", "`mmwave_columns` should name each"),
    ],
)
def test_bad_options_name_the_rule(option, message):
    with pytest.raises(ValueError, match=message):
        Conventions().updated([option])
