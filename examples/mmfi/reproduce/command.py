"""The command `reproduce`: runs what stands behind a table or figure and prints it beside the published numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from awc_balance.report.files import write_whole
from examples.mmfi.assignments import assignments
from examples.mmfi.conventions import MODALITIES
from examples.mmfi.models import PRESETS
from examples.mmfi.prepared import packed_copy
from examples.mmfi.protocols import PROTOCOLS
from examples.mmfi.reproduce import costs, figures, plans
from examples.mmfi.reproduce.output import of_protocol, report
from examples.mmfi.reproduce.plans import Plan
from examples.mmfi.reproduce.runs import finished, scaled
from examples.mmfi.settings import Settings
from examples.report import Results, markdown_table
from examples.sweep import sweep, write_json

Draw = Callable[[Results, Path], Path]


@dataclass(frozen=True)
class Target:
    """A table or figure: what it is, its plan by the number of epochs, and its picture if it has one."""

    purpose: str
    plan: Callable[[int], Plan]
    draw: Draw | None = None
    judged: bool = False


TARGETS = {
    "table1": Target("other systems, and balancing methods by fusion: 21 runs by protocol and seed", plans.table1),
    "table3": Target("modalities alone, in pairs, all four", lambda _: plans.table3()),
    "table4": Target("strengths of the constraint, alpha superior / inferior", plans.table4),
    "fig3": Target("spread of predictions from each modality of the joint model", plans.plain, figures.spreads),
    "fig4": Target("contribution by epoch, Pearson and negative MSE", plans.plain, figures.contributions),
    "fig5": Target("true and predicted skeletons in 3D, plain and AWC", plans.poses, figures.skeletons),
    "fig6": Target("sensitivity to the learning window K", plans.windows, figures.windows),
    "findings": Target("which of the paper's findings appear", plans.findings, figures.errors, judged=True),
}
TABLE2 = "table2"
_PURPOSES = {name: target.purpose for name, target in TARGETS.items()} | {
    TABLE2: "cost of a step and what contributions add to it"
}
_NOT_SHARED = {"name", "data", "seed", "protocol", "modalities", "fusion", "epochs", "preset"} | {
    "wifi_encoder",
    "method",
    "method_options",
}
"""Settings that plans or other options choose."""
_DESCRIPTION = """
Does the runs behind a table or figure and puts what they give beside the published numbers. A finished run is
kept in OUT/runs and used again, also by other tables; an interrupted sweep continues where it stopped. Text goes
to OUT/NAME.md, data to OUT/NAME.json, pictures to OUT/NAME-PROTOCOL.png.

Tables are numbered as in the paper. For figures the number is that of this example, in the paper's order; the
paper's own may differ. With fewer epochs than the paper's 50, learning windows and the drop of the learning rate
come earlier in proportion. What is made from simulated data says so and is no result on MM-Fi.
"""
_TRIAL = """
to see in a minute that everything works, on a small copy such as `simulate` and `pack` make:
  python -m examples.mmfi reproduce fig5 --data PACKED --out results/trial --preset tiny --epochs 2 --seeds 1 \\
      --set batch_size=16 every=4 lidar_points=32 mmwave_points=16 measured_frames=64
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = _DESCRIPTION
    names = "\n".join(f"  {name:9}{why}" for name, why in sorted(_PURPOSES.items()))
    parser.epilog = f"what NAME can be:\n{names}\n{_TRIAL}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=sorted(_PURPOSES), metavar="NAME", help="table or figure, see below")
    add_run_options(parser, required=True, epochs=50, seeds=3, preset="paper")
    parser.add_argument("--out", type=Path, default=Path("results/mmfi"), help="where results go (%(default)s)")
    parser.add_argument(
        "--protocols", nargs="+", choices=list(PROTOCOLS), help="(default: those of the paper's table; P1 for figures)"
    )


def add_run_options(parser: argparse.ArgumentParser, *, required: bool, epochs: int, seeds: int, preset: str) -> None:
    """Add the options that say what the runs have in common."""
    parser.add_argument(
        "--data", type=Path, required=required, metavar="ROOT",
        help="a packed copy, or the original files, which are packed first into a folder beside OUT",
    )  # fmt: skip
    parser.add_argument("--preset", choices=list(PRESETS), default=preset, help="widths of the model (%(default)s)")
    parser.add_argument("--seeds", type=int, default=seeds, help="runs of each kind (%(default)s)")
    parser.add_argument("--epochs", type=int, default=epochs, help="of each run (%(default)s)")
    parser.add_argument(
        "--workers", type=int,
        help="runs at a time, one thread each; 0: one after the other with all threads (default: 0 with a GPU, "
        "else one per core)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", dest="changes",
        help="other settings of all runs, such as batch_size=64 lidar_points=128; see examples/mmfi/settings.py",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status: 130 if it was interrupted."""
    common = scaled(Settings("", str(packed_copy(args.data, args.out)), preset=args.preset), args.epochs)
    common = changed(common, args.changes)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.name == TABLE2:
        return _table2(common, args.out)
    target = TARGETS[args.name]
    plan = target.plan(args.epochs)
    protocols = args.protocols or plan.protocols
    wanted = plans.runs_of(plan.rows, common, protocols, args.seeds)
    results = finished(wanted, args.out, args.workers)
    if not results:
        print("No run was finished.")
        return 130
    written = report(plan, results, common, protocols, args.out / args.name, judged=target.judged)
    if target.draw:
        mine = {protocol: of_protocol(results, protocol) for protocol in protocols}
        written += [target.draw(some, args.out / f"{args.name}-{name}.png") for name, some in mine.items() if some]
    print("written:", *(f"  {file}" for file in written), sep="\n")
    return 0 if len(results) == len(wanted) else 130


def changed(common: Settings, changes: Sequence[str]) -> Settings:
    """Settings with some `name=value` changed, values as in JSON; a bare word is a string.

    >>> changed(Settings("", "data"), ["batch_size=64", "split=S2"]).batch_size
    64

    Raises:
        ValueError: If a name is no setting that all runs can share.
    """
    known = sorted({field.name for field in fields(Settings)} - _NOT_SHARED)
    return replace(common, **assignments("--set", changes, known))


def _table2(common: Settings, out: Path) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = costs.timings(replace(common, modalities=MODALITIES), device)
    results = sweep(costs.measure, wanted, out / "timings", costs.describe, workers=0)
    if len(results) < len(wanted):
        return 130
    table = costs.summarize(results)
    write_json(out / f"{TABLE2}.json", table)
    write_whole(out / f"{TABLE2}.md", "## " + costs.as_text(table, markdown_table) + "\n")
    print(costs.as_text(table), "\nwritten:", *(f"  {out / TABLE2}{end}" for end in (".json", ".md")), sep="\n")
    return 0
