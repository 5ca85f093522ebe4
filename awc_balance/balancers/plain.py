"""Plain joint training behind the interface of the methods: `Plain`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from awc_balance.balancers.balancer import Balancer


class Plain(Balancer):
    """Plain joint training: the neutral element, and the baseline of any comparison.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        >>> balancer = Plain(model, {"table": model[0]}, nn.functional.mse_loss)
        >>> loader = [(torch.randn(8, 3), torch.randn(8, 1))]
        >>> balancer.start_epoch(loader)
        >>> balancer.loss(loader[0]).equal(nn.functional.mse_loss(model(loader[0][0]), loader[0][1]))
        True
    """

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        return self._plain(batch)
