"""What `doctor` concludes from a survey: whether each assumption holds, and what to do where it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.mmfi.arrays import Array
from examples.mmfi.conventions import MODALITIES, POINT_DTYPES, Conventions
from examples.mmfi.layout import RawClip
from examples.mmfi.protocols import all_clips
from examples.mmfi.survey import Sample, Survey

# Joints of a bone and its length in metres, from the one published ground-truth frame.
_BONES = (
    (0, 1, 0.107), (0, 4, 0.107), (1, 2, 0.40), (4, 5, 0.40), (2, 3, 0.453), (5, 6, 0.453), (0, 7, 0.301),
    (7, 8, 0.301), (11, 12, 0.249), (14, 15, 0.249), (12, 13, 0.25), (15, 16, 0.25),
)  # fmt: skip
_HEAD, _ANKLES, _PELVIS = 10, (3, 6), 0


class Finding(NamedTuple):
    """One line of the verdict.

    Attributes:
        level: `ok`; `note` for what the example copes with; `FIX` for what the user should act on.
        text: What was seen.
        remedy: What to do about it, where there is something.
    """

    level: str
    text: str
    remedy: str = ""


def findings(survey: Survey, conventions: Conventions) -> list[Finding]:
    """Run all checks, in the order in which they are printed."""
    return [finding for check in _CHECKS for finding in check(survey, conventions)]


def keypoint_unit_of(keypoints: Array) -> str:
    """Guess the unit of 2D keypoints `[..., 2]`: `pixels`, `unit` or `screen`, see `Conventions`."""
    low, high = np.quantile(keypoints, [0.01, 0.99])
    if high > 2:
        return "pixels"
    return "screen" if low < -0.05 else "unit"


def signed_columns(points: Array) -> list[int]:
    """Columns of radar points, beyond the position, with at least one negative value in a thousand."""
    return [column for column in range(3, points.shape[1]) if (points[:, column] < 0).mean() > 1e-3]


def bone_scales(poses: Array) -> Array:
    """Median length of each limb of poses `[frames, 17, 3]` over its metres in the published frame."""
    lengths = [np.median(np.linalg.norm(poses[:, a] - poses[:, b], axis=-1)) / metres for a, b, metres in _BONES]
    return np.array(lengths)


def _clips(survey: Survey, _: Conventions) -> Iterator[Finding]:
    expected = set(all_clips())
    if strange := sorted(survey.names - expected):
        yield Finding(
            "FIX",
            f"{len(strange)} clips are not in the public list, such as {strange[0]}",
            "A scene has ten subjects (E01: S01-S10, ...). Move them: split S3 goes by the scene's folder.",
        )
    missing = sorted(expected - survey.names)
    if missing:
        yield Finding(
            "note",
            f"{len(missing)} of {len(expected)} clips are not there, such as {missing[0]}",
            "Enough to try things; fetch them before comparing with published numbers.",
        )
    elif not strange:
        yield Finding("ok", "all 1080 clips are there")


def _ground_truth_files(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    file, expected = conventions.ground_truth_file, conventions.frames_per_clip
    if broken := [clip for clip in survey.clips if clip.frames is None]:
        yield Finding(
            "FIX",
            f"{len(broken)} clips lack a readable {file}, such as {broken[0].clip.name}",
            "Fetch it, or see --convention ground_truth_file=NAME; `pack` leaves these clips out.",
        )
    frames = Counter(clip.frames for clip in survey.clips if clip.frames is not None)
    if others := sorted(set(frames) - {expected}):
        yield Finding(
            "note",
            f"{sum(frames[n] for n in others)} clips have not {expected} frames but "
            f"{', '.join(map(str, others[:5]))}{', ...' if len(others) > 5 else ''}",
            "Nothing to do: the number is read from the ground truth.",
        )
    elif frames:
        yield Finding("ok", f"every ground truth has {expected} frames")


def _modalities(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    there = [modality for modality in MODALITIES if survey.having(modality)]
    if not there:
        yield Finding(
            "FIX", "no clip has frames of any modality", "Fetch some, or name their folders as the next lines say."
        )
    for modality in MODALITIES:
        if not survey.having(modality):
            yield Finding(
                "note",
                f"no {modality}: looked for folders named {conventions.folder(modality)}",
                f"Other folders: {', '.join(survey.other_folders) or 'none'}. If it is one of them: "
                f"--convention {modality}_folder=NAME.",
            )
    filtered = [
        survey for survey in survey.having("mmwave") if survey.clip.folders["mmwave"].name != conventions.mmwave_folder
    ]
    if filtered:
        yield Finding("note", f"radar frames of {len(filtered)} clips come from the separate, filtered tree")
    unread = [survey.clip for survey in survey.clips if survey.clip.filtered_mmwave not in (None, _radar(survey.clip))]
    if unread:
        yield Finding(
            "note",
            f"{len(unread)} clips have filtered radar frames, too, such as {unread[0].filtered_mmwave}: not read",
            "To read those, which are fewer, in place of all: --convention prefer_filtered_mmwave=true.",
        )


def _radar(clip: RawClip) -> Path | None:
    return clip.folders.get("mmwave")


def _missing(survey: Survey, _: Conventions) -> Iterator[Finding]:
    remedy = "Fetch them, or go on: `pack` names them, and training leaves their frames out."
    for modality in MODALITIES:
        having = survey.having(modality)
        without = [clip.clip.name for clip in survey.clips if not clip.files[modality].count]
        if having and without:
            yield Finding("note", f"{len(without)} clips lack {modality}, such as {without[0]}", remedy)
        if gaps := [clip for clip in having if clip.files[modality].missing and clip.frames]:
            frames = sum(clip.files[modality].missing for clip in gaps)
            text = f"{frames} frames of {modality} are missing in {len(gaps)} clips, such as {gaps[0].clip.name}"
            yield Finding("note", text, remedy)


def _numbering(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    shifted = [
        f"{modality} of {clip.clip.name}"
        for clip in survey.clips
        for modality in MODALITIES
        if clip.files[modality].shifted
    ]
    if shifted:
        first = conventions.first_frame
        yield Finding(
            "FIX",
            f"numbering starts at {1 - first} in {len(shifted)} folders, such as {shifted[0]}; "
            f"number - {first} is assumed",
            f"--convention first_frame={1 - first}, here and for `pack`, which leaves these folders out otherwise.",
        )


def _files(survey: Survey, _: Conventions) -> Iterator[Finding]:
    kinds = [files for clip in survey.clips for files in clip.files.values()]
    for what, paths in (
        ("are empty (0 bytes)", [path for files in kinds for path in files.empty]),
        ("belong to frames without ground truth", [path for files in kinds for path in files.beyond]),
    ):
        if paths:
            yield Finding(
                "note",
                f"{len(paths)} files {what}, such as {paths[0]}",
                "Nothing to do: `pack` leaves them out for their own modality and names them.",
            )
    for sample in survey.samples.values():
        if sample.damaged:
            path, reason = next(iter(sample.damaged.items()))
            yield Finding(
                "FIX",
                f"{len(sample.damaged)} of {sample.size} sampled files are damaged: {path} {reason}",
                "Fetch them again (`pack` leaves them out and names all), or set the shape by --convention"
                f"{_dtype_option(sample)}.",
            )


def _dtype_option(sample: Sample) -> str:
    """The option for points of another dtype, where most files look like it: one alone is just damaged."""
    if len(sample.damaged) <= sample.size / 2:
        return ""
    likely = [dtype for dtype in POINT_DTYPES for why in sample.damaged.values() if f"written as {dtype}" in why]
    return f", such as --convention point_dtype={likely[0]}" if likely else ""


def _keypoint_unit(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    values = survey.samples["rgb"].values
    if not values:
        return
    keypoints = np.stack(values)
    unit = keypoint_unit_of(keypoints)
    if unit != conventions.keypoint_unit:
        yield Finding(
            "FIX",
            f"keypoints look like `{unit}`, not `{conventions.keypoint_unit}`",
            f"--convention keypoint_unit={unit}",
        )
        return
    size = np.array([conventions.image_width, conventions.image_height])
    if unit == "pixels" and (np.quantile(keypoints.reshape(-1, 2), 0.99, axis=0) > 1.1 * size).any():
        yield Finding(
            "FIX",
            f"keypoints reach beyond an image of {size[0]} x {size[1]}",
            "--convention image_width=PIXELS --convention image_height=PIXELS",
        )
        return
    yield Finding("ok", f"keypoints are in `{unit}`, as assumed")


def _poses(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    values = survey.samples["ground_truth"].values
    if not values or conventions.joints != 17:
        return
    yield from _other_scales(survey.samples["ground_truth"].read)
    poses = np.concatenate(values)
    scales = bone_scales(poses)
    unit = float(np.median(scales)) * conventions.metres_per_unit
    if not 0.5 < unit < 2:
        guess = min((1.0, 0.01, 0.001), key=lambda metres: abs(np.log(np.median(scales) * metres + 1e-12)))
        yield Finding(
            "FIX",
            f"bones are {unit:.3g} times their length in metres",
            f"--convention metres_per_unit={guess:g}",
        )
    elif (np.abs(np.log(scales / np.median(scales) + 1e-12)) > np.log(2)).any():
        yield Finding(
            "FIX",
            "bones have odd proportions",
            "Joints should be in Human3.6M order: look at a pose before training.",
        )
    else:
        yield Finding("ok", f"ground truth is in metres: limbs {unit:.2f} times those of the published frame")
    if np.abs(poses[:, _PELVIS]).max() < 1e-6:
        yield Finding(
            "FIX",
            "poses are relative to the pelvis",
            "Published errors are absolute: use the original ground truth.",
        )
    elif np.median(poses[:, _ANKLES, 1]) < np.median(poses[:, _HEAD, 1]):
        yield Finding("FIX", "y points up", "Published poses have y down: errors agree, figures will be upside down.")
    else:
        yield Finding("ok", "poses are absolute, y points down")


def _other_scales(read: Mapping[Path, Array]) -> Iterator[Finding]:
    scales = {path: float(np.median(bone_scales(poses))) for path, poses in read.items()}
    usual = float(np.median(list(scales.values())))
    if odd := [path for path, scale in scales.items() if not 0.5 < scale / max(usual, 1e-12) < 2]:
        yield Finding(
            "FIX",
            f"{len(odd)} of {len(read)} sampled clips have another scale than the others: {odd[0]}, "
            f"bones {scales[odd[0]] / max(usual, 1e-12):.3g} times as long",
            "Fetch them again, or bring them to the unit of the others.",
        )


def _doppler(survey: Survey, conventions: Conventions) -> Iterator[Finding]:
    values = survey.samples["mmwave"].values
    if not values:
        return
    signed = signed_columns(np.concatenate(values))
    order = list(conventions.mmwave_columns)
    assumed = order.index("doppler")
    if len(signed) != 1:
        yield Finding(
            "note",
            f"no telling which radar column is Doppler: signed of 4, 5: {[c + 1 for c in signed] or 'none'}",
            "Read more files (--sample), or look at some.",
        )
    elif signed == [assumed]:
        yield Finding("ok", f"radar column {assumed + 1} is signed, so it is the Doppler column, as assumed")
    else:
        order[assumed], order[signed[0]] = order[signed[0]], order[assumed]
        yield Finding(
            "FIX",
            f"radar column {signed[0] + 1} is signed, so it is the Doppler column; {assumed + 1} is assumed",
            f"--convention mmwave_columns={','.join(order)}",
        )


def _csi(survey: Survey, _: Conventions) -> Iterator[Finding]:
    values = survey.samples["wifi"].values
    if not values:
        return
    share = 1 - np.isfinite(np.stack(values)).mean()
    if share > 0.05:
        yield Finding("FIX", f"{share:.1%} of the CSI is inf or nan", "Look at some files: that is a lot to fill in.")
    else:
        filled = ", filled in by `pack`" if share else ""
        yield Finding("ok", f"{share:.3%} of the CSI is inf or nan{filled}")


_CHECKS: tuple[Callable[[Survey, Conventions], Iterator[Finding]], ...] = (
    _clips,
    _ground_truth_files,
    _modalities,
    _missing,
    _numbering,
    _files,
    _keypoint_unit,
    _poses,
    _doppler,
    _csi,
)
