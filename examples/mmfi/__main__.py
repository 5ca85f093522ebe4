"""The command line of the MM-Fi experiment: `python -m examples.mmfi COMMAND --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

# A command is a module of this package with `add_arguments(parser)` and `run(args) -> int`.
COMMANDS = {
    "simulate": "write simulated clips in the layout of MM-Fi, for trying everything without the data",
    "doctor": "look at a copy of MM-Fi and say what is there and what to do",
    "pack": "turn a copy's small files into large arrays, once, before training",
    "train": "train one model on a packed copy and test it",
    "reproduce": "do the runs behind a table or figure of the paper and show them beside the published numbers",
    "demo": "everything in minutes on simulated data, or on your copy",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 fine, 1 it found faults, 2 it could not run, 130 it was stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m examples.mmfi", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in given[:1]:  # the others need not be imported
            module = import_module(f"examples.mmfi.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(given)
    try:
        return int(args.run(args))
    except (ValueError, OSError) as error:
        print(f"{parser.prog} {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{parser.prog} {args.command}: stopped. The same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
