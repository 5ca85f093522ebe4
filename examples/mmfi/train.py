"""`train PACKED`: one model, trained and tested."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from awc_balance.fisher.diagonal import Form
from awc_balance.regularizer import Scale
from examples.mmfi import processes
from examples.mmfi.assignments import assignments
from examples.mmfi.conventions import MODALITIES
from examples.mmfi.methods import table_options
from examples.mmfi.models import ALL_FUSIONS, PRESETS, WIFI_ENCODERS
from examples.mmfi.prepared import describe
from examples.mmfi.protocols import PROTOCOLS, SPLITS
from examples.mmfi.settings import AWC, METHODS, PAPER_AWC, PLAIN, PRECISIONS, Resources, Settings
from examples.mmfi.training import train
from examples.sweep import file_stem, read_result, write_json

_DEFAULT = Settings(name="", data="")
_DESCRIPTION = """
Trains one model on a copy of MM-Fi that `pack` made, by default in the paper's setting, keeps the epoch that is
best on training clips set aside, and tests it. Writes OUT/NAME-....json with the result, and the weights beside
it. An interrupted run continues when the same command is given again; a finished one is not done again.
"""
_EPILOG = """
several GPUs: torchrun --nproc-per-node 2 -m examples.mmfi train PACKED ...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", metavar="PACKED", help="folder that `pack` wrote")
    parser.add_argument("--out", type=Path, default=Path("results/mmfi"), help="where results go (%(default)s)")
    parser.add_argument("--name", default="run", help="of the run, in tables and file names (%(default)s)")
    _add_model_options(parser.add_argument_group("model and data"))
    _add_training_options(parser.add_argument_group("training"))
    _add_method_options(parser.add_argument_group("balancing method"))
    _add_awc_options(parser.add_argument_group("AWC"))
    _add_resource_options(parser.add_argument_group("resources"))


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    settings = settings_of(args)
    file = args.out / f"{file_stem(settings, describe(settings))}.json"
    with processes.joined(processes.choose_device(args.device)):
        result = read_result(file) if file.exists() else None
        if result is None:
            try:
                result = train(settings, lambda: None, resources_of(args))
            except KeyboardInterrupt:
                print("Stopped. Run the same command again to go on from the last checkpoint.")
                return 130
            if processes.rank() == 0:
                write_json(file, result)
        if processes.rank() == 0:
            print(f"{summary(result)}\nin full: {file}")
    return 0


def settings_of(args: argparse.Namespace) -> Settings:
    """The run that the options describe.

    Raises:
        ValueError: If an option has no meaning, or a value is none that a run can have.
    """
    balancing = {"method": _method(args), "method_options": _method_options(args)}
    values = {field.name: getattr(args, field.name) for field in fields(Settings) if field.name not in balancing}
    return Settings(**values | balancing)


def _method(args: argparse.Namespace) -> str:
    if args.awc and args.method not in (None, AWC):
        raise ValueError(f"`--awc` is short for --method {AWC}. Got --method {args.method}. Leave one of them out.")
    method: str = AWC if args.awc else args.method or PLAIN
    return method


