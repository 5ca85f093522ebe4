import copy
from functools import reduce

import numpy as np
import pytest
import torch
from torch import nn

from awc_balance import ShapleyContribution, shapley_values
from awc_balance.contributions.moments import correlation, merge_moments, moments
from tests.models import KINDS, Concat, Convolutional, Twice, build, loader_of
from tests.reference import coalition_predictions, correlations, shapley_by_permutations


def reference(model, loader, profit):
    """Contributions by output, from features zeroed by hand and brute force over permutations."""
    target = torch.cat([target for _, target in loader])
    table = [np.asarray(profit(p, target)) for p in coalition_predictions(model, loader)]
    return dict(zip(model.encoders, shapley_by_permutations(table, len(model.encoders)), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_features_zeroed_by_hand_and_brute_force(kind):
    model = build(kind)
    loader = loader_of(model)
    result = ShapleyContribution(model, model.encoders).evaluate(loader)
    for modality, expected in reference(model, loader, correlations).items():
        np.testing.assert_allclose(result.per_output[modality], expected, atol=1e-5)
        assert result[modality] == pytest.approx(expected.mean(), abs=1e-5)


@pytest.mark.parametrize("modalities", [1, 2, 3, 5, 8])
def test_contributions_sum_to_grand_minus_empty(modalities):
    model = build(Concat, modalities=modalities)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 2))
    grand, empty = result.profits[frozenset(model.encoders)], result.profits[frozenset()]
    assert sum(result.values()) == pytest.approx(grand - empty, abs=1e-9)
    assert empty == 0
    assert len(result.profits) == 2**modalities


def test_a_modality_that_never_matters_gets_0():
    model = build(Concat, modalities=3)
    with torch.no_grad():
        model.head[0].weight[:, 4:8] = 0
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    assert result["m1"] == pytest.approx(0, abs=1e-12)
    assert abs(result["m0"]) > 1e-3


def test_equal_encoders_get_equal_contributions():
    model = build(Concat)
    a = model.encoders["m0"]
    model.encoders["m1"] = copy.deepcopy(a)
    with torch.no_grad():
        model.head[0].weight[:, 4:] = model.head[0].weight[:, :4]
    loader = [({"m0": x["m0"], "m1": x["m0"]}, y) for x, y in loader_of(model)]
    result = ShapleyContribution(model, model.encoders).evaluate(loader)
    assert result["m0"] == pytest.approx(result["m1"], abs=1e-6)


def test_a_model_that_ignores_its_inputs_gives_0_and_no_nan():
    model = build(Concat)
    nn.init.zeros_(model.head[-1].weight)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    assert dict(result) == {"m0": 0, "m1": 0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model = build(Concat)
    loader = loader_of(model)
    expected = ShapleyContribution(model, model.encoders).evaluate(loader)
    cast = [({m: x.to(dtype) for m, x in inputs.items()}, target) for inputs, target in loader]
    result = ShapleyContribution(model.to(dtype), model.encoders).evaluate(cast)
    assert dict(result) == pytest.approx(dict(expected), abs=0.05)


def test_a_batch_of_one_has_contribution_0():
    model = build(Concat)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 1, 1))
    assert dict(result) == {"m0": 0, "m1": 0}
    assert result.intervals is None


def test_pooled_differs_from_per_batch_and_equals_one_large_batch():
    model = build(Concat)
    loader = loader_of(model, 4, 5)
    whole = [({m: torch.cat([x[m] for x, _ in loader]) for m in model.encoders}, torch.cat([y for _, y in loader]))]
    pooled = ShapleyContribution(model, model.encoders).evaluate(loader)
    assert dict(pooled) == pytest.approx(dict(ShapleyContribution(model, model.encoders).evaluate(whole)), abs=1e-6)
    per_batch = ShapleyContribution(model, model.encoders, "pearson_per_batch").evaluate(loader)
    singles = [ShapleyContribution(model, model.encoders).evaluate([batch]) for batch in loader]
    assert per_batch["m0"] == pytest.approx(sum(single["m0"] for single in singles) / 4, abs=1e-9)
    assert per_batch["m0"] != pytest.approx(pooled["m0"], abs=1e-3)


@pytest.mark.parametrize("name", ["negative_cross_entropy", "accuracy"])
def test_classification(name):
    model = build(Concat, outputs=4)
    loader = [(inputs, torch.arange(8) % 4) for inputs, _ in loader_of(model)]
    profits = {
        "negative_cross_entropy": lambda p, t: -nn.functional.cross_entropy(p.double(), t),
        "accuracy": lambda p, t: (p.argmax(1) == t).double().mean(),
    }
    result = ShapleyContribution(model, model.encoders, name).evaluate(loader)
    for modality, expected in reference(model, loader, profits[name]).items():
        assert result[modality] == pytest.approx(float(expected), abs=1e-6)
        assert result.per_output[modality].shape == ()


