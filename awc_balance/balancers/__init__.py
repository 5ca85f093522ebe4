"""Published methods that balance modalities, behind one small interface.

```python
balancer = OGMGE(model, encoders, criterion)
for epoch in range(epochs):
    balancer.start_epoch(train_loader)
    for batch in train_loader:
        loss = balancer.loss(batch)  # in place of criterion(model(inputs), target)
        loss.backward()
        balancer.adjust_gradients_()
        optimizer.step()
        optimizer.zero_grad()
```
"""

from awc_balance.balancers.agm import AGM
from awc_balance.balancers.awc import AWC
from awc_balance.balancers.balancer import Balancer
from awc_balance.balancers.g_blending import GBlending, Losses, g_blending_weights
from awc_balance.balancers.heads import linear_heads
from awc_balance.balancers.inforeg import InfoReg
from awc_balance.balancers.mmpareto import MMPareto
from awc_balance.balancers.modality_resampling import ModalityResampling
from awc_balance.balancers.ogm_ge import OGMGE
from awc_balance.balancers.plain import Plain
from awc_balance.balancers.sample_resampling import SampleResampling

__all__ = [
    "AGM",
    "AWC",
    "OGMGE",
    "Balancer",
    "GBlending",
    "InfoReg",
    "Losses",
    "MMPareto",
    "ModalityResampling",
    "Plain",
    "SampleResampling",
    "g_blending_weights",
    "linear_heads",
]
