"""Balancers in the training loops of other packages, each of which is an extra and is imported on demand.

- `awc_balance.integrations.lightning`: a `Callback` of Lightning.
- `awc_balance.integrations.transformers`: a `TrainerCallback` of Transformers, and a `Trainer` whose loss is a
  balancer's.
- `awc_balance.integrations.accelerate`: the lines of a loop that is prepared by Accelerate.

| | gradients are changed | so clipping |
|---|---|---|
| Lightning | before they are clipped | includes what the balancer did |
| Transformers | after they were clipped | leaves what the balancer did alone |
| Accelerate | where you call it | is up to you |

Held-out batches that a balancer was given, as AWC is with rule="calibration", are brought to the device and into the
precision of the training as training batches are: pass the plain loader.
"""
