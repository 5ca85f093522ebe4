"""A process that is killed goes on from its last checkpoint, to the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.faults.killed import KILLS
from tests.faults.picture import plain

NAMES = ["AWCRegularizer", "AWC", "OGM-GE", "InfoReg", "G-Blending", "modality resampling", "sample resampling"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_runs_that_were_killed_end_at_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.faults.killed", str(tmp_path), *NAMES]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, found in json.loads(done.stdout).items():
        assert found["codes"] == [0, *[-signal.SIGKILL] * KILLS, 0], (name, found, done.stderr)
        ends = [torch.load(tmp_path / f"{name} {kind}" / "end.pt") for kind in ("whole", "broken")]
        assert plain(ends[0]) == plain(ends[1]), (name, found)