def _method_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the method: those of Table 1 unless they are given."""
    method = _method(args)
    given = {name: getattr(args, name) for name in PAPER_AWC.keys() | {"fisher", "scale"}}
    given = {name: value for name, value in sorted(given.items()) if value is not None}
    if given and method != AWC:
        raise ValueError(
            f"`{', '.join(given)}` should go with --awc. Got no --awc. Add it, or leave the option out, or give it to "
            "another method with --option."
        )
    if method == PLAIN and (args.option or args.method_frames is not None):
        name = "option" if args.option else "method_frames"
        raise ValueError(f"`{name}` should go with --method. Got no --method. Add it, or leave the option out.")
    return {**table_options(method, args.epochs), **given, **assignments("--option", args.option)}


def resources_of(args: argparse.Namespace) -> Resources:
    """What the options allow the run to use."""
    return Resources(
        device=args.device,
        workers=args.workers,
        checkpoints=str(args.out),
        checkpoint_steps=args.checkpoint_steps,
        weights=str(args.out),
        tensorboard=str(args.out / "tensorboard") if args.tensorboard else None,
        progress=True,
    )


def summary(result: dict[str, Any]) -> str:
    """The result in a few lines."""
    source = "simulated test clips" if result["simulated"] else "test clips"
    chosen = min(range(len(result["epochs"])), key=lambda i: (result["epochs"][i]["held_out_mm"], -i))
    row, test = result["epochs"][chosen], result["test"]
    lines = [
        f"{result['run']['name']}: MPJPE {test['mpjpe_mm']:.2f} mm, PA-MPJPE {test['pa_mpjpe_mm']:.2f} mm on {source}",
        f"epoch {chosen + 1} of {len(result['epochs'])}, best on the held-out clips ({row['held_out_mm']:.2f} mm)",
        f"{'':10}{'Pearson':>10}{'negative MSE':>14}{'prediction sd, mm':>19}",
    ]
    for modality, pearson in row["pearson"].items():
        negative_mse, spread = row["negative_mse"][modality], result["spread_mm"][modality]
        lines.append(f"{modality:10}{pearson:>10.3f}{negative_mse:>14.5f}{spread:>19.1f}")
    return "\n".join([*lines, f"{'true poses':10}{result['spread_mm']['target']:>43.1f}"])


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--modalities",
        nargs="+",
        default=MODALITIES,
        metavar="NAME",
        help=f"some of {', '.join(MODALITIES)} (default: all)",
    )
    _add_choice(group, "fusion", ALL_FUSIONS, "of the features; decision: the MM-Fi baseline's, x-fi: X-Fi's")
    _add_choice(group, "wifi_encoder", WIFI_ENCODERS, "of WiFi; hpe-li: the light one of HPE-Li")
    _add_choice(group, "preset", PRESETS, "widths of the model")
    _add_choice(group, "protocol", PROTOCOLS, "actions")
    _add_choice(group, "split", SPLITS, "into training and test clips")
    _add_number(group, "held_out", float, "share of the training clips to choose the epoch by")
    _add_number(group, "every", int, "use the first frame of a clip and every X-th after it")
    _add_number(group, "lidar_points", _count_or_all, "points a LiDAR frame is sampled to, or 'all': padded")
    _add_number(group, "mmwave_points", _count_or_all, "points a radar frame is sampled to, or 'all': padded")
    _add_number(group, "measured_frames", int, "held-out frames that contributions are measured on")


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    _add_number(group, "seed", int, "of weights, order, and held-out clips")
    _add_number(group, "epochs", int, "passes over the training frames")
    _add_number(group, "batch_size", int, "frames of an optimizer step, over all GPUs")
    _add_number(group, "accumulation", int, "parts that a batch is read in, to save memory")
    _add_number(group, "learning_rate", float, "of Adam")
    _add_number(group, "weight_decay", float, "of Adam")
    _add_number(group, "drop_every", int, "epochs after which the learning rate drops to a tenth")
    _add_choice(group, "precision", PRECISIONS, "of the arithmetic")


def _add_method_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--method", choices=METHODS, help=f"how modalities are balanced ({PLAIN}: not at all)")
    group.add_argument(
        "--option", nargs="+", default=[], metavar="NAME=VALUE",
        help="of the method, such as alpha=0.8 window=10; see its class in awc_balance.balancers (those of Table 1, "
        "with windows in proportion to the epochs)",
    )  # fmt: skip
    group.add_argument(
        "--method-frames", type=int, metavar="N",
        help="training frames that a method measures on at the start of an epoch, if it does (all)",
    )  # fmt: skip


def _add_awc_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--awc", action="store_true", help=f"short for --method {AWC}")
    for name, kind, meaning in (
        ("alpha_superior", float, "strength for superior modalities"),
        ("alpha_inferior", float, "strength for inferior modalities"),
        ("window", int, "epochs that it lasts, of 50 and in proportion"),
    ):
        group.add_argument(_option(name), type=kind, metavar="X", help=f"{meaning} ({PAPER_AWC[name]:g})")
    group.add_argument("--fisher", choices=get_args(Form), help="form of the Fisher diagonals (per_batch)")
    group.add_argument("--scale", choices=get_args(Scale), help="what they are divided by (raw: nothing)")


def _add_resource_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", help="cpu, cuda, ... (a GPU if there is one)")
    group.add_argument("--workers", type=int, default=2, help="processes that gather batches (%(default)s)")
    group.add_argument(
        "--checkpoint-steps", type=int, metavar="N", help="steps between checkpoints (one after every epoch)"
    )
    group.add_argument("--tensorboard", action="store_true", help="write scalars to OUT/tensorboard")


def _add_choice(group: argparse._ArgumentGroup, name: str, choices: Sequence[str] | dict[str, Any], what: str) -> None:
    default = getattr(_DEFAULT, name)
    group.add_argument(_option(name), choices=list(choices), default=default, help=f"{what} ({default})")


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else int(text)


def _add_number(group: argparse._ArgumentGroup, name: str, kind: Callable[[str], Any], what: str) -> None:
    default = getattr(_DEFAULT, name)
    group.add_argument(_option(name), type=kind, default=default, metavar="X", help=f"{what} ({default:g})")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
