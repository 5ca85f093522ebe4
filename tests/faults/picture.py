"""What an object and its model are at a moment, bit for bit, and calls that may fail but not change them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from awc_balance import FisherDiagonal, ShapleyContribution
from tests.test_nothing_is_changed import picture

REFUSALS = (RuntimeError, TypeError, ValueError)
"""What the library raises by itself, always with the rule, the value and the remedy."""


class BrokenError(OSError):
    """What the user's own loader raises."""


def plain(value):
    """The same as values that `==` compares bit for bit."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist())
    if isinstance(value, torch.Generator):
        return plain(value.get_state())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, nn.Module):
        return plain(value.state_dict())
    if type(value).__module__.startswith("awc_balance") and hasattr(value, "__dict__"):
        return plain(vars(value))
    return value if isinstance(value, int | float | str | None) else type(value).__name__


def inside(tool):
    """All that an object of the library holds of its own."""
    if isinstance(tool, ShapleyContribution):
        return plain({**vars(tool._measurement), "_user": None, "_design": None, "_profit": None})
    if isinstance(tool, FisherDiagonal):
        return plain({**vars(tool), "encoders": None})
    noted = {
        name: getattr(tool, name) for name in ("_seen", "_calls", "weights", "coefficients") if hasattr(tool, name)
    }
    return plain([tool.state_dict(), noted])


def whole(tool, model):
    """The object, and the model with its modes, hooks, gradients and the global random state."""
    seen = picture(model)
    return [inside(tool), {name: plain(seen[name]) for name in seen}]


def refused(call, tool, model, errors=REFUSALS):
    """Call what has to fail, and see that it says what to do and changes nothing; returns the message."""
    before = copy.deepcopy(whole(tool, model))
    with pytest.raises(errors) as caught:
        call()
    assert whole(tool, model) == before, f"changed by what raised {caught.value!r}"
    if errors is REFUSALS:
        helps(caught.value)
    return str(caught.value)


def helps(error):
    """Rule, value, remedy: at least two sentences."""
    assert str(error).endswith("."), error
    assert len(str(error).split(". ")) > 1, error
