"""What a training loop usually has besides: mixed precision, accumulation, compilation, checkpointing and so on."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from tests.models import Concat, Convolutional, build, loader_of
from tests.reference import assert_same, fisher_one_sample_at_a_time

STRONG = {"alpha_superior": 20.0, "alpha_inferior": 5.0, "window": 2}
FORMS = ["per_sample", "per_batch", "corrected"]
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
DEVICES = ["cpu", GPU]


def moved(value, to):
    return torch.utils._pytree.tree_map(lambda leaf: leaf.to(to) if isinstance(leaf, torch.Tensor) else leaf, value)


def named(model):
    return {"": dict(model.named_parameters())}


def train(model, loader, step, trained=None, epochs=2, **options):
    """Epochs in which `step(loss of a batch, penalty, optimizer)` does what follows the forward pass."""
    awc = AWCRegularizer(model, model.encoders, mse_loss, **{**STRONG, **options})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        awc.start_epoch(loader)
        for inputs, target in loader:
            step(lambda inputs=inputs, target=target: mse_loss((trained or model)(inputs), target), awc, optimizer)
            optimizer.zero_grad()
    return awc


def plain(loss, awc, optimizer):
    (loss() + awc()).backward()
    optimizer.step()


@pytest.mark.parametrize("closed_form", [False, True])
@pytest.mark.parametrize("device", DEVICES)
class TestGradScaler:
    def test_training_is_what_it_is_without(self, device, closed_form):
        one = build(Concat).to(device)
        two, loader = copy.deepcopy(one), moved(loader_of(one), device)
        scaler = torch.amp.GradScaler(device, init_scale=1024.0)

        def scaled(loss, awc, optimizer):
            scaler.scale(loss() if closed_form else loss() + awc()).backward()
            scaler.unscale_(optimizer)
            if closed_form:
                awc.add_gradient_()
            scaler.step(optimizer)
            scaler.update()

        train(one, loader, plain)
        train(two, loader, scaled)
        assert_same(named(two), named(one), rtol=1e-4, atol=1e-6)

    def test_a_skipped_step_leaves_the_anchors(self, device, closed_form):
        model = build(Concat).to(device)
        loader = moved(loader_of(model), device)
        awc = AWCRegularizer(model, model.encoders, mse_loss, **STRONG)
        awc.start_epoch(loader)
        before = copy.deepcopy([awc.state_dict(), model.state_dict()])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(device, init_scale=1024.0)
        inputs, target = loader[0]
        loss = mse_loss(model(inputs), target) * float("inf")
        scaler.scale(loss if closed_form else loss + awc()).backward()
        scaler.unscale_(optimizer)
        if closed_form:
            awc.add_gradient_()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() < 1024.0
        for state, expected in zip([awc.state_dict(), model.state_dict()], before, strict=True):
            assert all(torch.equal(state[k], v) for k, v in expected.items() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["around", "in the step"])
class TestAutocast:
    """In bfloat16, whose rounding is up to 0.4 % an operation."""

    def measured(self, measure, device, where):
        cast = functools.partial(torch.autocast, device, torch.bfloat16)

        def step(model, batch):
            with cast():
                return model(batch[0]), batch[1]

        if where == "in the step":
            return measure(step)
        with cast():
            return measure(None)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.filterwarnings("ignore:Per-sample gradients of this model cannot be vectorised")  # rounded otherwise
    def test_fisher_diagonals(self, device, where, form):
        model = build(Concat).to(device)
        loader = moved(loader_of(model, batches=6), device)
        exact = FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss)
        found = self.measured(
            lambda step: FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss, step=step),
            device,
            where,
        )
        for modality, tensors in exact.items():
            for name, value in tensors.items():
                assert found[modality][name].dtype == torch.float32
                difference = torch.linalg.vector_norm(found[modality][name] - value)
                assert 0 < difference < 0.05 * torch.linalg.vector_norm(value)

    def test_contributions(self, device, where):
        model = build(Concat, modalities=3).to(device)
        loader = moved(loader_of(model), device)
        exact = ShapleyContribution(model, model.encoders).evaluate(loader)
        found = self.measured(
            lambda step: ShapleyContribution(model, model.encoders, step=step).evaluate(loader), device, where
        )
        assert dict(found) == pytest.approx(dict(exact), abs=0.02)

    def test_the_penalty_keeps_its_precision(self, device, where):
        model = build(Concat).to(device)
        loader = moved(loader_of(model), device)
        awc = AWCRegularizer(model, model.encoders, mse_loss, **STRONG)
        awc.start_epoch(loader)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        exact = awc()
        gradients = torch.autograd.grad(exact, list(model.encoders.parameters()))
        with torch.autocast(device, torch.bfloat16):
            inside = awc()
            found = torch.autograd.grad(inside, list(model.encoders.parameters()))
        assert torch.equal(inside, exact)
        assert all(map(torch.equal, found, gradients))


@pytest.mark.parametrize("closed_form", [False, True])
def test_gradient_accumulation_is_one_large_batch(closed_form):
    """The penalty is divided as the loss, or added once per step."""
    one = build(Concat)
    two, loader = copy.deepcopy(one), loader_of(one)

    def train_on(model, parts):
        awc = AWCRegularizer(model, model.encoders, mse_loss, **STRONG)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            awc.start_epoch(loader)
            for inputs, target in loader:
                pieces = [{m: x.chunk(parts)[i] for m, x in inputs.items()} for i in range(parts)]
                for piece, part in zip(pieces, target.chunk(parts), strict=True):
                    loss = mse_loss(model(piece), part) / parts
                    (loss if closed_form else loss + awc() / parts).backward()
                if closed_form:
                    awc.add_gradient_()
                optimizer.step()
                optimizer.zero_grad()

    train_on(one, 1)
    train_on(two, 4)
    assert_same(named(two), named(one), rtol=1e-4, atol=1e-6)


class TestCompile:
    """With the backend that runs what was traced as it is, which needs no compiler."""

    def test_what_is_compiled_before_or_after_wrapping(self):
        one = build(Concat)
        loader = loader_of(one)
        expected = train(one, loader, plain)
        for case in ("the compiled model is passed", "compiled afterwards", "in place", "encoders only"):
            torch.compiler.reset()
            model = build(Concat)
            if case == "in place":
                model.compile(backend="eager")
            if case == "encoders only":
                for encoder in model.encoders.values():
                    encoder.compile(backend="eager")
            compiled = torch.compile(model, backend="eager") if case != "in place" else model
            given = compiled if case == "the compiled model is passed" else model
            awc = AWCRegularizer(given, model.encoders, mse_loss, **STRONG)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                awc.start_epoch(loader)
                for inputs, target in loader:
                    (mse_loss(compiled(inputs), target) + awc()).backward()
                    optimizer.step()
                    optimizer.zero_grad()
            assert_same(named(model), named(one), rtol=1e-4, atol=1e-6)
            assert awc.groups == expected.groups, case

    @pytest.mark.filterwarnings(
        "ignore:.*should not be instantiated:DeprecationWarning"
    )  # both by torch.compile itself
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
    def test_a_compiled_step_with_the_penalty_in_it(self):
        one, two = build(Concat), build(Concat)
        loader = loader_of(one)
        train(one, loader, plain, epochs=3)
        awc = AWCRegularizer(two, two.encoders, mse_loss, **STRONG)
        total = torch.compile(lambda inputs, target: mse_loss(two(inputs), target) + awc(), backend="eager")
        optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
        for _ in range(3):  # the window closes after 2
            awc.start_epoch(loader)
            for inputs, target in loader:
                total(inputs, target).backward()
                optimizer.step()
                optimizer.zero_grad()
        assert_same(named(two), named(one), rtol=1e-4, atol=1e-6)


class Checkpointed(nn.Module):
    def __init__(self, inner, use_reentrant):
        super().__init__()
        self.inner, self.use_reentrant = inner, use_reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


class TestActivationCheckpointing:
    def models(self, use_reentrant):
        one = build(Concat)
        two = copy.deepcopy(one)
        for modality, encoder in two.encoders.items():
            two.encoders[modality] = Checkpointed(encoder, use_reentrant)
        return one, two

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.filterwarnings("ignore:Per-sample gradients of this model cannot be vectorised")
    def test_without_reentry(self, form):
        one, two = self.models(False)
        loader = loader_of(one)
        expected = FisherDiagonal(one.encoders, form).estimate(loader, one, mse_loss)
        found = FisherDiagonal(two.encoders, form).estimate(loader, two, mse_loss)
        renamed = {m: {name.removeprefix("inner."): v for name, v in named.items()} for m, named in found.items()}
        assert_same(renamed, expected)

    def test_training_and_contributions(self):
        one, two = self.models(False)
        loader = loader_of(one)
        first, second = train(one, loader, plain), train(two, loader, plain)
        assert first.contributions == pytest.approx(second.contributions)
        renamed = {n.replace("inner.", ""): p for n, p in two.named_parameters()}
        assert_same({"": renamed}, named(one))

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    @pytest.mark.filterwarnings("ignore:Per-sample gradients of this model cannot be vectorised")
    def test_reentry_hides_parameters_and_is_refused(self, form):
        _, model = self.models(True)
        with pytest.raises(RuntimeError, match="every encoder|use_reentrant"):
            FisherDiagonal(model.encoders, form).estimate(loader_of(build(Concat)), model, mse_loss)


def test_parameter_groups_are_left_as_they_are():
    """Each with its own learning rate and weight decay; the pull is a gradient like any other."""
    one = build(Concat)
    two, loader = copy.deepcopy(one), loader_of(one)
    for model, closed_form in ((one, False), (two, True)):
        groups = [
            {"params": model.encoders["m0"].parameters(), "lr": 0.05, "weight_decay": 0.1},
            {"params": model.encoders["m1"].parameters(), "lr": 0.2},
            {"params": model.head.parameters()},
        ]
        optimizer = torch.optim.Adam(groups, lr=0.01)
        awc = AWCRegularizer(model, model.encoders, mse_loss, **STRONG)
        for _ in range(2):
            awc.start_epoch(loader)
            for inputs, target in loader:
                loss = mse_loss(model(inputs), target)
                (loss if closed_form else loss + awc()).backward()
                if closed_form:
                    awc.add_gradient_()
                optimizer.step()
                optimizer.zero_grad()
        assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2, 0.01]
    assert_same(named(two), named(one), rtol=1e-4, atol=1e-5)


class TestAveragedModel:
    """A moving average of the parameters, as `torch.optim.swa_utils` keeps it."""

    def test_it_follows_and_is_not_pulled(self):
        model = build(Concat)
        loader = loader_of(model)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        by_hand = copy.deepcopy(dict(model.named_parameters()))
        steps = []

        def step(loss, awc, optimizer):
            plain(loss, awc, optimizer)
            average.update_parameters(model)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    by_hand[name].copy_(parameter if not steps else 0.5 * by_hand[name] + 0.5 * parameter)
            steps.append(1)

        train(model, loader, step)
        assert_same({"": dict(average.module.named_parameters())}, {"": by_hand})
        assert all(parameter.grad is None for parameter in average.parameters())

    def test_it_can_be_measured(self):
        model = build(Concat)
        loader = loader_of(model)
        average = AveragedModel(model)
        average.update_parameters(model)
        expected = dict(ShapleyContribution(model, model.encoders).evaluate(loader))
        encoders = dict(average.module.encoders)
        assert dict(ShapleyContribution(average, encoders).evaluate(loader)) == expected
        assert_same(
            FisherDiagonal(encoders).estimate(loader, average, mse_loss),
            FisherDiagonal(model.encoders).estimate(loader, model, mse_loss),
        )

    def test_encoders_of_the_trained_model_are_not_those_of_its_average(self):
        model = build(Concat)
        with pytest.raises(ValueError, match="a part of the model"):
            ShapleyContribution(AveragedModel(model), model.encoders)

    def test_the_average_of_a_regularizer_within_a_larger_module(self):
        """Its buffers are those of the latest epoch where buffers are averaged or copied."""
        model = build(Concat)
        awc = AWCRegularizer(model, model.encoders, mse_loss, **STRONG)
        whole = nn.ModuleDict({"model": model, "awc": awc})
        average = AveragedModel(whole)
        awc.start_epoch(loader_of(model))
        average.update_parameters(whole)
        assert all(map(torch.equal, average.module["model"].parameters(), model.parameters()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_channels_last_is_kept_and_gives_the_same(form, device):
    one = build(Convolutional).to(device)
    two = copy.deepcopy(one).to(memory_format=torch.channels_last)
    loader = moved(loader_of(one), device)
    last = [
        ({m: x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for m, x in inputs.items()}, target)
        for inputs, target in loader
    ]
    first = AWCRegularizer(one, one.encoders, mse_loss, fisher=form, **STRONG)
    second = AWCRegularizer(two, two.encoders, mse_loss, fisher=form, **STRONG)
    first.start_epoch(loader)
    second.start_epoch(last)
    assert second.contributions == pytest.approx(first.contributions, abs=1e-5)
    for (name, buffer), expected in zip(second.named_buffers(), first.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-4, atol=1e-7)
        if buffer.dim() == 4:
            assert buffer.is_contiguous(memory_format=torch.channels_last), name
    with torch.no_grad():
        for model in (one, two):
            for parameter in model.parameters():
                parameter.mul_(1.1)
    torch.testing.assert_close(second(), first(), rtol=1e-4, atol=0)
    second.add_gradient_()
    assert two.encoders["image"][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert two.encoders["image"][0].weight.grad.is_contiguous(memory_format=torch.channels_last)


def test_fisher_diagonals_of_channels_last_equal_one_sample_at_a_time():
    model = build(Convolutional).to(memory_format=torch.channels_last)
    loader = loader_of(model)
    found = FisherDiagonal(model.encoders).estimate(loader, model, mse_loss)
    assert_same(found, fisher_one_sample_at_a_time(model, loader, mse_loss))
