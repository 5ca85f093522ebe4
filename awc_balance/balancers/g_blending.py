"""G-Blending: a weighted sum of the joint and the uni-modal losses, by how each overfits and generalises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from awc_balance.balancers.heads import HeadedBalancer
from awc_balance.balancers.rows import Pool
from awc_balance.batches import Step, iterate
from awc_balance.checks import check_count, check_numbers
from awc_balance.encoders import Encoders
from awc_balance.fisher.objective import Criterion
from awc_balance.preserve import measuring

JOINT = "joint"
"""The name of the stream of the whole model, beside the modalities."""

SMALLEST_WEIGHT = 1e-3
"""Below it a stream would not train at all, and never show merit again."""


class Losses(NamedTuple):
    """The losses of one stream at one time."""

    train: float
    held_out: float


Curves: TypeAlias = Mapping[str, tuple[Losses, Losses]]
"""The losses of every stream at the start and at the end of some epochs."""


class GBlending(HeadedBalancer):
    """Train a head on every modality along with the model, each loss weighted by how its stream generalises.

    "What Makes Training Multi-Modal Classification Networks Hard?", CVPR 2020, arXiv 1905.12681. The loss is
    sum_k w_k L_k + w_joint L_joint. Over some epochs let O = L_held_out - L_train, dO its growth and G the fall of
    L_held_out; the weights are proportional to G_k / dO_k^2 and sum to 1.

    What the paper did: classes, up to three modalities; for each of the M + 1 streams a copy of the model was trained
    on that stream alone for n epochs from the present state, once ("offline") or every 10 epochs ("online"), and
    measured on a held-out part of the training data.

    What this port chose: a balancer has no training loop of its own, so the streams are measured in the run itself,
    at the start of every super-epoch, and the weights follow from the super-epoch that ended; until the first has
    ended all weigh the same. This costs one pass over both loaders per super-epoch in place of (M + 1) n epochs, but
    encoders have been trained by all streams, not by one. For the paper's own estimate train copies of the model in
    your loop with `weights=` all on one stream, measure each with `measure`, and pass what `g_blending_weights` makes
    of it. Guards: max(G, 0), because a stream that got worse has no merit; a thousandth of the mean dO^2 in the
    denominator; weights of at least 1e-3. Regression and more modalities are direct. With attention or any other
    fusion, heads take pooled features from before the fusion.

    Traps: the held-out samples must not be trained on, and not be the test set. A stream whose dO is near 0 by
    chance takes most of the weight. Weights sum to 1, so the joint loss, and with it the step of SGD, gets smaller.

    Args:
        model: Any module.
        encoders: The part of the model that belongs to each modality; none may be called "joint".
        criterion: `criterion(prediction, target)`, the mean task loss of a batch, for the heads too.
        heads: By modality; see `linear_heads`.
        held_out: Batches kept from the training data, to estimate the weights from.
        weights: Fixed ones by modality and for "joint", in place of an estimate. All on "joint" is plain training.
        super_epoch: How many epochs the weights hold.
        pool: How to make rows of features, as given to `linear_heads`.
        window: How many epochs, from the first, the method works; None is all.
        step: How to read a batch; see `Balancer`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If not exactly one of `held_out` and `weights` is given, or an option is out of its range.

    Example:
        >>> from awc_balance.balancers.heads import linear_heads
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> encoders, batch = {"table": model[0]}, (torch.randn(8, 3), torch.randn(8, 1))
        >>> heads = linear_heads(model, encoders, batch)
        >>> balancer = GBlending(model, encoders, nn.functional.mse_loss, heads, held_out=[batch])
        >>> balancer.start_epoch([batch])
        >>> balancer.loss(batch).backward(); balancer.adjust_gradients_()
        >>> balancer.weights
        {'table': 0.5, 'joint': 0.5}
    """

    _saved: ClassVar[tuple[str, ...]] = ("weights", "measured")

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        criterion: Criterion,
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        held_out: Iterable[Any] | None = None,
        weights: Mapping[str, float] | None = None,
        super_epoch: int = 10,
        pool: Pool | None = None,
        window: int | None = None,
        step: Step | None = None,
    ) -> None:
        """See the class."""
        super().__init__(model, encoders, criterion, heads, pool=pool, window=window, step=step)
        if JOINT in self.modalities:
            raise ValueError(f"No modality may be called {JOINT!r}, the name of the whole model. Rename it.")
        if (held_out is None) == (weights is None):
            raise ValueError(
                "Exactly one of `held_out` and `weights` should be given. "
                f"Got {'neither' if weights is None else 'both'}. "
                "Pass batches kept from the training data to estimate weights, or fixed weights."
            )
        check_count("super_epoch", super_epoch, 1)
        self._held_out = held_out
        self.super_epoch = super_epoch
        self.weights = dict.fromkeys(self.streams, 1 / len(self.streams))
        self.measured: dict[str, tuple[float, float]] = {}
        if weights is not None:
            self.weights = _checked(weights, self.streams)

    @property
    def streams(self) -> list[str]:
        """The modalities, and "joint"."""
        return [*self.modalities, JOINT]

    def measure(self, loader: Iterable[Any]) -> dict[str, float]:
        """The mean loss of every stream over a loader, in evaluation mode; nothing is changed.

        Raises:
            ValueError: If the loader is empty, or a loss is not finite.
        """
        total, count = dict.fromkeys(self.streams, 0.0), 0
        with measuring(self._user[1], self.heads, loader=loader), torch.no_grad():
            for batch in iterate(loader):
                run = self._run(batch)
                joint, single = self._losses(run)
                count += run.samples
                for stream, loss in {**single, JOINT: joint}.items():
                    total[stream] += run.samples * float(loss)
        return check_numbers("the losses", {stream: value / count for stream, value in total.items()}, self.streams)

    def _prepare(self, loader: Iterable[Any]) -> None:
        if self._held_out is None or self.epoch % self.super_epoch:
            return
        train, held_out = self.measure(loader), self.measure(self._held_out)
        now = {stream: (train[stream], held_out[stream]) for stream in self.streams}
        if self.measured:
            self.weights = g_blending_weights({s: (Losses(*self.measured[s]), Losses(*now[s])) for s in now})
        self.measured = now

    def _balanced(self, batch: Any) -> Tensor:  # noqa: ANN401
        if all(self.weights[modality] == 0 for modality in self.modalities):
            loss = self._plain(batch)
            return loss if self.weights[JOINT] == 1 else self.weights[JOINT] * loss
        joint, single = self._losses(self._run(batch, keep_gradient=True))
        terms = [self.weights[stream] * loss for stream, loss in {**single, JOINT: joint}.items()]
        return torch.stack(terms).sum()


def g_blending_weights(curves: Curves) -> dict[str, float]:
    """Weights that sum to 1 and prefer streams that generalise: G / dO^2, with the guards that `GBlending` names.

    They do not depend on the unit of the loss. Where no stream got better they are equal.

    Args:
        curves: The losses of every stream at the start and at the end.

    Raises:
        ValueError: If there is no stream, or a loss is not finite.

    Example:
        >>> start = Losses(train=1.0, held_out=1.0)
        >>> weights = g_blending_weights({
        ...     "overfits": (start, Losses(train=0.1, held_out=0.9)), "learns": (start, Losses(train=0.5, held_out=0.6))
        ... })
        >>> weights["learns"] > 0.99
        True
    """
    if not curves:
        raise ValueError("`curves` should hold at least one stream. Got none. Pass the losses of every stream.")
    for stream, (start, end) in curves.items():
        if not all(isfinite(loss) for loss in (*start, *end)):
            raise ValueError(
                f"Losses should be finite. Got {(*start, *end)} for `{stream}`. Look for the cause in its training."
            )
    gains = {s: max(start.held_out - end.held_out, 0.0) for s, (start, end) in curves.items()}
    growths = {
        s: ((end.held_out - end.train) - (start.held_out - start.train)) ** 2 for s, (start, end) in curves.items()
    }
    guard = 1e-3 * sum(growths.values()) / len(growths)
    merits = {s: gains[s] / (growths[s] + guard) if guard else gains[s] for s in curves}
    total = sum(merits.values())
    if not total:
        return dict.fromkeys(curves, 1 / len(curves))
    clipped = {s: max(merit / total, SMALLEST_WEIGHT) for s, merit in merits.items()}
    return {s: weight / sum(clipped.values()) for s, weight in clipped.items()}


def _checked(weights: Mapping[str, float], streams: list[str]) -> dict[str, float]:
    """Fixed weights: at least 0, and not all 0."""
    numbers = check_numbers("weights", weights, streams)
    if min(numbers.values()) < 0 or not any(numbers.values()):
        raise ValueError(
            f"`weights` should be at least 0, and one of them above. Got {numbers}. "
            "Pass numbers that sum to 1, such as those of g_blending_weights."
        )
    return numbers
