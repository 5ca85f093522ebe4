"""One HTML file that shows a run and says what it means, for any browser, without a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from awc_balance.checks import check_count
from awc_balance.contributions import Contributions
from awc_balance.diagnose import Measured, Verdict, diagnose
from awc_balance.diagnose.measured import as_measured
from awc_balance.history import History, read_history
from awc_balance.report.files import write_whole
from awc_balance.report.page import page

__all__ = ["report"]


def report(
    history: History,
    file: str | os.PathLike[str],
    *,
    contributions: Contributions | Measured | None = None,
    held_out: Contributions | Measured | None = None,
    verdict: Verdict | None = None,
    fisher: Mapping[str, Mapping[str, Tensor]] | None = None,
    window: int | None = None,
    profit: str = "pearson",
    title: str = "Balance of modalities",
    notes: Sequence[str] = (),
) -> Path:
    """Write a report: the verdict and the diagnosis in plain words on top, then figures and their numbers.

    The file holds everything it shows, runs no script and loads nothing. It is written whole or not at all.

    Args:
        history: `AWCRegularizer.history`, or rows like it (see `awc_balance.history.read_history`); may be empty.
            Put "loss" and "penalty" into its rows to see one against the other. With rule="calibration" the page says
            who was held back, from which epoch on and how hard, and shows the slopes that this came from.
        file: Where to write it.
        contributions: Of the trained model, on training data or, if they are all, on any data. Without them the
            diagnosis speaks of the last contributions in the history.
        held_out: Of the same model on held-out data, of which the diagnosis speaks then.
        verdict: From `AWCRegularizer.verdict`, with rule="calibration", or `awc_balance.calibration.verdict`.
        fisher: Fisher diagonals, from `FisherDiagonal.compute()`, to show by layer.
        window: The last epoch of the window; None takes the last in which an alpha was above 0, and none with
            rule="calibration".
        profit: What contributions are measured in, to name it.
        title: Of the page.
        notes: Sentences below the title: which model, which data.

    Returns:
        The path of the file.

    Raises:
        OSError: If it cannot be written; an old file is as it was then.
        TypeError: If an argument is of the wrong kind.
        ValueError: If `held_out` comes without `contributions`, or a number is not finite.

    Example:
        >>> import tempfile
        >>> measured = Measured({"rgb": 0.7, "wifi": 0.01}, {"rgb": (0.6, 0.8), "wifi": (0.0, 0.02)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report([], Path(folder) / "report.html", contributions=measured).name
        'report.html'
    """
    if held_out is not None and contributions is None:
        raise ValueError(
            "`held_out` should be compared with training data. Got no `contributions`. Pass them, or pass those of "
            "the held-out data as `contributions`."
        )
    if verdict is not None and not isinstance(verdict, Verdict):
        raise TypeError(
            f"`verdict` should be a Verdict. Got {type(verdict).__name__}. Pass what verdict(training, held_out) gives."
        )
    if window is not None:
        check_count("window", window, 0)
    rows = read_history(history)
    last = next((row for row in reversed(rows) if row.contributions), None)
    measured = None if contributions is None else as_measured("contributions", contributions)
    apart = None if held_out is None or measured is None else as_measured("held_out", held_out, measured.contributions)
    judged = measured if apart is None else apart
    if judged is None and last is not None:
        judged = Measured(last.contributions, last.intervals or None)
        notes = [*notes, f"The diagnosis speaks of the start of epoch {last.epoch}, on the data measured there."]
    diagnosis = None if judged is None else diagnose(judged)
    return write_whole(file, page(title, notes, rows, verdict, diagnosis, (measured, apart), profit, fisher, window))
