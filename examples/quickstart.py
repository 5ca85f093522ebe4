"""The loop of the README on data it makes: two simulated sensors, one of which carries nearly everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from awc_balance import AWCRegularizer, ShapleyContribution


class Fused(nn.Module):
    """Two encoders, concatenation, a head."""

    def __init__(self) -> None:
        """A small model."""
        super().__init__()
        self.camera = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16))
        self.radio = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(32, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """From both inputs to three coordinates."""
        prediction: Tensor = self.head(torch.cat([self.camera(inputs["camera"]), self.radio(inputs["radio"])], dim=1))
        return prediction


def simulated(samples: int) -> DataLoader[tuple[dict[str, Tensor], Tensor]]:
    """Three coordinates; the camera sees them well, the radio hardly, in much noise."""
    target = torch.randn(samples, 3)
    mixing = torch.Generator().manual_seed(1)
    camera = target @ torch.randn(3, 6, generator=mixing) + 0.3 * torch.randn(samples, 6)
    radio = 0.2 * target @ torch.randn(3, 20, generator=mixing) + torch.randn(samples, 20)
    data = [({"camera": camera[i], "radio": radio[i]}, target[i]) for i in range(samples)]
    return DataLoader(data, batch_size=32, shuffle=True)  # type: ignore[arg-type]  # a list will do


def main() -> None:
    """Train with AWC for a few epochs and show what it saw."""
    torch.manual_seed(0)
    train, test = simulated(512), simulated(512)
    model = Fused()
    encoders = {"camera": model.camera, "radio": model.radio}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    awc = AWCRegularizer(model, encoders, mse_loss, alpha_superior=2.0, alpha_inferior=1.0, window=4, scale="root_mean")
    for _ in range(8):
        awc.start_epoch(train)
        for inputs, target in train:
            loss = mse_loss(model(inputs), target) + awc()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    print("epoch  window  camera            radio")
    for row in awc.history:
        cells = [f"{row['contributions'][m]:.3f} {row['groups'][m]:9}" for m in encoders]
        print(f"{row['epoch']:5}  open    {'   '.join(cells)}")
    print("On test data:", ShapleyContribution(model, encoders).evaluate(test))


if __name__ == "__main__":
    main()
