from examples.quickstart import main


def test_quickstart_shows_who_carries_the_prediction(capsys):
    main()
    printed = capsys.readouterr().out
    assert printed.count("camera") == 2
    rows = [line.split() for line in printed.splitlines() if "open" in line]
    assert len(rows) == 4
    assert all(float(row[2]) > float(row[4]) for row in rows)
