import json

from benchmarks import awc_batches
from tests.benchmarks.small_task import NAME


def test_every_way_is_trained_and_compared(tmp_path, capsys):
    words = ["--tasks", NAME, "--seeds", "2", "--workers", "0", "--out", str(tmp_path)]
    assert awc_batches.main([*words, "--result", str(tmp_path / "result.json")]) == 0
    assert "| 4 batches |" in capsys.readouterr().out
    rows = {row["way"]: row for row in json.loads((tmp_path / "result.json").read_text())["tasks"][NAME]}
    assert list(rows) == ["plain", "all batches", "1 batches", "4 batches"]
    # The small task has four batches of training samples: four are all.
    assert rows["4 batches"]["test"] == rows["all batches"]["test"] != rows["plain"]["test"]
    assert rows["4 batches"]["to_faithful"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
