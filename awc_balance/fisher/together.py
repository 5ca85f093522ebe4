"""What batches say about Fisher diagonals, put together over the processes that measure one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isclose
from typing import NamedTuple

from torch import nn

from awc_balance.fisher.gradients import Gradients, Key, Measured, as_dense
from awc_balance.precision import squared
from awc_balance.processes import Processes, describe
from awc_balance.sharded import is_sharded

SAME_BATCH = 1e-5
"""How far loss and squared gradient may differ, relatively, where two processes read the same batch: operations on a
GPU that add in no fixed order leave about so much. Other batches differ by far more."""


def by_global_batch(
    batches: Iterable[Measured], parameters: Mapping[Key, nn.Parameter], processes: Processes
) -> Iterator[Measured]:
    """The mean gradients of global batches, each of which is made of one batch of every process.

    They are weighted by samples, so that batches may be of different sizes, and a process may have fewer of them.
    What all processes read alike is one batch, whose samples are counted once.

    Args:
        batches: Gradients of the mean loss of this process's batches.
        parameters: The same in every process.
        processes: Those that measure together.

    Raises:
        RuntimeError: If another process failed to read a batch; where this one failed, its own error.
    """
    if processes.count == 1:
        yield from batches
        return
    following = iter(batches)
    while True:
        measured, reports = _next(following, parameters, processes)
        samples = [report.samples for report in reports]
        if not any(samples):
            return
        count = samples[0] if _alike(reports) else sum(samples)
        values = _empty(parameters) if measured is None else measured.values
        for key in _whole(parameters):
            values[key].mul_(samples[processes.rank] / sum(samples))
        if len(set(samples)) > 1 and len(_whole(parameters)) < len(parameters):
            raise ValueError(
                "For a sharded model, whose gradients are averaged without weights, processes should have batches of "
                f"one size. Got {samples} samples. Pass drop_last=True to the DataLoader."
            )
        yield _exchanged(values, count, reports, parameters, processes)


def over_all(
    batches: Iterable[Measured], parameters: Mapping[Key, nn.Parameter], processes: Processes
) -> Iterator[Measured]:
    """The sums of squared gradients over the samples of all processes, in one exchange at the end.

    Args:
        batches: Sums of squared gradients of this process's batches.
        parameters: The same in every process.
        processes: Those that measure together.

    Raises:
        RuntimeError: As `by_global_batch`.
    """
    if processes.count == 1:
        yield from batches
        return
    measured, reports = _next(_summed(batches), parameters, processes)
    values = {key: value.real for key, value in _empty(parameters).items()} if measured is None else measured.values
    yield _exchanged(values, sum(report.samples for report in reports), reports, parameters, processes)


class _Report(NamedTuple):
    """What a process tells the others about its batch."""

    failure: str | None
    samples: int = 0
    loss: float = 0.0
    square: float = 0.0
    """The sum of its squared values."""
    reached: tuple[bool, ...] = ()
    """By parameter."""


def _next(
    batches: Iterator[Measured], parameters: Mapping[Key, nn.Parameter], processes: Processes
) -> tuple[Measured | None, list[_Report]]:
    """This process's next batch, if it has one, and the reports of all of them."""
    measured, report, error = None, _Report(None), None
    try:
        measured = next(batches, None)
        if measured is not None:
            report = _report(measured, parameters)
    except Exception as caught:
        error = caught
        report = _Report(describe(error))
    reports = processes.gathered(report)
    processes.refuse_failures(error, [report.failure for report in reports])
    return measured, reports


def _report(measured: Measured, parameters: Mapping[Key, nn.Parameter]) -> _Report:
    return _Report(
        failure=None,
        samples=measured.samples,
        loss=0.0 if measured.loss is None else float(measured.loss),
        square=float(sum(squared(measured.values[key]).sum().double().cpu() for key in _whole(parameters))),
        reached=tuple(key in measured.reached for key in parameters),
    )


def _alike(reports: Sequence[_Report]) -> bool:
    """Whether all processes read the same batch."""
    first = reports[0]
    return all(
        report.samples == first.samples
        and isclose(report.loss, first.loss, rel_tol=SAME_BATCH)
        and isclose(report.square, first.square, rel_tol=SAME_BATCH)
        for report in reports
    )


def _exchanged(
    values: Gradients,
    samples: int,
    reports: Sequence[_Report],
    parameters: Mapping[Key, nn.Parameter],
    processes: Processes,
) -> Measured:
    """The sums of the values of all processes, and what else is known of them."""
    processes.sum_([values[key] for key in _whole(parameters)])
    reached = {key for report in reports for key, hit in zip(parameters, report.reached, strict=False) if hit}
    return Measured(values, samples, None, reached)  # losses were checked where they arose


def _summed(batches: Iterable[Measured]) -> Iterator[Measured]:
    """All batches as one."""
    total: Measured | None = None
    for measured in batches:
        total = measured if total is None else _sum(total, measured)
    if total is not None:
        yield total


def _sum(a: Measured, b: Measured) -> Measured:
    for key, value in b.values.items():
        a.values[key].add_(value)
    return Measured(a.values, a.samples + b.samples, None, a.reached | b.reached)


def _whole(parameters: Mapping[Key, nn.Parameter]) -> list[Key]:
    """Those that are not sharded: the gradients of sharded ones are the means over the processes already."""
    return [key for key, parameter in parameters.items() if not is_sharded(parameter)]


def _empty(parameters: Mapping[Key, nn.Parameter]) -> Gradients:
    """The gradients of no batch."""
    return {key: as_dense(None, parameter) for key, parameter in parameters.items()}
