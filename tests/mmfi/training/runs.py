"""Tiny runs on the simulated tree."""

import torch

from examples.mmfi.settings import PAPER_AWC, Settings


def awc(**options):
    """Settings of AWC in the paper's setting, but for a shorter window and these options."""
    return {"method": "AWC", "method_options": {**PAPER_AWC, "window": 2, **options}}


def settings_for(packed, **changes):
    """A run of three epochs, three steps each, on keypoints and WiFi."""
    values = {
        "name": "tiny",
        "data": str(packed),
        "split": "S2",
        "modalities": ("rgb", "wifi"),
        "preset": "tiny",
        "epochs": 3,
        "batch_size": 16,
        "drop_every": 2,
        "held_out": 0.2,
        "measured_frames": 6,
    }
    return Settings(**values | changes)


def without_times(result):
    return {name: value for name, value in result.items() if not name.startswith("seconds")}


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_batch_statistics(model):
    """Let a model compute every sample by itself, as in evaluation, also while it is trained."""
    model.eval()
    model.train = lambda mode=True: model
    return model
