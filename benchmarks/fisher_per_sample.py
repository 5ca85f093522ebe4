"""What exact per-sample Fisher diagonals cost, side by side with other libraries.

    python -m benchmarks.fisher_per_sample --result benchmarks/results/fisher_per_sample.json

Costs are ratios to a forward and backward pass on the same batch, in processor time on a CPU: medians over rounds in
which all take turns, each running once unmeasured before it is measured. Memory
is what a process of its own needs beyond what is there before the first pass. The error is the largest difference from
one sample at a time, relative to the largest element of each parameter's diagonal. BackPACK and nngeometry take part if
they are installed (`pip install ".[benchmarks]"`). Runs on a GPU if there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from awc_balance import FisherDiagonal
from awc_balance.batches import default_step
from awc_balance.fisher.objective import Objective
from awc_balance.fisher.per_sample import PerSample
from awc_balance.fisher.vectorised import one_by_one
from benchmarks.fisher_models import MODELS, OUTPUTS, build
from examples.machine import hardware, versions
from examples.sweep import write_json

Batch: TypeAlias = tuple[Tensor, Tensor]
Diagonals: TypeAlias = dict[str, Tensor]
Method: TypeAlias = Callable[[nn.Module, Batch], Callable[[], Diagonals]]


def forward_backward(model: nn.Module, batch: Batch) -> Callable[[], Diagonals]:
    """The yardstick: gradients of the mean loss."""
    parameters = dict(model.named_parameters())

    def run() -> Diagonals:
        found = torch.autograd.grad(mse_loss(model(batch[0]), batch[1]), list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    return run


def awc_balance(model: nn.Module, batch: Batch) -> Callable[[], Diagonals]:
    """This library, on a second batch: the proof on the first samples is paid once in a pass over the data."""
    parameters = {("m", name): parameter for name, parameter in model.named_parameters()}
    per_sample = PerSample(Objective(model, mse_loss, default_step), parameters, None)

    def run() -> Diagonals:
        measured = per_sample.measure(batch)
        torch._foreach_div_(list(measured.values.values()), measured.samples)
        return {name: value for (_, name), value in measured.values.items()}

    return run


def vmap_of_grad(model: nn.Module, batch: Batch) -> Callable[[], Diagonals]:
    """Plain `torch.func`, all samples at once."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: Diagonals, x: Tensor, y: Tensor) -> Tensor:
        return mse_loss(torch.func.functional_call(model, values, (x.unsqueeze(0),)), y.unsqueeze(0))

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def run() -> Diagonals:
        return {name: value.square().mean(0) for name, value in gradient(values, *batch).items()}

    return run


def backpack(model: nn.Module, batch: Batch) -> Callable[[], Diagonals]:
    """BackPACK's sum of squared gradients; the gradients of its samples are those of the mean, B times smaller."""
    from backpack import backpack as extensions
    from backpack import extend
    from backpack.extensions import SumGradSquared

    extended, criterion = extend(model, use_converter=not isinstance(model, nn.Sequential)), extend(nn.MSELoss())

    def run() -> Diagonals:
        model.zero_grad()
        with extensions(SumGradSquared()):
            criterion(extended(batch[0]), batch[1]).backward()
        squares = {name: parameter.sum_grad_squared for name, parameter in model.named_parameters()}  # type: ignore[attr-defined]
        torch._foreach_mul_(list(squares.values()), len(batch[0]))
        return squares

    return run


def nngeometry(model: nn.Module, batch: Batch) -> Callable[[], Diagonals]:
    """Nngeometry's diagonal of the second moment of gradients of a function, here of the loss of each sample."""
    from nngeometry.jacobian import Jacobian
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    layers = LayerCollection.from_model(model)
    loader = DataLoader(TensorDataset(*batch), batch_size=len(batch[0]))

    def losses(x: Tensor, y: Tensor) -> Tensor:
        prediction: Tensor = model(x)
        return (prediction - y).square().mean(1, keepdim=True)

    def run() -> Diagonals:
        flat = Jacobian(model, loader, losses, PMatDiag, layers).get_diag()
        parameters = dict(model.named_parameters())
        parts = flat.split([parameter.numel() for parameter in parameters.values()])
        return {name: part.view_as(parameters[name]) for name, part in zip(parameters, parts, strict=True)}

    return run


METHODS: dict[str, Method] = {
    "forward + backward": forward_backward,
    "awc_balance": awc_balance,
    "vmap(grad)": vmap_of_grad,
    "BackPACK": backpack,
    "nngeometry": nngeometry,
}


