"""Errors of 3D poses: MPJPE and PA-MPJPE, as the human-pose literature reports them."""

from __future__ import annotations

import torch
from torch import Tensor


def joint_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Euclidean distance of every joint, `[..., joints]`, from poses `[..., joints, 3]`, in their unit."""
    errors: Tensor = torch.linalg.vector_norm(prediction - target, dim=-1)
    return errors


def mpjpe(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint position error of poses `[batch, joints, 3]`, without any alignment.

    Differentiable: the gradient where a joint is met exactly is 0. In the unit of the poses.
    """
    return joint_errors(prediction, target).mean()


def procrustes(prediction: Tensor, target: Tensor) -> Tensor:
    """Move each predicted pose onto its target by the best translation, rotation and scale.

    The closed form of Umeyama (1991), reflections excluded, computed in float64. A pose whose joints all
    coincide has no orientation or scale: it is moved onto the target's centre.

    Args:
        prediction: Poses `[batch, joints, 3]`.
        target: Poses of the same shape.

    Returns:
        The aligned predictions, `[batch, joints, 3]`, float64.
    """
    prediction, target = prediction.double(), target.double()
    centre = target.mean(dim=-2, keepdim=True)
    moved = prediction - prediction.mean(dim=-2, keepdim=True)
    fixed = target - centre
    left, singular, right = torch.linalg.svd(fixed.mT @ moved)
    signs = torch.ones_like(singular)
    signs[..., -1] = torch.where(torch.linalg.det(left @ right) < 0, -1.0, 1.0)
    rotation = left @ (signs.unsqueeze(-1) * right)
    spread = moved.square().sum(dim=(-2, -1))
    scale = torch.where(spread > 0, (singular * signs).sum(-1) / spread.where(spread > 0, 1.0), 0.0)
    aligned: Tensor = scale[..., None, None] * (moved @ rotation.mT) + centre
    return aligned


def pa_mpjpe(prediction: Tensor, target: Tensor) -> Tensor:
    """MPJPE after each pose was aligned with its target by `procrustes`, in the unit of the poses."""
    return mpjpe(procrustes(prediction, target), target.double())
