import json
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from examples.mmfi import demo
from examples.mmfi.__main__ import COMMANDS, main
from examples.mmfi.conventions import Conventions
from examples.mmfi.pack import pack
from examples.mmfi.prepared import describe, fingerprint, packed_copy
from examples.mmfi.reproduce import runs
from examples.mmfi.reproduce.command import TARGETS, changed
from examples.mmfi.settings import Settings
from examples.mmfi.simulate import SOME_ACTIONS, SOME_FRAMES, SOME_SUBJECTS
from examples.mmfi.simulator import Settings as Simulation
from examples.mmfi.simulator import simulate_tree
from tests.mmfi.raw_tree import Tree

TINY = ["--preset", "tiny", "--epochs", "2", "--seeds", "1", "--workers", "0"]
SET = ["--set", "batch_size=4", "held_out=0.3", "lidar_points=16", "mmwave_points=8", "measured_frames=8"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    root = tmp_path_factory.mktemp("simulated") / "tree"
    simulate_tree(root, ["S01", "S02", "S03"], ["A02", "A03"], Simulation(frames=4))
    return root


def test_two_figures_from_simulated_files_share_their_runs(simulated, tmp_path, capsys):
    """From original files to pictures; the second figure, and a repetition, train nothing that is there already."""
    out = tmp_path / "out"
    for name in ("fig4", "fig5", "fig5"):
        assert main(["reproduce", name, "--data", str(simulated), "--out", str(out), *TINY, *SET]) == 0
    text = capsys.readouterr()
    assert text.err.count("done: P1 rgb+lidar+mmwave+wifi concat plain, seed 0") == 1
    assert text.err.count("done: ") == 2
    assert "SIMULATED data" in text.out
    assert {file.name for file in out.glob("fig*")} == {
        "fig4.json", "fig4.md", "fig4-P1.png", "fig5.json", "fig5.md", "fig5-P1.png",
    }  # fmt: skip
    assert all(json.loads(file.read_text())["simulated"] for file in out.rglob("*.json"))
    assert not list((out / "checkpoints").rglob("*.pt"))


def test_an_interrupted_sweep_keeps_what_is_finished_and_says_so(simulated, tmp_path, capsys, monkeypatch):
    train, done = runs.train, []

    def interrupted(*args, **kwargs):
        if done:
            raise KeyboardInterrupt
        done.append(train(*args, **kwargs))
        return done[0]

    monkeypatch.setattr(runs, "train", interrupted)
    command = ["reproduce", "fig5", "--data", str(simulated), "--out", str(tmp_path / "out"), *TINY, *SET]
    assert main(command) == 130
    assert "(not finished)" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(command) == 0
    assert capsys.readouterr().err.count("done: ") == 1


def test_a_packed_copy_is_used_where_it_lies(packed_tree, tmp_path):
    assert packed_copy(packed_tree[1], tmp_path / "out") == packed_tree[1]
    assert not list(tmp_path.iterdir())


def test_two_roots_of_one_name_are_packed_apart(tmp_path):
    roots = [Tree(tmp_path / part / "raw", frames=2).write().root for part in "ab"]
    folders = [packed_copy(root, tmp_path / "results" / "out") for root in roots]
    assert len(set(folders)) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "results"}


def test_runs_are_known_by_what_the_data_holds_not_by_where_it_lies(tree, tmp_path):
    pack(tree.root, tmp_path / "one", Conventions())
    (tmp_path / "one").rename(tmp_path / "two")
    pack(tree.root, tmp_path / "one", Conventions())
    same = [describe(Settings("", str(tmp_path / name))) for name in ("one", "two")]
    assert same[0] == same[1]
    part = Tree(tmp_path / "part", clips=tree.clips[:2]).write()
    pack(part.root, tmp_path / "three", Conventions())
    assert fingerprint(tmp_path / "three") != fingerprint(tmp_path / "one")


def test_clips_of_other_values_are_other_data(tmp_path):
    for seed in (0, 1):
        tree = Tree(tmp_path / f"raw{seed}", frames=2, seed=seed).write()
        pack(tree.root, tmp_path / f"packed{seed}", Conventions(), modalities=["rgb"])
    assert fingerprint(tmp_path / "packed0") != fingerprint(tmp_path / "packed1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("batch=3", "Got `batch=3`"),
        ("batch_size", "Got `batch_size`"),
        ("seed=3", "Got `seed=3`"),
        ("epochs=3", "Got `epochs=3`"),
        ("split=S9", "`split` should be of S1, S2, S3"),
        ("every=0", "`every` should be 1 or more"),
    ],
)
def test_settings_that_runs_cannot_share_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        changed(Settings("", ""), [change])


def test_data_that_is_none_is_an_error_of_one_line(tmp_path, capsys):
    assert main(["reproduce", "table3", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "`root` should hold clips" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_help_lists_every_target(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in [*TARGETS, "table2"])


def test_the_trial_that_the_help_shows_works(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    trial = capsys.readouterr().out.split("python -m examples.mmfi ")[-1].replace("\\\n", " ")
    simulate_tree(tmp_path / "raw", SOME_SUBJECTS, SOME_ACTIONS, Simulation(frames=SOME_FRAMES))
    pack(tmp_path / "raw", tmp_path / "packed", Conventions(), modalities=["rgb", "lidar", "mmwave", "wifi"])
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(trial.replace("PACKED", "packed")), "--workers", "0"]) == 0
    assert Path("results", "trial", "fig5-P1.png").exists()


def test_the_demo_uses_as_many_frames_of_a_large_copy_as_of_a_small_one(packed_tree, monkeypatch):
    monkeypatch.setattr(demo, "ENOUGH_FRAMES", 6)
    assert demo.quick(Settings("", str(packed_tree[1]), protocol="P3")).every == round(27 / 6)
    monkeypatch.setattr(demo, "ENOUGH_FRAMES", 1000)
    assert demo.quick(Settings("", str(packed_tree[1]), protocol="P3")).every == 1


def test_the_demo_trains_and_draws(simulated, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "QUICK", {})
    parser = ArgumentParser()
    demo.add_arguments(parser)
    out = tmp_path / "out"
    assert demo.run(parser.parse_args(["--data", str(simulated), "--out", str(out), *TINY, *SET])) == 0
    written = [Path(line.strip()) for line in capsys.readouterr().out.split("written:\n")[1].split("\n") if line]
    assert [file.name for file in written] == [
        "demo.json", "demo.md", "errors.png", "spreads.png", "contributions.png", "poses.png",
    ]  # fmt: skip
    assert all(file.stat().st_size > 0 for file in written)


def test_the_demo_does_long_runs_first_and_shows_results_in_the_order_of_its_table(simulated, tmp_path, monkeypatch):
    done, shown = [], []

    def made(runs, *_):
        done.extend(run.modalities for run in runs)
        return [{"run": {"name": run.name, "seed": run.seed, "modalities": run.modalities}} for run in runs]

    monkeypatch.setattr(demo, "finished", made)
    monkeypatch.setattr(demo, "report", lambda plan, results, *_, **__: shown.extend(results) or [])
    monkeypatch.setattr(demo, "_draw", lambda *_: [])
    parser = ArgumentParser()
    demo.add_arguments(parser)
    assert demo.run(parser.parse_args(["--data", str(simulated), "--out", str(tmp_path / "out"), *SET])) == 0
    assert [len(modalities) for modalities in done] == [4] * 4 + [1] * 4
    assert [run["run"]["seed"] for run in shown] == [0] * 6 + [1] * 2
    assert "AWC" not in shown[0]["run"]["name"]
    assert "AWC" in shown[1]["run"]["name"]