PACKAGES = {"BackPACK": "backpack-for-pytorch", "nngeometry": "nngeometry"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def exact(model: nn.Module, batch: Batch) -> Diagonals:
    """By autograd, one sample at a time."""
    parameters = {("m", name): parameter for name, parameter in model.named_parameters()}
    objective = Objective(model, mse_loss, default_step)
    gradients, _, _ = one_by_one(objective, parameters, list(batch), tuple)
    return {name: gradient.square().mean(0) for (_, name), gradient in gradients.items()}


def error_of(found: Diagonals, expected: Diagonals) -> float:
    """The largest difference, relative to the largest element of the same parameter's diagonal."""
    errors = [float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items()]
    return max(errors)


def batch_for(shape: tuple[int, ...], samples: int, device: torch.device) -> Batch:
    """Random inputs and targets."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(samples, *size, generator=generator) for size in (shape, (OUTPUTS,)))
    return x.to(device), y.to(device)


def measure(name: str, samples: int, rounds: int, quick: bool, device: torch.device) -> dict[str, Any]:
    """Ratios and errors of all methods on one model."""
    model, shape = build(name, quick, device)
    batch = batch_for(shape, samples, device)
    expected = exact(model, batch)
    runs: dict[str, Callable[[], Diagonals]] = {}
    result: dict[str, Any] = {}
    for method, prepare in METHODS.items():
        try:
            run = prepare(build(name, quick, device)[0], batch)
            found = run()
            error = None if method == "forward + backward" else error_of(found, expected)
        except Exception as failure:
            absent = isinstance(failure, ModuleNotFoundError)
            result[method] = {"fails": "not installed" if absent else _first_line(failure)}
            continue
        runs[method], result[method] = run, {"max_relative_error": error}
    for method, ratio in ratios(runs, rounds, device).items():
        result[method]["cost"] = round(ratio, 3)
        result[method]["extra_peak_mb"] = memory_in_own_process(name, method, samples, quick, device)
    result["awc_balance"]["coverage"] = coverage(name, batch, quick, device)
    return result


def ratios(runs: dict[str, Callable[[], Diagonals]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median over rounds of the time relative to the first of them in the same round; each runs twice, and once timed.

    The time is that of the processor on a CPU, which other processes disturb least, and that of the clock elsewhere.
    """
    times: dict[str, list[float]] = {method: [] for method in runs}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(rounds):
        for method, run in runs.items():
            run()
            synchronize(device)
            start = clock()
            run()
            synchronize(device)
            times[method].append(clock() - start)
    yardstick = times["forward + backward"]
    return {
        method: statistics.median(t / base for t, base in zip(taken, yardstick, strict=True))
        for method, taken in times.items()
    }


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def coverage(name: str, batch: Batch, quick: bool, device: torch.device) -> dict[str, int]:
    """How many parameters went which way."""
    model, _ = build(name, quick, device)
    fisher = FisherDiagonal({"m": model})
    fisher.estimate([batch], model, mse_loss)
    ways = list(fisher.coverage["m"].values())
    return {way: ways.count(way) for way in dict.fromkeys(ways)}


def memory_in_own_process(name: str, method: str, samples: int, quick: bool, device: torch.device) -> int:
    """Peak memory in MB of a method beyond what lies there before it; -1 where the system does not tell."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return int(pool.apply(_memory, (name, method, samples, quick, device.type)))


def _memory(name: str, method: str, samples: int, quick: bool, device_type: str) -> int:
    torch.set_num_threads(1)
    device = torch.device(device_type)
    model, shape = build(name, quick, device)
    METHODS[method](model, batch_for(shape, 4, device))()  # loads what is loaded at the first call
    run = METHODS[method](build(name, quick, device)[0], batch_for(shape, samples, device))
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) // 2**20
    resident = _status_kb("VmRSS")
    if resident is None:
        return -1
    Path("/proc/self/clear_refs").write_text("5")  # from here the peak is counted anew
    run()
    return max(0, (_status_kb("VmHWM") or 0) - resident) // 1024


def _status_kb(field: str) -> int | None:
    """The memory of this process at present (VmRSS) or at most (VmHWM), where the system tells."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)


def table(results: dict[str, dict[str, Any]]) -> str:
    """In Markdown: cost, extra memory and error by model and method."""
    lines = ["| model | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for name, result in results.items():
        lines.append(f"| {name} | " + " | ".join(_cell(result[method]) for method in METHODS) + " |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any]) -> str:
    if "fails" in figures:
        return f"fails: {figures['fails']}" if figures["fails"] != "not installed" else "not installed"
    error = figures["max_relative_error"]
    return f"{figures['cost']:.2f}, {figures['extra_peak_mb']} MB" + ("" if error is None else f", {error:.0e}")


def _first_line(failure: Exception) -> str:
    return f"{type(failure).__name__}: {str(failure).strip().splitlines()[0] if str(failure) else ''}"[:120]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="(all)")
    parser.add_argument("--samples", type=int, default=64, help="in the batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="of which the median counts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="narrow models, 16 samples, 3 rounds: only to try it out")
    parser.add_argument("--result", type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples, rounds = (16, 3) if args.quick else (args.samples, args.rounds)
    warnings.simplefilter("ignore")  # the other libraries' about hooks, ours about falling back
    results = {name: measure(name, samples, rounds, args.quick, device) for name in args.models}
    others = {name: _version(package) for name, package in PACKAGES.items()}
    header = {"hardware": hardware(device), "versions": versions() | others, "samples": samples, "rounds": rounds}
    print(
        table(results), "\nCost relative to forward + backward, peak memory beyond the start, largest relative error."
    )
    if args.result is not None:
        args.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.result, {**header, "quick": args.quick, "models": results})


if __name__ == "__main__":
    main()
