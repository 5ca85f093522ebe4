"""Criteria that are means over elements, whose losses of single samples can be read off the elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_REDUCED = {F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss}
_DEFAULTS = {"size_average": None, "reduce": None, "weight": None}


def losses_by_element(criterion: Callable[[Any, Any], Any], prediction: Any, target: Any) -> Tensor | None:  # noqa: ANN401
    """The losses `[samples]` that a criterion has for every sample by itself, without running it for each.

    Returns:
        None, unless all that the criterion does is to call one of torch's losses of elements on this prediction and
        this target of the same shape. A criterion that looks at the loss may do otherwise for a single sample.
    """
    if not (isinstance(prediction, Tensor) and isinstance(target, Tensor)):
        return None
    if prediction.dim() == 0 or prediction.shape != target.shape:
        return None
    with _Unreduced(prediction, target) as seen:
        loss = criterion(prediction, target)
    return seen.losses if seen.calls == 1 and loss is seen.loss else None


class _Unreduced(TorchFunctionMode):
    """Takes a loss of elements apart by sample."""

    def __init__(self, prediction: Tensor, target: Tensor) -> None:
        super().__init__()
        self._pair = prediction, target
        self.calls = 0
        self.losses: Tensor | None = None
        self.loss: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Every function of torch that the criterion calls comes here."""
        kwargs = kwargs or {}
        self.calls += 1
        if func not in _REDUCED or not self._is_plain(args, kwargs):
            return func(*args, **kwargs)
        elements = func(*args, **{**kwargs, "reduction": "none"}).reshape(len(self._pair[0]), -1)
        self.losses = elements.sum(1) if kwargs.get("reduction") == "sum" else elements.mean(1)
        self.loss = self.losses.mean()
        return self.loss

    def _is_plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether all elements of the pair count alike."""
        same = len(args) == 2 and args[0] is self._pair[0] and args[1] is self._pair[1]
        reduced = kwargs.get("reduction", "mean") in ("mean", "sum")
        return same and reduced and all(kwargs.get(name) is value for name, value in _DEFAULTS.items())
