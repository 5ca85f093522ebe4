from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Readings = dict[str, "Tensor | tuple[Tensor, Tensor]"]


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_inputs() -> Callable[..., Readings]:
    """Random readings of all modalities, with clouds of different sizes."""

    def make(batch: int, seed: int = 0, lidar: int = 48, mmwave: int = 24, dtype=torch.float32) -> Readings:
        random = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, dtype=dtype)

        def cloud(points: int, columns: int) -> tuple[Tensor, Tensor]:
            sizes = torch.randint(points // 2, points + 1, (batch, 1), generator=random)
            return normal(batch, points, columns), torch.arange(points) < sizes

        return {
            "rgb": normal(batch, 81, 17, 2),
            "lidar": cloud(lidar, 3),
            "mmwave": cloud(mmwave, 5),
            "wifi": torch.rand((batch, 3, 114, 10), generator=random, dtype=dtype),
        }

    return make
