"""Two processes that compute together."""

from __future__ import annotations

import gc
import os
import signal

import torch
import torch.distributed as dist
from torch import multiprocessing


def hear_ctrl_c():
    """For `preexec_fn`: a job in the background of a shell, as the tests may be, is started with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_two_processes(work, folder, *args):
    """Call `work(rank, *args)` in two processes joined by gloo; `work` is a function of a module."""
    multiprocessing.spawn(_join, ((folder / "store").as_uri(), work, args), nprocs=2)


def _join(rank, address, work, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    work(rank, *args)
    gc.collect()  # wrapped models sit in reference cycles, and use the group when they are freed
    dist.barrier()
    dist.destroy_process_group()
    # Now and then threads of torch outlive the interpreter, and its tear-down aborts: "terminate called without an
    # active exception". All is done and checked by now, so there is nothing to tear down.
    os._exit(0)
