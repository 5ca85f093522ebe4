import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from examples.sweep import sweep, write_json
from tests.processes import hear_ctrl_c

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    name: str
    seed: int = 0
    epochs: int = 2
    seconds: float = 0.0


def work(job, tick):
    if job.name == "broken":
        raise ValueError("this run is broken")
    for _ in range(job.epochs):
        time.sleep(job.seconds)
        tick()
    return {"name": job.name, "seed": job.seed, "at": time.time()}


def test_results_come_in_order_and_are_reused(tmp_path):
    jobs = [Job("b"), Job("a"), Job("a", 1)]
    first = sweep(work, jobs, tmp_path, asdict, 2)
    assert [(r["name"], r["seed"]) for r in first] == [("b", 0), ("a", 0), ("a", 1)]
    again = sweep(work, [*jobs, Job("c")], tmp_path, asdict, 1)
    assert again[:3] == first
    assert again[3]["name"] == "c"


def test_a_damaged_result_is_named(tmp_path):
    sweep(process, [Job("a")], tmp_path, asdict, 0)
    (file,) = tmp_path.iterdir()
    file.write_text('{"process": ')
    with pytest.raises(ValueError, match=f"{file.name}` should be a result. .* Delete it to do the run again"):
        sweep(process, [Job("a")], tmp_path, asdict, 0)


def process(job, tick):
    tick()
    return {"process": os.getpid()}


def test_without_workers_runs_are_done_in_this_process(tmp_path):
    assert sweep(process, [Job("a"), Job("b")], tmp_path, asdict, 0) == 2 * [{"process": os.getpid()}]


def test_a_run_that_is_stopped_in_this_process_leaves_the_finished_ones(tmp_path, capsys):
    def stopped(job, tick):
        if job.name == "b":
            raise KeyboardInterrupt
        return {"name": job.name}

    assert sweep(stopped, [Job("a"), Job("b"), Job("c")], tmp_path, asdict, 0) == [{"name": "a"}]
    assert "stopped: 2 of 3 runs were not finished" in capsys.readouterr().err


def test_a_run_with_other_settings_is_another_run(tmp_path):
    first, second = (sweep(work, [Job("a", epochs=epochs)], tmp_path, asdict, 1) for epochs in (1, 2))
    assert first != second
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_fails_leaves_the_finished_ones(tmp_path):
    with pytest.raises(ValueError, match="this run is broken"):
        sweep(work, [Job("a"), Job("broken"), Job("b", seconds=5)], tmp_path, asdict, 1)
    assert [json.loads(file.read_text())["name"] for file in tmp_path.iterdir()] == ["a"]


SCRIPT = """
from dataclasses import asdict
from pathlib import Path
from examples.sweep import sweep
from tests.examples.test_sweep import Job, work
if __name__ == "__main__":
    print(len(sweep(work, [Job("quick"), Job("slow", seconds=30)], Path(r"{folder}"), asdict, 1)), "finished")
"""


def started(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=tmp_path / "runs"))
    return subprocess.Popen(
        [sys.executable, script],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for half a minute")


def test_ctrl_c_leaves_the_finished_runs(tmp_path):
    process = started(tmp_path)
    wait_for(lambda: list((tmp_path / "runs").glob("quick*.json")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=30)
    assert out.strip() == "1 finished"
    assert "1 of 2 runs were not finished" in err + out
    assert "Traceback" not in err


def test_ctrl_c_while_workers_still_start_is_no_error(tmp_path):
    process = started(tmp_path)
    wait_for((tmp_path / "runs").exists)
    time.sleep(0.5)  # into the import of torch in the worker, if the machine is not much faster or slower than most
    for _ in range(20):  # while processes are started it is not heard
        os.killpg(process.pid, signal.SIGINT)
        if ended(process, seconds=5):
            break
    out, err = process.communicate(timeout=30)
    assert out.strip() in ("0 finished", "1 finished")
    assert "of 2 runs were not finished" in err
    assert "Traceback" not in err


def ended(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def work_for_long(job, tick):
    Path(job.name).write_text(str(os.getpid()))
    time.sleep(120)


KILLED = """
from dataclasses import asdict
from pathlib import Path
from examples.sweep import sweep
from tests.examples.test_sweep import Job, work_for_long
if __name__ == "__main__":
    sweep(work_for_long, [Job(r"{folder}/pid")], Path(r"{folder}/runs"), asdict, 1)
"""


def test_workers_end_with_a_killed_sweep(tmp_path):
    """Or they would write to the files of the sweep that is started in its place."""
    script, noted = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(KILLED.format(folder=tmp_path))
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: noted.exists() and noted.read_text())
    process.kill()
    process.wait()
    wait_for(lambda: not Path("/proc", noted.read_text()).exists())


def test_json_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("nan")})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
