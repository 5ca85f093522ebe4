import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.mmfi.protocols import (
    ACTIONS,
    PROTOCOLS,
    SUBJECTS,
    all_clips,
    hold_out,
    random_validation_subjects,
    split_clips,
)
from tests.mmfi.raw_tree import shared_data

CLIPS = all_clips()


def test_s1_is_the_public_draw():
    path = shared_data() / "mmfi" / "s1_val_subjects.json"
    if not path.exists():
        pytest.skip(f"Set AWC_BALANCE_DATA to the folder that holds mmfi/s1_val_subjects.json; not at {path}.")
    for name, expected in json.loads(path.read_text()).items():
        drawn = random_validation_subjects(name.replace("protocol", "P"))
        assert {action: sorted(subjects) for action, subjects in drawn.items()} == expected


@pytest.mark.parametrize(
    ("protocol", "train", "validation"),
    [("P1", 133_056, 33_264), ("P2", 123_552, 30_888), ("P3", 256_608, 64_152)],
)
def test_s1_gives_the_published_frame_counts(protocol, train, validation):
    split = split_clips(CLIPS, protocol, "S1")
    assert (len(split.train) * 297, len(split.validation) * 297) == (train, validation)


def test_protocols_divide_the_actions():
    assert sorted(PROTOCOLS["P1"] + PROTOCOLS["P2"]) == sorted(PROTOCOLS["P3"]) == sorted(ACTIONS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("split", ["S1", "S2", "S3"])
def test_every_clip_of_the_protocol_is_on_one_side(protocol, split):
    train, validation = split_clips(CLIPS, protocol, split)
    assert not set(train) & set(validation)
    assert {*train, *validation} == {clip for clip in CLIPS if clip.action in PROTOCOLS[protocol]}


def test_s2_validates_on_every_fifth_subject():
    validation = split_clips(CLIPS, "P3", "S2").validation
    assert {clip.subject for clip in validation} == {f"S{number:02d}" for number in range(5, 41, 5)}


def test_s3_validates_on_the_fourth_scene():
    train, validation = split_clips(CLIPS, "P3", "S3")
    assert {clip.scene for clip in validation} == {"E04"}
    assert {clip.subject for clip in validation} == set(SUBJECTS[30:])
    assert {clip.scene for clip in train} == {"E01", "E02", "E03"}


def test_splits_leave_the_global_random_state_alone():
    before = np.random.get_state()[1].copy(), random.getstate()
    train = split_clips(CLIPS, "P1", "S1").train
    held = hold_out(train, 0.1, 3)
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    np.random.seed(7)
    assert hold_out(train, 0.1, 3) == held


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(-5, 10**12), share=st.floats(0.01, 0.99))
def test_held_out_clips_are_a_share_of_the_training_clips(seed, share):
    clips = split_clips(CLIPS, "P1", "S1").train
    kept, held = hold_out(clips, share, seed)
    assert not set(kept) & set(held)
    assert {*kept, *held} == set(clips)
    assert len(held) == min(max(round(share * len(clips)), 1), len(clips) - 1)
    assert hold_out(reversed(clips), share, seed) == (kept, held)


@pytest.mark.parametrize(("clips", "share", "held"), [(2, 0.1, 1), (4, 0.1, 1), (4, 0.01, 1), (3, 0.99, 2)])
def test_of_few_clips_one_is_held_out_and_one_is_kept(clips, share, held):
    assert len(hold_out(CLIPS[:clips], share, 0).validation) == held


def test_held_out_clips_differ_by_seed_and_stay_when_another_clip_is_missing():
    clips = split_clips(CLIPS, "P1", "S1").train
    first = hold_out(clips, 0.1, 0)
    assert first != hold_out(clips, 0.1, 1)
    fewer = hold_out([clip for clip in clips if clip != first.train[0]], 0.1, 0)
    assert set(fewer.validation) == set(first.validation)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_clips(CLIPS, "P4", "S1"), "`protocol` should be one of P1, P2, P3. Got `P4`"),
        (lambda: split_clips(CLIPS, "P1", "random"), "`split` should be one of S1, S2, S3"),
        (lambda: random_validation_subjects("p1"), "`protocol` should"),
        (lambda: hold_out(CLIPS, 0.0, 0), "`share` .`--held-out`. should be between 0 and 1. Got `0.0`"),
        (lambda: hold_out(CLIPS, 1.0, 0), "`share` .`--held-out`. should be between 0 and 1"),
        (
            lambda: hold_out(CLIPS[:1], 0.1, 0),
            "two training clips or more, to hold one out .`--held-out`.. Got 1. Pack",
        ),
    ],
)
def test_bad_arguments_name_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
