"""`reproduce`: the runs behind the paper's tables and figures, and what they give beside the published numbers."""

from examples.mmfi.reproduce.command import add_arguments, run

__all__ = ["add_arguments", "run"]
