"""The command `python -m awc_balance diagnose`: a trained model's contributions, diagnosis and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from traceback import walk_tb
from typing import Any, NamedTuple, TypeVar

from torch import nn

from awc_balance.batches import Step, refuse_iterator
from awc_balance.calibration import Calibration, Estimate, Slopes, Verdict, train_alone, verdict
from awc_balance.calibration.rule import loss_of
from awc_balance.contributions import Contributions, ShapleyContribution
from awc_balance.contributions.profits import PROFITS
from awc_balance.contributions.shapley import MAX_MODALITIES
from awc_balance.diagnose.checkpoint import load_checkpoint
from awc_balance.diagnose.diagnosis import diagnose
from awc_balance.diagnose.objects import UsageError, find_encoders, load_batches, load_function, load_model
from awc_balance.diagnose.words import sentences
from awc_balance.report import report
from awc_balance.wording import interval, number

T = TypeVar("T")

UNJUDGED = (
    "Verdict: none. Whether a modality is idle, overfits or is starved takes a measurement of Calibration on training "
    "data and one on held-out data: pass --held-out."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 if something about the call is wrong, and what it is on the standard error."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _diagnose(options)
    except UsageError as error:
        sys.stderr.write(f"{parser.prog} {options.command}: {error}\n")
        return 2
    return 0


class _Measures(NamedTuple):
    """The model, what measures it, and what was loaded into it."""

    model: nn.Module
    encoders: dict[str, nn.Module]
    step: Step | None
    contribution: ShapleyContribution
    calibration: Calibration | None
    """None for more modalities than it takes."""
    checkpoint: str


def _diagnose(options: argparse.Namespace) -> None:
    measures = _measures(options)
    evaluate = measures.contribution.evaluate
    contributions = _evaluate(evaluate, "--data", options.data)
    held_out = None if options.held_out is None else _evaluate(evaluate, "--held-out", options.held_out)
    judged, lines = _verdict(measures, options), [UNJUDGED]
    if judged is not None:
        lines = judged.sentences()
    elif held_out is not None:
        lines = [f"Verdict: none. There are more than {MAX_MODALITIES} modalities: treat related ones as one."]
    notes = [
        f"model {options.model}; {measures.checkpoint}",
        f"data {options.data}" + (f"; held-out data {options.held_out}" if options.held_out else ""),
    ]
    lines += sentences(diagnose(contributions if held_out is None else held_out))
    said = [f"- {sentence}" for sentence in lines]
    sys.stdout.write("\n".join([*notes, "", *_table(contributions, held_out, options.profit), "", *said, ""]))
    try:
        written = report(
            [],
            options.out,
            contributions=contributions,
            held_out=held_out,
            verdict=judged,
            profit=options.profit,
            notes=notes,
        )
    except OSError as error:
        raise UsageError(f"`--out` should be a file that can be written. {error}. Choose another place.") from error
    sys.stdout.write(f"\nreport: {written}\n")


def _verdict(measures: _Measures, options: argparse.Namespace) -> Verdict | None:
    """On training and held-out data; None where one of them is missing, or there are too many modalities."""
    calibration = measures.calibration
    if calibration is None or options.held_out is None:
        return None

    def on_training_data(batches: Iterable[Any]) -> Slopes:
        return calibration.evaluate(batches, costs=False)

    training = _evaluate(on_training_data, "--data", options.data)
    held_out = _evaluate(calibration.evaluate, "--held-out", options.held_out)
    return verdict(training, held_out, None if options.alone is None else _alone(measures, options))


def _alone(measures: _Measures, options: argparse.Namespace) -> dict[str, Estimate]:
    """What every modality tells when it is learned alone."""

    def many_times(batches: Iterable[Any]) -> Iterable[Any]:
        refuse_iterator("loader", batches)
        return batches

    training = _evaluate(many_times, "--data", options.data)

    def learned(batches: Iterable[Any]) -> dict[str, Estimate]:
        return train_alone(
            *(measures.model, measures.encoders, training, batches),
            loss=loss_of(options.profit),
            epochs=options.alone,
            step=measures.step,
        )

    return _evaluate(learned, "--held-out", options.held_out)


def _evaluate(measure: Callable[[Iterable[Any]], T], option: str, address: str) -> T:
    """What is measured on the batches at an address."""
    batches = load_batches(option, address)
    try:
        return measure(batches)
    except (RuntimeError, TypeError, ValueError) as error:
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)][-1]
        if not raised_in.startswith("awc_balance."):
            raise  # in the user's code, who needs the traceback
        here = " On the command line that is --step package.module:step." if "step=" in str(error) else ""
        raise UsageError(f"`{option}` could not be measured. {error}{here}") from error


def _measures(options: argparse.Namespace) -> _Measures:
    if options.alone is not None and (options.alone < 1 or options.held_out is None):
        raise UsageError(
            "`--alone` should be a number of epochs, 1 or more, together with --held-out. Got "
            f"{options.alone}{'' if options.held_out else ' and no held-out data'}. Pass both, as in --alone 50."
        )
    if options.held_out == options.data:
        raise UsageError(
            f"`--held-out` should be data that the model was not trained on. Got `{options.data}` for `--data`, too. "
            "Pass other data, or leave `--held-out` out."
        )
    model, given = load_model("--model", options.model)
    checkpoint = "no checkpoint was loaded: the model is as its function built it"
    if options.checkpoint is not None:
        loaded = load_checkpoint(options.checkpoint, model, trust=options.trust_checkpoint, key=options.key)
        checkpoint = f"checkpoint {options.checkpoint}: {loaded}"
    elif options.trust_checkpoint or options.key is not None:
        raise UsageError("`--key` and `--trust-checkpoint` belong to a checkpoint. Got none. Pass --checkpoint FILE.")
    if options.device is not None:
        model.to(options.device)
    encoders = find_encoders(model, given, options.encoders)
    profit = load_function("--profit", options.profit) if ":" in options.profit else options.profit
    step = None if options.step is None else load_function("--step", options.step)
    few = len(encoders) <= MAX_MODALITIES
    try:
        return _Measures(
            *(model, encoders, step),
            ShapleyContribution(model, encoders, profit, step=step, budget=options.budget),
            Calibration(model, encoders, loss_of(profit), step=step) if few else None,
            checkpoint,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _table(contributions: Contributions, held_out: Contributions | None, profit: str) -> list[str]:
    """Contributions with their intervals, the highest first."""
    results = {f"contribution ({profit})" if held_out is None else "training": contributions}
    results |= {} if held_out is None else {"held-out": held_out}
    order = sorted(contributions, key=lambda modality: -contributions[modality])
    cells = [["modality", *(cell for name in results for cell in (name, "95 % interval"))]]
    cells += [
        [modality, *(cell for result in results.values() for cell in _cells(result, modality))] for modality in order
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cells(result: Contributions, modality: str) -> tuple[str, str]:
    bounds = "none" if result.intervals is None else interval(result.intervals[modality])
    return number(result[modality]), bounds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m awc_balance", description="Balance multi-modal training in PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add = commands.add_parser(
        "diagnose",
        help="which modality carries a trained model's prediction, is idle, overfits or starves the others",
        description="Measure a trained model's contributions, say what they mean, and write a report.",
    ).add_argument
    add("--model", required=True, help="package.module:function that builds the model, or (model, encoders)")
    add("--data", required=True, help="package.module:loader, or a function that returns one")
    add("--held-out", help="the same for data the model was not trained on; --data are then its training data")
    add(
        "--alone",
        type=int,
        metavar="EPOCHS",
        help="also train a copy on each modality alone for so many epochs, which shows whether one is starved",
    )
    add("--checkpoint", help="file with the trained parameters; without it the model is taken as it is built")
    add("--key", help="where in the checkpoint they are, as in ema.model; only needed if more than one place fits")
    add("--trust-checkpoint", action="store_true", help="let the file run code while it is read, as pickles do")
    add(
        "--encoders", help="attribute that holds the encoders (default: encoders), or a.rgb,a.wifi, or camera=a.rgb,..."
    )
    add("--step", help="package.module:step, a function (model, batch) -> (prediction, target)")
    add("--profit", default="pearson", help=f"{', '.join(PROFITS)}, or package.module:function (default: pearson)")
    add("--budget", type=int, help="coalitions to run at most; needed for more than 16 modalities")
    add("--device", help="where to measure, as in cuda; default: where the model is built")
    add("--out", default="awc_balance_report.html", help="file of the report (default: %(default)s)")
    return parser
