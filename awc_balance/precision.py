"""Arithmetic that keeps its precision: float32 or better, real or complex."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own dtype if that is finer: squares of half-precision numbers underflow."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def squared(tensor: Tensor) -> Tensor:
    """The squared modulus of every element."""
    return tensor.abs().square() if tensor.is_complex() else tensor.square()
