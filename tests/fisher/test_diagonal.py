import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance import FisherDiagonal
from awc_balance.fisher import trace
from tests.models import KINDS, Concat, Convolutional, Looping, Recurrent, build, loader_of
from tests.reference import assert_same, fisher_one_sample_at_a_time

FORMS = ["per_sample", "per_batch", "corrected"]


@pytest.mark.parametrize("kind", [*KINDS, Looping])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_per_sample_equals_one_sample_at_a_time(kind, chunk_size):
    model = build(kind)
    loader = loader_of(model, 2, 5)
    expected = fisher_one_sample_at_a_time(model, loader, mse_loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Per-sample gradients of this model cannot be vectorised")
        found = FisherDiagonal(model.encoders, chunk_size=chunk_size).estimate(loader, model, mse_loss)
    assert_same(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_no_warning_where_gradients_can_be_vectorised(kind):
    model = build(kind)
    FisherDiagonal(model.encoders).estimate(loader_of(model, 1, 4), model, mse_loss)


def test_one_at_a_time_says_so():
    model = build(Looping)
    with pytest.warns(UserWarning, match="cannot be vectorised.*one sample is taken at a time"):
        FisherDiagonal(model.encoders).estimate(loader_of(model, 1, 4), model, mse_loss)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_vectorising_may_stop_in_the_middle_of_a_pass(chunk_size):
    class Sometimes(Concat):
        def fuse(self, features):
            if len(self.seen) > 4 and not self.seen[-1]:  # after some batches the model looks at its data
                bool((features["m0"] > 0).all())
            self.seen.append(False)
            return super().fuse(features)

    model = build(Sometimes)
    model.seen = []
    loader = loader_of(model, 8, 4)
    expected = fisher_one_sample_at_a_time(model, loader, mse_loss)
    model.seen.clear()
    with pytest.warns(UserWarning, match="cannot be vectorised"):
        assert_same(FisherDiagonal(model.encoders, chunk_size=chunk_size).estimate(loader, model, mse_loss), expected)


def test_a_first_batch_that_is_not_finite_is_refused_without_talk_of_vectorising():
    model = build(Concat)
    inputs, target = loader_of(model)[0]
    with pytest.raises(ValueError, match="batch 0 the loss is nan"):
        FisherDiagonal(model.encoders).estimate([(inputs, target / 0 * 0)], model, mse_loss)


def test_a_model_that_gives_its_own_loss():
    model = build(Concat)
    loader = loader_of(model)

    def step(model, batch):
        return mse_loss(model(batch[0]), batch[1]), None

    for form in FORMS:
        found = FisherDiagonal(model.encoders, form).estimate(loader, model, lambda loss, _: loss, step=step)
        assert_same(found, FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss))


def test_randomness_that_eval_mode_leaves_on_is_not_trusted_to_vmap():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoders = nn.ModuleDict({"a": nn.Linear(3, 4)})

        def forward(self, x):
            return nn.functional.dropout(self.encoders["a"](x), 0.5, training=True)

    torch.manual_seed(0)
    model = Noisy()
    with pytest.warns(UserWarning, match="differ from autograd's"):
        FisherDiagonal(model.encoders).estimate([(torch.randn(4, 3), torch.randn(4, 4))], model, mse_loss)


def test_classification_loss():
    model = build(Concat, outputs=4)
    loader = [(inputs, torch.arange(8) % 4) for inputs, _ in loader_of(model)]
    found = FisherDiagonal(model.encoders).estimate(loader, model, cross_entropy)
    assert_same(found, fisher_one_sample_at_a_time(model, loader, cross_entropy))


def test_per_batch_equals_its_definition():
    model = build(Convolutional).eval()
    loader = loader_of(model)
    expected = {m: {n: torch.zeros_like(p) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
    for inputs, target in loader:
        model.zero_grad()
        mse_loss(model(inputs), target).backward()
        for modality, encoder in model.encoders.items():
            for name, parameter in encoder.named_parameters():
                expected[modality][name] += parameter.grad**2 / len(loader)
    assert_same(FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, mse_loss), expected)


def test_corrected_recovers_the_scale_and_shares_that_per_batch_loses():
    model = build(Concat, modalities=3)
    loader = loader_of(model, 40, 16)
    exact = trace(FisherDiagonal(model.encoders).estimate(loader, model, mse_loss))
    corrected = trace(FisherDiagonal(model.encoders, "corrected").estimate(loader, model, mse_loss))
    per_batch = trace(FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, mse_loss))
    assert sum(corrected.values()) == pytest.approx(sum(exact.values()), rel=0.1)
    assert sum(per_batch.values()) < 0.5 * sum(exact.values())
    for modality in exact:
        share = exact[modality] / sum(exact.values())
        assert corrected[modality] / sum(corrected.values()) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("form", ["per_batch", "corrected"])
def test_update_from_gradients_equals_estimate_at_frozen_parameters(form):
    model = build(Concat)
    loader = loader_of(model, 4)
    fisher = FisherDiagonal(model.encoders, form)
    for inputs, target in loader:
        model.zero_grad()
        mse_loss(model(inputs), target).backward()
        fisher.update(len(target))
    assert_same(fisher.compute(), FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_is_in_float32_or_better(form, dtype):
    model = build(Concat).to(dtype)
    loader = [({m: x.to(dtype) for m, x in inputs.items()}, target.to(dtype)) for inputs, target in loader_of(model)]
    diagonal = FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss)
    assert {v.dtype for named in diagonal.values() for v in named.values()} == {
        torch.float64 if dtype == torch.float64 else torch.float32
    }


def test_squares_of_small_half_precision_gradients_do_not_vanish():
    model = build(Concat).to(torch.float16)
    loader = [({m: x.half() for m, x in inputs.items()}, y.half()) for inputs, y in loader_of(model)]
    diagonal = FisherDiagonal(model.encoders, "per_batch").estimate(loader, model, lambda p, t: mse_loss(p, t) / 200)
    assert all(0 < float(v.mean()) < 6e-8 for named in diagonal.values() for v in named.values())


@pytest.mark.parametrize("form", FORMS)
def test_keys_and_shapes_are_those_of_the_parameters(form):
    model = build(Convolutional)
    model.encoders["image"][0].requires_grad_(False)
    diagonal = FisherDiagonal(model.encoders, form).estimate(loader_of(model), model, mse_loss)
    for modality, encoder in model.encoders.items():
        assert {n: v.shape for n, v in diagonal[modality].items()} == {
            n: p.shape for n, p in encoder.named_parameters()
        }
        assert all((v >= 0).all() for v in diagonal[modality].values())
    assert diagonal["image"]["0.weight"].count_nonzero() == 0
    assert diagonal["image"]["1.weight"].count_nonzero() > 0


def test_a_given_number_of_samples():
    model = build(Concat)
    loader = loader_of(model, 3, 4)
    first = (
        {m: torch.cat([x[m] for x, _ in loader])[:6] for m in model.encoders},
        torch.cat([y for _, y in loader])[:6],
    )
    found = FisherDiagonal(model.encoders, samples=6).estimate(loader, model, mse_loss)
    assert_same(found, fisher_one_sample_at_a_time(model, [first], mse_loss))
    found = FisherDiagonal(model.encoders, "per_batch", samples=6).estimate(loader, model, mse_loss)
    assert_same(found, FisherDiagonal(model.encoders, "per_batch").estimate(loader[:2], model, mse_loss))


def test_current_mode_uses_batch_statistics_and_leaves_them():
    model = build(Convolutional).train()
    before = copy.deepcopy(model.state_dict())
    loader = loader_of(model)
    current = FisherDiagonal(model.encoders, "corrected", mode="current").estimate(loader, model, mse_loss)
    evaluation = FisherDiagonal(model.encoders, "corrected").estimate(loader, model, mse_loss)
    assert trace(current)["table"] != pytest.approx(trace(evaluation)["table"], rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_unit_of_the_loss_is_squared():
    model = build(Concat)
    loader = loader_of(model)
    metres = FisherDiagonal(model.encoders).estimate(loader, model, mse_loss)
    millimetres = FisherDiagonal(model.encoders).estimate(loader, model, lambda p, t: 1000 * mse_loss(p, t))
    assert_same(millimetres, {m: {n: 1e6 * v for n, v in named.items()} for m, named in metres.items()}, rtol=1e-4)


def test_trace_is_the_sum_by_modality():
    model = build(Concat)
    fisher = FisherDiagonal(model.encoders)
    diagonal = fisher.estimate(loader_of(model), model, mse_loss)
    assert fisher.trace() == {
        m: pytest.approx(sum(float(v.sum()) for v in named.values())) for m, named in diagonal.items()
    }


def test_sparse_gradients():
    model = nn.ModuleDict({"words": nn.EmbeddingBag(10, 4, mode="sum", sparse=True), "head": nn.Linear(4, 1)})
    fisher = FisherDiagonal({"words": model["words"]}, "per_batch")
    words = torch.randint(10, (6, 3))
    mse_loss(model["head"](model["words"](words)), torch.randn(6, 1)).backward()
    fisher.update()
    torch.testing.assert_close(fisher.compute()["words"]["weight"], model["words"].weight.grad.to_dense() ** 2)


def test_a_zero_gradient_is_no_error_but_a_missing_one_is():
    model = build(Concat)
    nn.init.zeros_(model.head[-1].weight)
    for form in FORMS:
        assert trace(FisherDiagonal(model.encoders, form).estimate(loader_of(model), model, mse_loss)) == {
            "m0": 0,
            "m1": 0,
        }

    class Detached(Concat):
        def fuse(self, features):
            return super().fuse({"m0": features["m0"], "m1": features["m1"].detach()})

    for form in FORMS:
        model = build(Detached)
        with pytest.raises(RuntimeError, match="No gradient reached m1"):
            FisherDiagonal(model.encoders, form).estimate(loader_of(model), model, mse_loss)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_batch_is_named_and_the_state_stays(form, bad):
    model = build(Concat)
    loader = loader_of(model)
    fisher = FisherDiagonal(model.encoders, form)
    before = fisher.estimate(loader, model, mse_loss)
    inputs, target = loader[1]
    poisoned = [loader[0], ({**inputs, "m1": inputs["m1"] * bad}, target)]
    with pytest.raises(
        ValueError, match=r"batch 1 the loss is nan and the gradient of `m0` \(0.weight, 0.bias\), `m1` \(0.weight, 0"
    ):
        fisher.estimate(poisoned, model, mse_loss)
    assert_same(fisher.compute(), before, rtol=0, atol=0)


def test_a_loader_that_breaks_leaves_the_state():
    model = build(Concat)
    loader = loader_of(model)
    fisher = FisherDiagonal(model.encoders)
    before = fisher.estimate(loader, model, mse_loss)

    def breaking():
        yield loader[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        fisher.estimate(breaking(), model, mse_loss)
    assert_same(fisher.compute(), before, rtol=0, atol=0)


def test_a_non_finite_gradient_of_a_step_is_named_and_the_state_stays():
    model = build(Concat)
    inputs, target = loader_of(model)[0]
    fisher = FisherDiagonal(model.encoders, "per_batch")
    mse_loss(model(inputs), target).backward()
    fisher.update()
    before = fisher.compute()
    model.encoders["m1"][0].bias.grad[0] = float("inf")
    with pytest.raises(ValueError, match=r"this step the gradient of `m1` \(0.bias\) is nan or infinite"):
        fisher.update()
    assert_same(fisher.compute(), before, rtol=0, atol=0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"form": "exact"}, "'per_sample', 'per_batch', 'corrected'. Got 'exact'"),
            ({"mode": "train"}, "'eval', 'current'. Got 'train'"),
            ({"mode": "current"}, "whole batches. Got form='per_sample'"),
            ({"samples": 0}, "`samples`.*at least 1. Got 0"),
            ({"chunk_size": 2.5}, "`chunk_size`.*Got 2.5"),
        ],
    )
    def test_options(self, options, words):
        with pytest.raises(ValueError, match=words):
            FisherDiagonal(build(Concat).encoders, **options)

    def test_frozen_encoders(self):
        model = build(Concat)
        model.encoders.requires_grad_(False)
        with pytest.raises(ValueError, match="All of m0, m1 are frozen"):
            FisherDiagonal(model.encoders).estimate(loader_of(model), model, mse_loss)

    def test_encoders_of_another_model(self):
        with pytest.raises(ValueError, match="`m0` should be a part of the model"):
            FisherDiagonal(build(Concat).encoders).estimate([], build(Concat), mse_loss)

    def test_empty_loader(self):
        model = build(Concat)
        with pytest.raises(ValueError, match="at least one batch"):
            FisherDiagonal(model.encoders).estimate([], model, mse_loss)

    def test_corrected_from_one_batch(self):
        model = build(Concat)
        with pytest.raises(RuntimeError, match="at least two batches. Got 1"):
            FisherDiagonal(model.encoders, "corrected").estimate(loader_of(model, 1), model, mse_loss)

    def test_criterion_that_does_not_reduce(self):
        model = build(Concat)
        with pytest.raises(ValueError, match=r"one number.*Got \(8, 3\)"):
            FisherDiagonal(model.encoders, "per_batch").estimate(loader_of(model), model, nn.MSELoss(reduction="none"))

    def test_samples_that_are_not_along_the_first_axis(self):
        model = build(Recurrent)
        inputs, target = loader_of(model)[0]
        batch = {**inputs, "series": inputs["series"].transpose(0, 1)}, target
        with pytest.raises(ValueError, match=r"first dimension. Got the shapes \(6, 8, 3\)"):
            FisherDiagonal(model.encoders).estimate([batch], model, mse_loss)

    def test_calls_in_the_wrong_order(self):
        model = build(Concat)
        with pytest.raises(RuntimeError, match="form='per_sample'"):
            FisherDiagonal(model.encoders).update()
        with pytest.raises(RuntimeError, match="after loss.backward"):
            FisherDiagonal(model.encoders, "per_batch").update()
        with pytest.raises(ValueError, match="batch_size"):
            FisherDiagonal(model.encoders, "corrected").update()
        with pytest.raises(RuntimeError, match="at least one batch"):
            FisherDiagonal(model.encoders).compute()
