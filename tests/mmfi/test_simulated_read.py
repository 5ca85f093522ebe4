"""A simulated tree through files, readers, pack and dataset: value by value as it was simulated."""

import json

import numpy as np
import pytest
from scipy.io import loadmat

from examples.mmfi.__main__ import main
from examples.mmfi.conventions import MODALITIES, Conventions
from examples.mmfi.csi import clean_csi
from examples.mmfi.dataset import PoseFrames
from examples.mmfi.layout import find_clips
from examples.mmfi.pack import REPORT, pack
from examples.mmfi.packed import PackedClips
from examples.mmfi.simulator import Settings, simulate_clip

BATCH_COLUMNS = [0, 1, 2, 4, 3]  # files have intensity before Doppler, batches the other way round
CENTRE = 40  # of a window of 81


def frames_of(packed):
    """Every frame of every modality that is present, one at a time so that nothing is padded."""
    for modality in MODALITIES:
        frames = PoseFrames(packed, packed.clips, [modality])
        for index in range(len(frames)):
            (clip, number), (inputs, target) = frames.frame(index), frames[index]
            yield modality, clip, number, inputs[modality], target.numpy()


def on_screen(pixels):
    return pixels / 320 - np.array([1, 480 / 640])


def check(modality, value, raw):
    """A value of a batch against the raw one of the same frame, up to the rounding to float32."""
    if modality in ("lidar", "mmwave"):
        points, mask = value
        assert mask.all()
        columns = BATCH_COLUMNS if modality == "mmwave" else slice(None)
        np.testing.assert_array_equal(points, np.asarray(raw)[:, columns].astype("f4"))
    elif modality == "rgb":
        np.testing.assert_allclose(value[CENTRE], on_screen(raw), atol=1e-6)
    else:
        np.testing.assert_array_equal(value, raw.astype("f4"))


def test_batches_hold_what_was_simulated(simulated):
    packed = PackedClips(simulated[1])
    clips = {clip: simulate_clip(clip.subject, clip.action, Settings(frames=10)) for clip in packed.clips}
    seen = 0
    for modality, clip, number, value, target in frames_of(packed):
        made = clips[clip]
        raw = clean_csi(made.csi_amplitude[number - 1]) if modality == "wifi" else getattr(made, modality)[number - 1]
        check(modality, value, raw)
        np.testing.assert_array_equal(target, made.ground_truth[number - 1].astype("f4"))
        seen += 1
    empty = sum(len(points) == 0 for clip in clips.values() for points in clip.mmwave)
    assert seen == 4 * 80 - empty


def toolbox_frame(folder, modality, number):
    """One frame as the public toolbox documents its files, in plain numpy and scipy."""
    name = f"frame{number:03d}"
    if modality == "rgb":
        return np.load(folder / "rgb" / f"{name}.npy")
    if modality != "wifi":
        return np.fromfile(folder / modality / f"{name}.bin", dtype=np.float64).reshape(
            -1, 3 if modality == "lidar" else 5
        )
    csi = loadmat(folder / "wifi-csi" / f"{name}.mat")["CSIamp"]
    csi[np.isinf(csi)] = np.nan
    for packet in range(10):
        one = csi[:, :, packet]
        one[np.isnan(one)] = np.nanmean(one)
    return (csi - csi.min()) / (csi.max() - csi.min())


def test_batches_hold_what_the_toolbox_would_read(simulated):
    raw, out = simulated
    for modality, clip, number, value, target in frames_of(PackedClips(out)):
        folder = raw / clip.scene / clip.subject / clip.action
        frame = toolbox_frame(folder, modality, number)
        if modality == "wifi":
            np.testing.assert_allclose(value, frame, atol=1e-6)
        else:
            check(modality, value, frame)
        np.testing.assert_array_equal(target, np.load(folder / "ground_truth.npy")[number - 1].astype("f4"))


def test_the_marker_is_no_clip(simulated):
    names = [str(clip.name) for clip in find_clips(simulated[0], Conventions())]
    assert len(names) == 8
    assert all(name.startswith("E01/") for name in names)


def test_a_packed_copy_knows_that_it_is_simulated(simulated, packed_tree):
    assert PackedClips(simulated[1]).simulated
    assert json.loads((simulated[1] / REPORT).read_text())["simulated"]
    assert not PackedClips(packed_tree[1]).simulated


def test_simulated_clips_are_not_added_to_real_ones(simulated, tree, tmp_path):
    pack(tree.root, tmp_path / "out", Conventions())
    with pytest.raises(ValueError, match="simulated from False to True"):
        pack(simulated[0], tmp_path / "out", Conventions())


@pytest.mark.parametrize("command", [["doctor"], ["pack"]])
def test_commands_say_that_the_clips_are_simulated(command, simulated, tmp_path, capsys):
    main([*command, str(simulated[0]), *([str(tmp_path / "out"), "--workers", "1"] if command == ["pack"] else [])])
    assert "8 simulated clips" in capsys.readouterr().out
