"""What every command has in common."""

import os
import signal
import subprocess
import sys
import time

import pytest

from examples.mmfi import doctor
from examples.mmfi.__main__ import main
from tests.mmfi.raw_tree import REPOSITORY
from tests.processes import hear_ctrl_c


def test_a_stopped_command_says_so_in_a_line(tmp_path, capsys, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", stopped)
    assert main(["doctor", str(tmp_path)]) == 130
    assert capsys.readouterr().err.strip().endswith("doctor: stopped. The same command goes on from here.")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_stops_simulating_without_a_traceback(workers, tmp_path):
    words = ["simulate", str(tmp_path / "tree"), "--subjects", "all", "--actions", "all", "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.mmfi", *words],
        cwd=REPOSITORY,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(300):
        if (tmp_path / "tree" / "E01").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 130
