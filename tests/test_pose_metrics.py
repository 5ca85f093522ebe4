from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from examples.pose_metrics import joint_errors, mpjpe, pa_mpjpe, procrustes

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1e3)


def random_poses(seed, batch=4, joints=17):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(size=(batch, joints, 3)) + random.normal(size=3))


def random_rotation(seed):
    return torch.from_numpy(Rotation.random(random_state=seed).as_matrix())


def naive_aligned(prediction, target):
    """One pose: scipy's best orthogonal map, made proper by turning its weakest direction round."""
    moved, fixed = prediction - prediction.mean(axis=0), target - target.mean(axis=0)
    rotation, _ = orthogonal_procrustes(moved, fixed)
    if np.linalg.det(rotation) < 0:
        left, _, _ = np.linalg.svd(moved.T @ fixed)
        rotation = (np.eye(3) - 2 * np.outer(left[:, 2], left[:, 2])) @ rotation
    turned = moved @ rotation
    return turned * (turned * fixed).sum() / (turned * turned).sum() + target.mean(axis=0)


def naive_mpjpe(predictions, targets):
    errors = [
        np.linalg.norm(prediction - target)
        for poses in zip(predictions, targets, strict=True)
        for prediction, target in zip(*poses, strict=True)
    ]
    return np.mean(errors)


@given(seeds, st.integers(1, 5), st.integers(1, 20))
def test_mpjpe_equals_the_naive_loop(seed, batch, joints):
    prediction, target = random_poses(seed, batch, joints), random_poses(seed + 1, batch, joints)
    assert mpjpe(prediction, target).item() == pytest.approx(naive_mpjpe(prediction.numpy(), target.numpy()))


@given(seeds, st.integers(1, 5), st.integers(4, 20))
def test_pa_mpjpe_equals_one_pose_at_a_time(seed, batch, joints):
    prediction, target = random_poses(seed, batch, joints), random_poses(seed + 1, batch, joints)
    aligned = np.stack([naive_aligned(*pair) for pair in zip(prediction.numpy(), target.numpy(), strict=True)])
    np.testing.assert_allclose(procrustes(prediction, target), aligned, atol=1e-9)
    assert pa_mpjpe(prediction, target).item() == pytest.approx(naive_mpjpe(aligned, target.numpy()))


@given(seeds, scales)
def test_rigid_motion_and_scale_leave_no_error_after_alignment(seed, scale):
    target = random_poses(seed)
    prediction = scale * target @ random_rotation(seed).T + 5.0
    assert pa_mpjpe(prediction, target).item() < 1e-9
    assert mpjpe(prediction, target).item() > 0.1


@given(seeds)
def test_a_reflection_is_not_aligned_away(seed):
    target = random_poses(seed)
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0])
    assert pa_mpjpe(mirrored, target).item() > 0.01


@given(seeds)
def test_the_mirror_image_of_a_flat_pose_is_a_rotation(seed):
    target = random_poses(seed) * torch.tensor([1.0, 1.0, 0.0])
    assert pa_mpjpe(target * torch.tensor([-1.0, 1.0, 1.0]), target).item() < 1e-7


@given(seeds, scales)
def test_pa_mpjpe_does_not_change_with_the_motion_and_scale_of_the_prediction(seed, scale):
    prediction, target = random_poses(seed), random_poses(seed + 1)
    moved = scale * prediction @ random_rotation(seed).T - 3.0
    assert pa_mpjpe(moved, target).item() == pytest.approx(pa_mpjpe(prediction, target).item())


@given(seeds)
def test_alignment_never_raises_the_squared_error(seed):
    prediction, target = random_poses(seed), random_poses(seed + 1)
    before = joint_errors(prediction, target).square().sum(dim=-1)
    after = joint_errors(procrustes(prediction, target), target).square().sum(dim=-1)
    assert (after <= before + 1e-9).all()


@given(seeds, scales)
def test_mpjpe_has_the_unit_of_the_poses(seed, scale):
    prediction, target = random_poses(seed), random_poses(seed + 1)
    for metric in (mpjpe, pa_mpjpe):
        assert metric(scale * prediction, scale * target).item() == pytest.approx(
            scale * metric(prediction, target).item()
        )


@given(seeds)
def test_the_order_of_the_batch_does_not_matter(seed):
    prediction, target = random_poses(seed, batch=6), random_poses(seed + 1, batch=6)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(6))
    assert mpjpe(prediction[order], target[order]).item() == pytest.approx(mpjpe(prediction, target).item())
    torch.testing.assert_close(procrustes(prediction[order], target[order]), procrustes(prediction, target)[order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 3.1, -1e6])
def test_a_collapsed_prediction_is_moved_onto_the_centre(value, dtype):
    target = random_poses(0).to(dtype)
    prediction = torch.full_like(target, value)
    centre = target.double().mean(dim=1, keepdim=True).expand(4, 17, 3)
    torch.testing.assert_close(procrustes(prediction, target), centre, atol=1e-6, rtol=1e-6)
    assert pa_mpjpe(prediction, target).item() == pytest.approx(mpjpe(centre, target.double()).item())


@pytest.mark.parametrize("kind", ["line", "plane", "one joint away", "target collapsed", "both collapsed"])
def test_degenerate_poses_give_numbers(kind):
    prediction, target = random_poses(1), random_poses(2)
    if kind == "line":
        prediction[..., 1:] = 0.0
    elif kind == "plane":
        prediction[..., 2] = 0.0
    elif kind == "one joint away":
        prediction[:, 1:] = 0.0
    else:
        target[:] = 1.0
    if kind == "both collapsed":
        prediction[:] = 2.0
    assert pa_mpjpe(prediction, target).isfinite()
    assert (joint_errors(procrustes(prediction, target), target) < 100).all()


def test_the_gradient_at_an_exact_match_is_zero():
    target = torch.randn(2, 17, 3)
    prediction = target.clone()
    prediction[0, 0] += 1.0
    prediction.requires_grad_()
    mpjpe(prediction, target).backward()
    assert prediction.grad.isfinite().all()
    assert prediction.grad[0, 0].any()
    assert not prediction.grad[1].any()
