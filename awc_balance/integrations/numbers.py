"""What a balancer has to show, as plain numbers for a logger: `numbers_of`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real

import torch

from awc_balance.balancers import AWC, Balancer

SHOWN = ("contributions", "alphas", "coefficients", "weights", "rate")
"""Attributes of balancers that say what they found and what they do about it."""


def numbers_of(balancer: Balancer) -> dict[str, float]:
    """Contributions, strengths and the like of the present epoch or step, and of AWC its penalty as it is now.

    With rule="calibration" the slopes that strengths come from are among them.

    Args:
        balancer: Any; what it does not have is left out.

    Returns:
        Finite numbers by a name such as "balance/contributions/rgb".

    Example:
        >>> from awc_balance.balancers import AGM
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        >>> numbers_of(AGM(model, {"table": model[0]}, torch.nn.functional.mse_loss))
        {'balance/coefficients/table': 1.0}
    """
    found: dict[str, float] = {}
    holders = [balancer, balancer.regularizer] if isinstance(balancer, AWC) else [balancer]
    for holder in holders:
        for name in SHOWN:
            found.update(_flat(f"balance/{name}", getattr(holder, name, None)))
    if isinstance(balancer, AWC) and balancer.active:
        found.update(_flat("balance/slopes", balancer.regularizer.history[-1].get("slopes")))
        with torch.no_grad():
            found["balance/penalty"] = float(balancer.regularizer())
    return found


def _flat(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, Real) and not isinstance(value, bool):
        yield name, float(value)
    parts = dict(enumerate(value)) if isinstance(value, tuple) else value
    if isinstance(parts, Mapping):
        for key, part in parts.items():
            yield from _flat(f"{name}/{key}", part)
