"""Made-up results of runs, in the form that training gives."""

from dataclasses import asdict

import numpy as np

from examples.mmfi.settings import Settings


def result(settings: Settings, mpjpe: float, *, simulated: bool = True, epochs: int = 2, scale: float = 1.0) -> dict:
    """A result with the given error; the better the modality, the larger its contribution and spread."""
    worth = {modality: scale / (rank + 1) for rank, modality in enumerate(settings.modalities)}
    rng = np.random.default_rng(settings.seed)
    pose = rng.normal((0, 0, 3000), (300, 500, 100), size=(4, 17, 3))
    profits = {"pearson": worth, "negative_mse": dict(zip(worth, reversed(worth.values()), strict=True))}
    return {
        "run": asdict(settings),
        "simulated": simulated,
        "test": {"mpjpe_mm": mpjpe, "pa_mpjpe_mm": 0.6 * mpjpe},
        "test_last_epoch": {"mpjpe_mm": mpjpe, "pa_mpjpe_mm": 0.6 * mpjpe},
        "spread_mm": {modality: 80 * value for modality, value in worth.items()} | {"target": 100.0},
        "poses": {"true": pose.tolist(), "predicted": (pose + 30).tolist()},
        "epochs": [{"loss": 0.1, "held_out_mm": mpjpe, **profits} for _ in range(epochs)],
        "awc": [],
    }
