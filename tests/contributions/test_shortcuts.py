"""Additive heads and coalitions run together give what coalitions run one by one give, or are not taken."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from awc_balance import ShapleyContribution
from awc_balance.contributions import runs
from awc_balance.contributions.additive import Covariances, coalition_moments, covariances, rows_to_run
from awc_balance.contributions.designs import AllCoalitions
from awc_balance.contributions.moments import correlation, moments
from tests.models import Concat, build, loader_of
from tests.reference import correlations


class Free(Concat):
    """Any fusion and head, from the features `[batch, 4]` and the inputs."""

    def __init__(self, fusion, modalities=4, outputs=3):
        super().__init__(modalities, outputs)
        self.fusion = fusion
        self.linear = nn.Linear(4 * modalities, outputs)

    def fuse(self, features, inputs=None):
        return self.fusion(self, features, inputs)

    def forward(self, inputs):
        return self.fuse(self.encode(inputs), inputs)


def joined(features):
    return torch.cat(list(features.values()), 1)


def linear(model, features, _):
    return model.linear(joined(features))


def deep(model, features, _):
    return model.head(joined(features))


def evaluated(model, loader, **options):
    """By shortcuts, and one by one."""
    fast = ShapleyContribution(model, model.encoders, **options).evaluate(loader)
    return fast, ShapleyContribution(model, model.encoders, fast=False, **options).evaluate(loader)


def assert_equal(fast, slow, tolerance=1e-6):
    assert slow.route == "one by one"
    assert dict(fast) == pytest.approx(dict(slow), abs=tolerance)
    assert dict(fast.profits) == pytest.approx(dict(slow.profits), abs=tolerance)
    for modality in slow:
        torch.testing.assert_close(fast.per_output[modality], slow.per_output[modality], atol=tolerance, rtol=0)
    if slow.intervals is not None:
        ends, expected = (np.array(list(result.intervals.values())) for result in (fast, slow))
        np.testing.assert_allclose(ends, expected, atol=10 * tolerance)


class TestAdditive:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("modalities", [4, 6, 9])
    def test_equals_running_every_coalition(self, modalities, dtype):
        model = build(Free, fusion=linear, modalities=modalities).to(dtype)
        loader = [({m: x.to(dtype) for m, x in inputs.items()}, y) for inputs, y in loader_of(model, 4)]
        fast, slow = evaluated(model, loader)
        assert fast.additive
        assert_equal(fast, slow, 1e-6 if dtype == torch.float32 else 1e-12)

    def test_runs_few_coalitions(self):
        calls = []

        def counted(model, features, inputs):
            calls.append(len(joined(features)))
            return linear(model, features, inputs)

        model = build(Free, fusion=counted, modalities=10)
        result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 3, 8))
        assert result.additive
        assert len(result.profits) == 1024
        # The model itself, coalitions together, those of the first batch one by one, then one of them.
        assert calls == [8, 28 * 8, *[8] * 28, 8, 14 * 8, 8, 8, 14 * 8, 8]

    def test_wide_linear_heads_are_additive_in_spite_of_rounding(self):
        torch.manual_seed(0)
        model = Free(lambda model, features, _: model.wide(joined(features).repeat(1, 256)))
        model.wide = nn.Linear(4096, 3)
        assert ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 2, 64)).additive

    def test_parts_may_depend_on_inputs_beside_the_features(self):
        model = build(Free, fusion=lambda m, f, x: linear(m, f, x) + x["m0"].sum(1, keepdim=True))
        fast, slow = evaluated(model, loader_of(model))
        assert fast.additive
        assert_equal(fast, slow)
        assert abs(fast.profits[frozenset()]) > 0.01

    @pytest.mark.parametrize(
        "fusion",
        [
            deep,
            lambda model, features, _: (
                linear(model, features, _) + 0.01 * features["m0"][:, :3] * features["m3"][:, :3]
            ),
            lambda model, features, _: (
                linear(model, features, _) * torch.tensor([1.0, 1.0, 1e-6])
                + 1e-7 * torch.tensor([0.0, 0.0, 1.0]) * (features["m1"] * features["m2"])[:, :3]
            ),
        ],
        ids=["deep", "a weak product", "a product in a coordinate of small numbers"],
    )
    def test_heads_that_are_not_additive_are_run(self, fusion):
        model = build(Free, fusion=fusion)
        fast, slow = evaluated(model, loader_of(model, 3, 16))
        assert fast.route == "together"
        assert not fast.additive
        assert_equal(fast, slow)

    def test_a_head_that_stops_being_additive_midway(self):
        def saturating(model, features, inputs):
            prediction = linear(model, features, inputs)
            return prediction.clamp(max=0.3) if inputs["m0"].amax() > 2 else prediction

        model = build(Free, fusion=saturating)
        loader = loader_of(model, 6, 8)
        for inputs, _ in loader[:3]:
            inputs["m0"].clamp_(max=1.9)
        loader[3][0]["m0"][0, 0] = 5.0
        fast, slow = evaluated(model, loader)
        assert not fast.additive
        assert_equal(fast, slow)
        contribution = ShapleyContribution(model, model.encoders)
        for batch in loader[:3]:
            contribution.update(batch)
        assert contribution.compute().additive
        contribution.update(loader[3])
        assert not contribution.compute().additive
        assert_equal(contribution.compute(), ShapleyContribution(model, model.encoders, fast=False)(loader[:4]))

    def test_half_precision_is_run(self):
        model = build(Free, fusion=linear).bfloat16()
        loader = [({m: x.bfloat16() for m, x in inputs.items()}, y) for inputs, y in loader_of(model)]
        fast, slow = evaluated(model, loader)
        assert not fast.additive
        assert dict(fast) == pytest.approx(dict(slow), abs=0.02)

    def test_other_profits_are_run(self):
        model = build(Free, fusion=linear)
        fast, slow = evaluated(model, loader_of(model), profit="negative_mse")
        assert fast.route == "together"
        assert_equal(fast, slow, 1e-5)

    def test_collapsed_modalities_and_constant_targets_have_correlation_0(self):
        model = build(Free, fusion=linear)
        with torch.no_grad():
            model.linear.weight[:, 4:] = 0
        loader = [(inputs, torch.cat([y[:, :2], torch.ones(8, 1)], 1)) for inputs, y in loader_of(model)]
        fast, slow = evaluated(model, loader)
        assert fast.additive
        assert_equal(fast, slow)
        assert fast["m2"] == pytest.approx(0, abs=1e-9)
        assert fast.per_output["m0"][2] == 0

    def test_a_bad_batch_leaves_earlier_ones_in_place(self):
        model = build(Free, fusion=linear)
        contribution, loader = ShapleyContribution(model, model.encoders), loader_of(model, 2)
        for batch in loader:
            contribution.update(batch)
        before = contribution.compute()
        inputs, target = loader[0]
        for bad, words in [(target * float("nan"), "batch 2.*no modality"), (target[:, :1], "same shape")]:
            with pytest.raises(ValueError, match=words):
                contribution.update((inputs, bad))
        with pytest.raises(ValueError, match="from m0"):
            contribution.update(({**inputs, "m0": inputs["m0"] * float("inf")}, target))
        after = contribution.compute()
        assert (dict(after), after.intervals, after.additive) == (dict(before), before.intervals, True)

    @given(st.integers(0, 10**6), st.integers(4, 6), st.sampled_from([1.0, 1e-6, 1e6]))
    @settings(max_examples=30)
    def test_covariances_give_the_moments_of_every_coalition(self, seed, modalities, scale):
        generator = torch.Generator().manual_seed(seed)
        parts = scale * torch.randn(modalities, 9, 2, generator=generator, dtype=torch.float64)
        base = 100 * scale * torch.randn(9, 2, generator=generator, dtype=torch.float64)
        target = torch.randn(9, 2, generator=generator, dtype=torch.float64)
        rows, members = rows_to_run(modalities, seed), AllCoalitions(modalities).members

        def predicted(coalitions):
            return base + torch.tensordot(coalitions.double(), parts, 1)

        found = covariances(rows, predicted(rows), target)
        assert isinstance(found, Covariances)
        actual = correlation(coalition_moments(found, members))
        for k, prediction in enumerate(predicted(members)):
            np.testing.assert_allclose(actual[k], correlations(prediction, target), atol=1e-9)
        expected = moments(predicted(members), target)
        for a, b in zip(coalition_moments(found, members), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * scale**2)


HEADS = {
    "two layers": (deep, "together"),
    "a mask among the inputs": (lambda m, f, x: deep(m, f, x) * x["m0"][:, :1].gt(0), "one by one"),
    "inputs beside the features": (lambda m, f, x: deep(m, f, x) + x["m1"].sum(1, keepdim=True), "one by one"),
    "centred by the batch": (lambda m, f, x: deep(m, f, x) - deep(m, f, x).mean(0), "one by one"),
    "scaled by the batch": (lambda m, f, x: m.head(joined(f) / joined(f).norm().clamp(min=1)), "one by one"),
    "the batch size as a number": (lambda m, f, x: deep(m, f, x) * len(f["m0"]), "one by one"),
    "the batch size in a shape": (lambda m, f, x: m.head(joined(f).view(len(x["m0"]), -1)), "one by one"),
    "noise": (lambda m, f, x: deep(m, f, x) + torch.randn(len(f["m0"]), 3), "one by one"),
    "a token for what is missing": (
        lambda m, f, x: m.head(torch.cat([v if v.any() else v + 0.5 for v in f.values()], 1)),
        "one by one",
    ),
    "another way with all": (
        lambda m, f, x: deep(m, f, x) * (2 if all(v.any() for v in f.values()) else 1),
        "one by one",
    ),
    "the first sample": (lambda m, f, x: deep(m, f, x) + f["m2"][:1, :3], "one by one"),
    "features changed in place": (lambda m, f, x: m.head(joined({k: v.mul_(2) for k, v in f.items()})), "together"),
}


class TestTogether:
    @pytest.mark.parametrize("case", HEADS)
    def test_equals_running_one_by_one_or_is_not_done(self, case):
        fusion, route = HEADS[case]
        model = build(Free, fusion=fusion)
        fast, slow = evaluated(model, loader_of(model, 3, 7))
        assert fast.route == route
        assert_equal(fast, slow)

    @pytest.mark.parametrize("samples", [1, 5])
    def test_with_a_head_given(self, samples):
        model = build(Free, fusion=deep)
        fast, slow = evaluated(model, loader_of(model, 3, samples), head=model.fuse)
        assert fast.route == "together"
        assert_equal(fast, slow)

    def test_features_that_are_not_by_sample(self):
        class Sequence(Free):
            def encode(self, inputs):
                features = super().encode(inputs)
                return {**features, "m0": features["m0"].T}

        def fusion(model, features, _):
            return model.head(joined({**features, "m0": features["m0"].T}))

        class Transposed(nn.Sequential):
            def forward(self, x):
                return super().forward(x).T

        model = build(Sequence, fusion=fusion)
        model.encoders["m0"] = Transposed(*model.encoders["m0"])
        model.encode = Free.encode.__get__(model)
        for samples in (7, 4):  # 4 is also the width of the features
            fast, slow = evaluated(model, loader_of(model, 3, samples))
            assert fast.route == "one by one"
            assert_equal(fast, slow)

    def test_a_head_that_mixes_samples_only_later(self):
        model = build(Free, fusion=lambda m, f, x: deep(m, f, x) - (deep(m, f, x).mean(0) if x["m0"][0, 0] > 5 else 0))
        loader = loader_of(model, 4, 8)
        loader[2][0]["m0"][0, 0] = 9.0
        fast, slow = evaluated(model, loader)
        assert fast.route == "one by one"
        assert_equal(fast, slow)

    def test_in_parts_that_fit_into_memory(self, monkeypatch):
        model = build(Free, fusion=deep, modalities=6)
        loader = loader_of(model)
        whole, slow = evaluated(model, loader)
        monkeypatch.setattr(runs, "BYTES_TOGETHER", 10 * 8 * (6 * 4 * 4 + 3 * 8))
        parts = ShapleyContribution(model, model.encoders).evaluate(loader)
        assert parts.route == whole.route == "together"
        assert_equal(parts, slow)

    def test_draws_go_on_as_after_one_run_of_the_model(self):
        drawn = []

        def noisy(model, features, _):
            drawn.append(torch.rand(1).item())
            return deep(model, features, _)

        model = build(Free, fusion=noisy)
        state = torch.get_rng_state()
        ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 2))
        assert len(set(drawn)) == 2
        assert torch.equal(state, torch.get_rng_state())


class TestCopies:
    def loader(self, seen):
        model = build(Free, fusion=lambda m, f, x: (seen.append(x["m0"].data_ptr()), deep(m, f, x))[1])
        return model, loader_of(model, 1)

    def test_runs_share_one_copy_of_the_batch(self):
        seen = []
        model, loader = self.loader(seen)
        ShapleyContribution(model, model.encoders).evaluate(loader)
        assert len(seen) > 10
        assert len(set(seen)) == 1
        assert seen[0] != loader[0][0]["m0"].data_ptr()

    @pytest.mark.parametrize("when", ["always", "without m0"])
    def test_code_that_writes_to_its_batch(self, when):
        def writing(model, features, inputs):
            prediction = deep(model, features, inputs) + inputs["m1"].sum(1, keepdim=True)
            if when == "always" or not features["m0"].any():
                inputs["m1"].data.add_(1.0)  # without a trace in the version of the tensor
            return prediction

        def harmless(model, features, inputs):
            return deep(model, features, inputs) + inputs["m1"].sum(1, keepdim=True)

        model = build(Free, fusion=writing)
        loader, before = loader_of(model), copy.deepcopy(loader_of(model))
        found = ShapleyContribution(model, model.encoders).evaluate(loader)
        model.fusion = harmless
        assert_equal(found, ShapleyContribution(model, model.encoders, fast=False).evaluate(before))
        assert all(torch.equal(x["m1"], y["m1"]) for (x, _), (y, _) in zip(loader, before, strict=True))

    def test_code_that_writes_to_what_is_no_tensor(self):
        def step(model, batch):
            inputs, target, extra = batch
            extra += 1.0
            return model(inputs) + torch.from_numpy(extra), target

        model = build(Free, fusion=deep)
        loader = [(x, y, np.ones((8, 1), np.float32)) for x, y in loader_of(model)]
        fast, slow = evaluated(model, loader, step=step)
        assert_equal(fast, slow)
        plain = ShapleyContribution(model, model.encoders, fast=False).evaluate(loader_of(model))
        assert dict(slow) == pytest.approx(dict(plain), abs=1e-6)
