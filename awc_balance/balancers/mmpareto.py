"""MMPareto: gradients of joint and uni-modal losses that do not undo each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from awc_balance.balancers.heads import HeadedBalancer

# The two-task solver is one formula. TorchJD has it for any number of tasks, at the price of a dependency that solves
# a quadratic program and takes a matrix of whole gradients, where three inner products are enough.
from awc_balance.balancers.min_norm import inner, min_norm_weights
from awc_balance.balancers.rows import Pool
from awc_balance.batches import Step
from awc_balance.checks import check_alpha
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.precision import at_least_float32

_SCALES = (2.0**16, 2.0**8, 1.0)
"""Of the loss, tried in this order until no gradient overflows, so that small ones do not underflow in float16. Powers
of two change nothing else."""


class MMPareto(HeadedBalancer):
    """Train a head on every modality, and give each encoder a direction that serves both its losses.

    "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance", ICML 2024, arXiv 2405.17730. For each
    encoder let g_mm be the gradient of the joint loss and g_uni that of its own head's. Where they agree (cosine
    above 0) both weigh (k0, k1) = (1/2, 1/2), else they have the weights of the shortest convex combination, which
    has a non-negative inner product with both. The encoder gets h = 2 k0 g_mm + 2 k1 g_uni, every tensor of it scaled
    by gamma * max(1, |g_mm + g_uni| / |h|). The heads and the fusion get the gradient of the plain sum of losses.

    What the paper did: classes, two modalities, gamma = 1.5, SGD, all epochs; four backward passes per step.

    What this port chose: nothing in the method depends on the loss or on the number of modalities, so regression and
    more than two are direct, with linear heads on pooled features (`linear_heads`). The gradients are taken inside
    `loss`, one pass for the joint loss and one for the sum of the heads' losses, and the difference between h and
    the plain sum enters the loss as a linear term of value 0; so accumulation, clipping and scaled losses work as
    always. There is no strength that reaches 0; `window=0` is plain training.

    Traps: gamma scales gradients, so **under Adam gamma has no effect**, while the direction has. The inner products
    are those of the whole encoder; scaling tensor by tensor can turn the direction. An encoder that feeds another
    one gets that one's head as a part of g_uni.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality.
        criterion: `criterion(prediction, target)`, the mean task loss of a batch, for the heads too.
        heads: By modality; see `linear_heads`.
        gamma: The scale of the direction, above 0.
        pool: How to make rows of features, as given to `linear_heads`.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an option is out of its range.

    Example:
        >>> from awc_balance.balancers.heads import linear_heads
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> encoders, batch = {"table": model[0]}, (torch.randn(8, 3), torch.randn(8, 1))
        >>> balancer = MMPareto(model, encoders, nn.functional.mse_loss, linear_heads(model, encoders, batch))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer.add_param_group({"params": balancer.parameters()})
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
        >>> sum(balancer.weights["table"])
        1.0
    """

    _saved: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        gamma: float = 1.5,
        pool: Pool | None = None,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, heads, pool=pool, window=window, step=step)
        self.gamma = check_alpha("gamma", gamma)
        if not self.gamma:
            raise ValueError(
                "`gamma` should be above 0. Got 0, with which encoders stand still. Pass window=0 for plain training."
            )
        self.weights = dict.fromkeys(self.modalities, (0.5, 0.5))

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        joint, single = self._losses(self._run(batch, keep_gradient=True))
        heads = torch.stack(list(single.values())).sum()
        from_joint, from_heads = (_gradients(loss, self._encoders) for loss in (joint, heads))
        total, weights = joint + heads, {}
        for modality, encoder in self._encoders.items():
            parameters = [p for p in encoder.parameters() if p in from_joint or p in from_heads]
            mm, uni = ([found.get(p, torch.zeros_like(p)) for p in parameters] for found in (from_joint, from_heads))
            weights[modality], wanted = direction(mm, uni, self.gamma)
            for parameter, h, a, b in zip(parameters, wanted, mm, uni, strict=True):
                term = (parameter * (h - a - b)).sum()
                total = total + (term - term.detach()).to(total)
        self.weights = weights
        return total


def direction(mm: Sequence[Tensor], uni: Sequence[Tensor], gamma: float) -> tuple[tuple[float, float], list[Tensor]]:
    """The weights of the two gradients of an encoder, and the gradient that it gets, tensor by tensor.

    Raises:
        ValueError: If a gradient is not finite.
    """
    aa, ab, bb = inner(mm, mm), inner(mm, uni), inner(uni, uni)
    if not aa + bb < float("inf"):  # nan too
        raise ValueError(
            "The gradients of an encoder should be finite. Got nan or infinity from the joint loss or its head's. "
            "Look for the cause in the batch or the parameters."
        )
    weights = (0.5, 0.5) if ab > 0 else min_norm_weights(aa, ab, bb)
    found = []
    for a, b in zip(mm, uni, strict=True):
        h = 2 * weights[0] * a + 2 * weights[1] * b
        length = h.norm()
        # Where the two cancel, what is left is rounding: no direction to be made longer.
        cancelled = length <= 8 * torch.finfo(h.dtype).eps * (a.norm() + b.norm())
        longer = torch.where(cancelled, 1.0, (a + b).norm() / torch.where(cancelled, 1.0, length))
        found.append(gamma * longer.clamp(min=1) * h)
    return weights, found


def _gradients(loss: Tensor, encoders: Mapping[str, nn.Module]) -> dict[nn.Parameter, Tensor]:
    """The gradient of a loss by every parameter of the encoders that it depends on."""
    parameters = [p for encoder in encoders.values() for p in encoder.parameters() if p.requires_grad]
    if not parameters or not loss.requires_grad:
        return {}
    found: dict[nn.Parameter, Tensor] = {}
    for scale in _SCALES:
        scaled = torch.full_like(loss, scale)
        gradients = torch.autograd.grad(loss, parameters, scaled, retain_graph=True, allow_unused=True)
        found = {
            parameter: at_least_float32(gradient.to_dense()) / scale
            for parameter, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None
        }
        if all(bool(gradient.isfinite().all()) for gradient in found.values()):
            break
    return found
