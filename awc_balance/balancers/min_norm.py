"""The shortest convex combination of two gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_EDGE = 1e-3
"""The smallest weight where the shorter gradient is itself the solution, as in the public multi-task solver."""


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The inner product of two gradients given as lists of tensors, in float64."""
    products = [(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]
    return float(torch.stack([product.to(products[0].device) for product in products]).sum()) if products else 0.0


def min_norm_weights(aa: float, ab: float, bb: float) -> tuple[float, float]:
    """Weights w, 1 - w from 0 to 1 that make |w a + (1 - w) b| smallest, from the inner products of a and b.

    The minimum has a non-negative inner product with both. Where it is at a or at b itself, the weight is kept at
    0.999, so that neither is lost. Two zeros weigh the same.

    Example:
        >>> min_norm_weights(1.0, 0.0, 3.0)
        (0.75, 0.25)
    """
    if aa == 0 and bb == 0:
        return 0.5, 0.5
    if ab >= aa:
        weight = 1 - _EDGE
    elif ab >= bb:
        weight = _EDGE
    else:
        weight = (bb - ab) / (aa - 2 * ab + bb)
    return weight, 1 - weight