def test_a_profit_of_ones_own_may_have_outputs():
    model = build(Concat)
    result = ShapleyContribution(model, model.encoders, lambda p, t: -(p - t).abs().mean(0)).evaluate(loader_of(model))
    assert result.per_output["m0"].shape == (3,)
    scalar = ShapleyContribution(model, model.encoders, lambda p, t: -(p - t).abs().mean()).evaluate(loader_of(model))
    assert dict(result) == pytest.approx(dict(scalar), abs=1e-6)


def test_per_output_has_the_shape_of_one_output():
    model = build(Convolutional)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    assert result.per_output["image"].shape == (2, 3)


def test_encoders_run_once_per_batch():
    model = build(Concat)
    calls = []
    model.encoders["m0"][0].register_forward_hook(lambda *_: calls.append(1))
    ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 3))
    assert len(calls) == 3


@pytest.mark.parametrize("kind", [Concat, Twice])
def test_a_head_gives_the_same_as_running_the_model_again(kind):
    model = build(kind)
    loader = loader_of(model)
    expected = ShapleyContribution(model, model.encoders).evaluate(loader)
    assert dict(ShapleyContribution(model, model.encoders, head=model.fuse).evaluate(loader)) == dict(expected)


def test_a_hook_of_the_users_on_an_encoder_acts_once():
    model = build(Concat)
    loader = loader_of(model)
    model.encoders["m0"].register_forward_hook(lambda module, inputs, output: output * 3 + 1)
    result = ShapleyContribution(model, model.encoders).evaluate(loader)
    assert dict(result) == pytest.approx(
        dict(ShapleyContribution(model, model.encoders, head=model.fuse).evaluate(loader)), abs=1e-9
    )


def test_several_modules_of_one_modality():
    model = build(Concat, modalities=3)
    loader = loader_of(model)
    both = nn.ModuleList([model.encoders["m0"], model.encoders["m1"]])
    result = ShapleyContribution(model, {"both": both, "m2": model.encoders["m2"]}).evaluate(loader)
    alone = ShapleyContribution(model, model.encoders).evaluate(loader)
    both, alone = result.profits[frozenset({"both"})], alone.profits[frozenset({"m0", "m1"})]
    assert both == pytest.approx(alone, abs=1e-6)


def test_an_encoder_without_parameters():
    class Tables(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Identity(), nn.Flatten(), nn.Linear(4, 1)

        def forward(self, inputs):
            return self.head(torch.cat([self.left(inputs[0]), self.right(inputs[1])], 1))

    model = Tables()
    batch = ((torch.randn(9, 2), torch.randn(9, 2)), torch.randn(9, 1))
    result = ShapleyContribution(model, {"left": model.left, "right": model.right}).evaluate([batch])
    assert any(abs(value) > 1e-3 for value in result.values())


def test_the_model_itself_as_the_only_encoder():
    model = nn.Linear(3, 2)
    batch = (torch.randn(9, 3), torch.randn(9, 2))
    result = ShapleyContribution(model, {"all": model}).evaluate([batch])
    assert result["all"] == pytest.approx(correlations(model(batch[0]).detach(), batch[1]).mean())


def test_update_compute_reset_in_a_loop_equal_evaluate():
    model = build(Concat)
    loader = loader_of(model, 25)
    contribution = ShapleyContribution(model, model.encoders)
    for batch in loader:
        contribution.update(batch)
    looped, evaluated = contribution.compute(), contribution.evaluate(loader)
    assert dict(looped) == dict(evaluated)
    assert looped.intervals == evaluated.intervals
    contribution.reset()
    contribution.update(loader[0])
    assert dict(contribution.compute()) == dict(contribution.evaluate(loader[:1]))


def test_interval_is_the_jackknife_over_batches():
    model = build(Concat)
    loader = loader_of(model, 6, 10)
    result = ShapleyContribution(model, model.encoders).evaluate(loader)
    tables = [coalition_predictions(model, [batch]) for batch in loader]
    parts = [[moments(p, y) for p in table] for table, (_, y) in zip(tables, loader, strict=True)]

    def contributions(chosen):
        merged = [correlation(reduce(merge_moments, [part[k] for part in chosen])).mean() for k in range(4)]
        return shapley_values(torch.stack(merged))

    without = torch.stack([contributions(parts[:i] + parts[i + 1 :]) for i in range(6)])
    error = ((without - without.mean(0)) ** 2).sum(0).mul(5 / 6).sqrt()
    low, high = result.intervals["m1"]
    assert (low + high) / 2 == pytest.approx(result["m1"])
    assert (high - low) / 2 == pytest.approx(2.5706 * error[1].item(), rel=1e-3)  # t of 5 degrees of freedom


def test_interval_covers_the_truth_about_as_often_as_it_says():
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()})

    def step(model, batch):
        return model["a"](batch[0]) + model["b"](batch[1]), batch[2]

    def sample(n):
        a, b = torch.randn(2, n, 1)
        return a, b, a + 0.5 * b + torch.randn(n, 1)

    contribution = ShapleyContribution(model, model, step=step)
    truth = contribution.evaluate([sample(400_000)])["a"]
    inside = 0
    for _ in range(100):
        low, high = contribution.evaluate([sample(20) for _ in range(20)]).intervals["a"]
        inside += low <= truth <= high
    assert 88 <= inside <= 100


