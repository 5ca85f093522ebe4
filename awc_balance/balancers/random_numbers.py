"""Random numbers of one's own, so that the user's random state is left alone and a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class OwnRandom(nn.Module):
    """A generator per device, all from one seed; a module only because that saves its state with the balancer's.

    Args:
        seed: What they start from.
    """

    def __init__(self, seed: int) -> None:
        """See the class."""
        super().__init__()
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def normal_like(self, tensor: Tensor) -> Tensor:
        """Standard normal numbers in float32 or better, in the shape and on the device of a tensor."""
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return torch.randn(tensor.shape, generator=self._of(tensor.device), device=tensor.device, dtype=dtype)

    def uniform(self, count: int) -> Tensor:
        """Numbers from 0 to 1, on the CPU."""
        return torch.rand(count, generator=self._of(torch.device("cpu")))

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Take back what is drawn meanwhile if it ends in an exception."""
        before = self.get_extra_state()
        try:
            yield
        except BaseException:
            self.set_extra_state(before)
            raise

    def get_extra_state(self) -> dict[str, Tensor]:
        """The states of all generators."""
        return {device: generator.get_state() for device, generator in self._generators.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_extra_state` gave."""
        self._generators = {}
        for device, value in state.items():
            self._of(torch.device(device)).set_state(value.cpu())

    def _of(self, device: torch.device) -> torch.Generator:
        if str(device) not in self._generators:
            self._generators[str(device)] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[str(device)]