def test_the_result_reads_as_a_mapping():
    model = build(Concat)
    result = ShapleyContribution(model, model.encoders).evaluate(loader_of(model))
    assert list(result) == ["m0", "m1"]
    assert len(result) == 2
    assert repr(result).startswith("Contributions(m0: ")
    assert "[" in repr(result)


def test_progress_wraps_the_loader():
    model = build(Concat)
    seen = []

    def progress(loader):
        for batch in loader:
            seen.append(batch)
            yield batch

    ShapleyContribution(model, model.encoders).evaluate(loader_of(model, 4), progress=progress)
    assert len(seen) == 4


class Mute(nn.Module):
    def forward(self, x):
        return "no tensor"


class Wrapped:
    def __init__(self, tensor):
        self.tensor = tensor


class Hiding(nn.Module):
    def forward(self, x):
        return x, Wrapped(x)


def scripted(encoder_a, use, target=(6, 2)):
    model = nn.ModuleDict({"a": encoder_a, "b": nn.Linear(2, 2)})
    return model, (lambda model, batch: (use(model, batch[0]), batch[1])), (torch.randn(6, 2), torch.randn(*target))


BAD = {
    "an encoder that never ran": (
        nn.Linear(2, 2),
        lambda m, x: m["b"](x),
        RuntimeError,
        "encoder of `a` was not called",
    ),
    "a feature without tensors": (Mute(), lambda m, x: (m["a"](x), m["b"](x))[1], TypeError, "`a` put out no tensor"),
    "a feature that hides tensors": (Hiding(), lambda m, x: m["a"](x)[0] + m["b"](x), TypeError, "`a` put out Wrapped"),
    "a prediction that is no tensor": (nn.Linear(2, 2), lambda m, x: [m["a"](x), m["b"](x)], TypeError, "Got list"),
    "a scalar prediction": (nn.Linear(2, 2), lambda m, x: (m["a"](x) + m["b"](x)).sum(), TypeError, r"Got \(\)"),
    "a shape unlike the target's": (
        nn.Linear(2, 2),
        lambda m, x: (m["a"](x) + m["b"](x))[:, :1],
        ValueError,
        r"\(6, 1\) and \(6, 2\)",
    ),
    "a prediction that is not finite": (
        nn.Linear(2, 2),
        lambda m, x: m["a"](x) / 0 + m["b"](x),
        ValueError,
        "batch 0.*finite|finite.*batch 0",
    ),
    "an encoder called more often when others are absent": (
        nn.Linear(2, 2),
        lambda m, x: m["b"](x) + (m["a"](x) if m["a"](x).abs().sum() > 0 else m["a"](x) + m["a"](x)),
        RuntimeError,
        "called 2 times with all of them, and 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_models_and_batches_are_refused_and_nothing_is_lost(case):
    encoder, use, error, words = BAD[case]
    model, step, batch = scripted(encoder, use)
    contribution = ShapleyContribution(model, {"a": model["a"], "b": model["b"]}, step=step)
    with pytest.raises(error, match=words):
        contribution.update(batch)
    with pytest.raises(RuntimeError, match="at least one batch"):
        contribution.compute()
    assert all(not module._forward_hooks and "forward" not in vars(module) for module in model.modules())


def test_a_bad_batch_leaves_earlier_ones_in_place():
    model = build(Concat)
    loader = loader_of(model, 2)
    contribution = ShapleyContribution(model, model.encoders)
    for batch in loader:
        contribution.update(batch)
    before = contribution.compute()
    inputs, target = loader[0]
    with pytest.raises(ValueError, match="finite"):
        contribution.update((inputs, target * float("nan")))
    assert dict(contribution.compute()) == dict(before)
    assert contribution.compute().intervals == before.intervals


@pytest.mark.parametrize("loader", [[], iter([])])
def test_an_empty_loader_is_refused(loader):
    model = build(Concat)
    with pytest.raises(ValueError, match="at least one batch"):
        ShapleyContribution(model, model.encoders).evaluate(loader)


def test_more_than_sixteen_modalities_are_refused():
    model = build(Concat, modalities=17)
    with pytest.raises(ValueError, match="at most 16 modalities. Got 17"):
        ShapleyContribution(model, model.encoders)
