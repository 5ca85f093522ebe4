"""Models and batches that have led measurements astray, or could."""

import collections
import copy
import dataclasses
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import prune
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution, shapley_values
from tests.models import KINDS, Concat, Recurrent, build, loader_of
from tests.reference import assert_same, fisher_one_sample_at_a_time

FORMS = ["per_sample", "per_batch", "corrected"]


class Two(nn.Module):
    """Two encoders and a head; either encoder may be replaced."""

    def __init__(self, a=None, b=None):
        super().__init__()
        self.a = nn.Linear(4, 4) if a is None else a
        self.b = nn.Linear(4, 4) if b is None else b
        self.h = nn.Linear(8, 2)

    @property
    def encoders(self):
        return {"a": self.a, "b": self.b}

    def forward(self, x):
        return self.h(torch.cat([self.a(x["a"]), self.b(x["b"])], 1))


def batches(count=3, samples=6):
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(samples, 10, generator=generator) for _ in range(count)]
    return [({"a": d[:, :4], "b": d[:, 4:8]}, d[:, 8:]) for d in draw]


def all_measurements(model, encoders=None, **options):
    encoders = encoders or model.encoders
    return [
        lambda: ShapleyContribution(model, encoders, **options).evaluate(batches()),
        *(
            lambda form=form: FisherDiagonal(encoders, form).estimate(batches(), model, mse_loss, **options)
            for form in FORMS
        ),
        lambda: AWCRegularizer(model, encoders, mse_loss, **options).start_epoch(batches()),
    ]


class TestModulesUnderSeveralNames:
    def test_an_alias_of_an_encoder(self):
        model = Two()
        model.alias = model.a
        weight = model.a.weight
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert model.a.weight is weight
        assert model.alias.weight is weight
        assert_same(found, fisher_one_sample_at_a_time(model_with_encoders(model), batches(), mse_loss))

    def test_an_alias_inside_an_encoder(self):
        model = Two(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
        model.stem = model.a[0]
        weight = model.a[0].weight
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert model.a[0].weight is weight
        assert found["a"]["0.weight"].sum() > 0

    def test_one_layer_used_twice(self):
        layer = nn.Linear(4, 4)
        model = Two(nn.Sequential(layer, nn.Tanh(), layer))
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert_same(found, fisher_one_sample_at_a_time(model_with_encoders(model), batches(), mse_loss))

    def test_one_parameter_in_two_layers(self):
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        model = Two(nn.Sequential(first, nn.Tanh(), second))
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert_same(found, fisher_one_sample_at_a_time(model_with_encoders(model), batches(), mse_loss))


def model_with_encoders(model):
    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
            self.encoders = nn.ModuleDict(model.encoders)

        def forward(self, x):
            return self.model(x)

    return View()


class TestStateOfTheModel:
    class Lazy(nn.Module):
        """Fills a buffer at its first run, and remembers features and calls."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.register_buffer("mean", None)

        def forward(self, x):
            if self.mean is None:
                self.mean = x.mean(0).detach()
            self.last = self.inner(x - self.mean)
            return self.last

    @pytest.mark.parametrize("which", range(5))
    def test_what_a_forward_pass_leaves_on_a_module_is_taken_back(self, which):
        model = Two(self.Lazy())
        names, attributes = set(model.state_dict()), set(vars(model.a))
        all_measurements(model)[which]()
        assert set(model.state_dict()) == names
        assert set(vars(model.a)) == attributes
        assert model.a.mean is None
        pickle.loads(pickle.dumps(model))
        model(batches()[0][0])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("form", FORMS)
    def test_every_kind_can_be_copied_and_trained_after_fisher(self, kind, form):
        model = build(kind)
        FisherDiagonal(model.encoders, form).estimate(loader_of(model), model, mse_loss)
        twin = copy.deepcopy(model)
        inputs, target = loader_of(model)[0]
        mse_loss(twin(inputs), target).backward()
        assert all(p.grad is not None for p in twin.parameters())
        assert all(type(p) is nn.Parameter for p in model.parameters())

    def test_recurrent_layers_still_use_their_own_weights(self):
        model = build(Recurrent).eval()
        inputs, _ = loader_of(model)[0]
        FisherDiagonal(model.encoders).estimate(loader_of(model), model, mse_loss)
        before = model(inputs)
        with torch.no_grad():
            model.encoders["series"].lstm.weight_ih_l0.add_(1)
        assert not torch.equal(before, model(inputs))

    def test_pruned_layers(self):
        model = Two()
        prune.random_unstructured(model.a, "weight", 0.5)
        for measure in all_measurements(model):
            measure()

    def test_expanded_buffers(self):
        model = Two()
        model.register_buffer("mean", torch.tensor([0.5]).expand(3))
        for measure in all_measurements(model):
            measure()
        assert model.mean.tolist() == [0.5] * 3

    def test_other_modules_are_left_alone_too(self):
        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.logvar = nn.Parameter(torch.zeros(1))
                self.register_buffer("calls", torch.zeros(1))

            def forward(self, prediction, target):
                self.calls += 1
                return mse_loss(prediction, target)

        class Head(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 2)

            def forward(self, features):
                return self.out(self.norm(torch.cat([features["a"], features["b"]], 1)))

        model, loss, head = Two(), Loss(), Head()
        statistics = copy.deepcopy(head.state_dict())
        ShapleyContribution(model, model.encoders, head=head).evaluate(batches())
        awc = AWCRegularizer(model, model.encoders, loss)
        awc.start_epoch(batches())
        assert loss.calls.item() == 0
        assert all(torch.equal(value, statistics[name]) for name, value in head.state_dict().items())
        assert head.training
        assert list(awc.parameters()) == []
        assert not any("logvar" in key for key in awc.state_dict())

    def test_lazy_layers_are_refused(self):
        with pytest.raises(ValueError, match=r"a\.weight, a\.bias. Run a batch first"):
            ShapleyContribution(Two(nn.LazyLinear(4)), {"a": nn.Linear(1, 1)})


class TestEncodersInsideEachOther:
    def test_a_module_of_one_inside_another(self):
        shared = nn.Tanh()
        model = Two(nn.Sequential(nn.Linear(4, 4), shared), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
        with pytest.raises(ValueError, match="encoder of `a` holds a module that is named for `c`"):
            ShapleyContribution(model, {"a": model.a, "c": shared})

    def test_a_module_in_two_lists(self):
        norm = nn.LayerNorm(4, elementwise_affine=False)
        model = Two()
        model.norm = norm
        with pytest.raises(ValueError, match="contain each other"):
            ShapleyContribution(model, {"a": nn.ModuleList([model.a, norm]), "b": nn.ModuleList([model.b, norm])})

    def test_a_shared_activation_inside_both_is_fine(self):
        shared = nn.Tanh()
        model = Two(nn.Sequential(nn.Linear(4, 4), shared), nn.Sequential(nn.Linear(4, 4), shared))
        own = copy.deepcopy(model)
        own.b[1] = nn.Tanh()
        expected = ShapleyContribution(own, own.encoders).evaluate(batches())
        assert dict(ShapleyContribution(model, model.encoders).evaluate(batches())) == dict(expected)

    def test_a_container_with_a_forward_of_its_own_is_one_encoder(self):
        class Residual(nn.ModuleDict):
            def forward(self, x):
                return self["inner"](x) + x

        class Wrapped(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return self.inner(x)

        model = Two(Residual({"inner": nn.Linear(4, 4)}))
        wrapped = copy.deepcopy(model)
        wrapped.a = Wrapped(wrapped.a)
        expected = ShapleyContribution(wrapped, wrapped.encoders).evaluate(batches())
        assert dict(ShapleyContribution(model, model.encoders).evaluate(batches())) == dict(expected)


class TestBatches:
    def test_a_model_that_changes_its_input_in_place(self):
        class Centring(Two):
            def forward(self, x):
                x["a"].sub_(1.0)
                return super().forward({"a": x["a"], "b": x.pop("b")})

        torch.manual_seed(0)
        model = Centring()
        plain = Two()
        plain.load_state_dict(model.state_dict())
        shifted = [({"a": x["a"] - 1, "b": x["b"]}, y) for x, y in batches()]
        for form in FORMS:
            loader = batches()
            found = FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss)
            assert_same(found, FisherDiagonal(plain.encoders, form).estimate(shifted, plain, mse_loss))
            assert torch.equal(loader[0][0]["a"], batches()[0][0]["a"])
        loader = batches()
        found = ShapleyContribution(model, model.encoders).evaluate(loader)
        assert dict(found) == dict(ShapleyContribution(plain, plain.encoders).evaluate(shifted))
        assert loader[0][0].keys() == {"a", "b"}

    def test_every_coalition_sees_the_same_draw(self):
        model = Two()

        def step(model, batch):
            noise = torch.randn(6, 2)
            return 0 * model(batch[0]) + noise, noise

        profits = ShapleyContribution(model, model.encoders, step=step).evaluate(batches()).profits
        assert list(profits.values()) == pytest.approx([1, 1, 1, 1])

    def test_draws_differ_from_batch_to_batch(self):
        model, drawn = Two(), []

        def step(model, batch):
            drawn.append(torch.rand(1).item())
            return model(batch[0]), batch[1]

        ShapleyContribution(model, model.encoders, step=step).evaluate(batches(2))
        assert len(set(drawn)) == 2

    @pytest.mark.parametrize("target", [lambda y: y.tolist(), lambda y: y.numpy()])
    def test_targets_that_are_not_tensors_cannot_be_taken_apart(self, target):
        model = Two()
        loader = [(x, target(y)) for x, y in batches()]

        def step(model, batch):
            return model(batch[0]), torch.as_tensor(batch[1])

        with pytest.raises(ValueError, match=r"shape \[1, ...\]. Got \(6, 2\)"):
            FisherDiagonal(model.encoders).estimate(loader, model, mse_loss, step=step)
        FisherDiagonal(model.encoders, "corrected").estimate(loader, model, mse_loss, step=step)

    def test_outputs_of_another_length(self):
        model = Two()

        def step(model, batch):
            return model(batch[0])[:, : batch[1].shape[1]], batch[1]

        loader = [(x, y[:, : 1 + i % 2]) for i, (x, y) in enumerate(batches())]
        with pytest.raises(ValueError, match=r"one shape. Got \(2,\) after \(1,\)"):
            ShapleyContribution(model, model.encoders, step=step).evaluate(loader)

    def test_dataclasses_and_dicts_of_another_kind_as_features(self):
        @dataclasses.dataclass(frozen=True)
        class Output:
            hidden: torch.Tensor
            extra: dict

        class Own(dict):
            pass

        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(4, 4)

            def forward(self, x):
                return Output(self.inner(x), Own(mask=x > 0, more=[x]))

        class Model(Two):
            def forward(self, x):
                out = self.a(x["a"])
                mixed = out.hidden * out.extra["mask"] + out.extra["more"][0]
                return self.h(torch.cat([mixed, self.b(x["b"])], 1))

        model = Model(Encoder())
        result = ShapleyContribution(model, model.encoders).evaluate(batches())
        assert result.profits[frozenset()] == 0
        assert abs(result["a"]) > 1e-3


class Changing(nn.Module):
    """Rebinds and writes whatever a module can hold."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("ema", torch.zeros(4))
        self.code = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.plain = torch.zeros(4)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.ema = 0.9 * self.ema + x.detach().mean(0)
        with torch.no_grad():
            self.code.mul_(0.9).add_(x.detach().mean(0))
            self.plain.add_(1)
        return self.inner(x)


class TestWhatModelsDo:
    @pytest.mark.parametrize("which", range(5))
    @pytest.mark.filterwarnings("ignore:Per-sample gradients of this model cannot be vectorised")
    def test_a_model_that_writes_to_itself(self, which):
        model = Two(Changing())
        before = copy.deepcopy(model)
        all_measurements(model)[which]()
        assert model.a.calls == 0
        assert torch.equal(model.a.plain, before.a.plain)
        assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
        model(batches()[0][0])

    @pytest.mark.filterwarnings("ignore:Per-sample gradients of this model cannot be vectorised")
    def test_its_fisher_diagonal_is_right(self):
        torch.manual_seed(0)
        model = Two(Changing())
        plain = Two(copy.deepcopy(model.a.inner), model.b)
        plain.h = model.h
        expected = FisherDiagonal(plain.encoders).estimate(batches(), plain, mse_loss)
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        torch.testing.assert_close(found["a"]["inner.weight"], expected["a"]["weight"])

    def test_inference_mode(self):
        model = Two()
        expected = dict(ShapleyContribution(model, model.encoders).evaluate(batches()))
        awc = AWCRegularizer(model, model.encoders, mse_loss)
        with torch.inference_mode():
            assert dict(ShapleyContribution(model, model.encoders).evaluate(batches())) == expected
            awc.start_epoch(batches())
            shapley_values(torch.zeros(64))
        awc().backward()
        shapley_values(torch.zeros(64, requires_grad=True)).sum().backward()

    def test_an_input_that_reaches_the_head_after_an_encoder_changed_it(self):
        class Skipping(Two):
            def forward(self, x):
                a = self.a(x["a"])
                return self.h(torch.cat([a + x["a"], self.b(x["b"])], 1))

        torch.manual_seed(0)
        model = Skipping(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)))
        with pytest.warns(UserWarning, match="does not give its own prediction"):
            ShapleyContribution(model, model.encoders).evaluate(batches())

    def test_an_encoder_that_is_called_by_another_name(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(4, 4)

            def encode(self, x):
                return self.inner(x) + x

        class Model(Two):
            def forward(self, x):
                return self.h(torch.cat([self.a.encode(x["a"]), self.b(x["b"])], 1))

        model = Model(Odd())
        with pytest.raises(RuntimeError, match="encoder of `a` was not called"):
            ShapleyContribution(model, model.encoders).evaluate(batches())

    def test_an_encoder_that_puts_out_indices_only(self):
        class Indices(nn.Module):
            def forward(self, x):
                return (x > 0).long()

        model = Two(Indices())
        with pytest.raises(TypeError, match="`a` put out no tensor of real or complex numbers"):
            ShapleyContribution(model, model.encoders).evaluate(batches())

    def test_scripted_parts_are_refused(self):
        model = Two()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            model.stem = torch.jit.script(nn.ReLU())
        with pytest.raises(TypeError, match="Scripted are stem"):
            ShapleyContribution(model, model.encoders)


class TestBatchesOfOtherKinds:
    def test_numpy_views_and_objects_are_not_changed(self):
        class Data:
            def __init__(self, x, y):
                self.x, self.y = x, y

        def step(model, data):
            data.x["a"].numpy()[:] *= 0.5
            data.y = data.y + 1
            return model(data.x), data.y

        model = Two()
        loader = [Data(x, y) for x, y in batches()]
        first = dict(ShapleyContribution(model, model.encoders, step=step).evaluate(loader))
        assert dict(ShapleyContribution(model, model.encoders, step=step).evaluate(loader)) == first
        assert torch.equal(loader[0].x["a"], batches()[0][0]["a"])
        assert torch.equal(loader[0].y, batches()[0][1])

    def test_mappings_of_another_kind(self):
        def step(model, batch):
            return model(batch.pop("x")), batch.pop("y")

        model = Two()
        loader = [collections.UserDict(x=x, y=y) for x, y in batches()]
        found = ShapleyContribution(model, model.encoders, step=step).evaluate(loader)
        assert dict(found) == dict(ShapleyContribution(model, model.encoders).evaluate(batches()))
        assert loader[0].keys() == {"x", "y"}

    def test_dataclasses_are_taken_apart_by_sample(self):
        @dataclasses.dataclass
        class Batch:
            x: dict
            y: torch.Tensor
            name: str = "batch"

        model = Two()
        loader = [Batch(x, y) for x, y in batches()]
        found = FisherDiagonal(model.encoders).estimate(loader, model, mse_loss, step=lambda m, b: (m(b.x), b.y))
        assert_same(found, FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss))

    def test_a_batch_whose_tensors_disagree_has_no_sample_count(self):
        model = Two()
        loader = [({"w": torch.ones(3), **x}, y) for x, y in batches()]

        def step(model, batch):
            return mse_loss(model(batch[0]), batch[1]), None

        with pytest.raises(ValueError, match=r"Got the lengths \[3, 6\]"):
            FisherDiagonal(model.encoders, "corrected").estimate(loader, model, lambda loss, _: loss, step=step)

    def test_a_generator_deep_in_the_samplers_is_put_back(self):
        data = [(x, y) for inputs, target in batches() for x, y in zip(inputs["a"], target, strict=True)]
        generator = torch.Generator().manual_seed(0)
        sampler = BatchSampler(RandomSampler(data, generator=generator), 4, drop_last=False)
        loader = DataLoader(data, batch_sampler=sampler)
        model = nn.Sequential(nn.Linear(4, 2))
        before = generator.get_state()
        ShapleyContribution(model, {"a": model[0]}).evaluate(loader)
        assert torch.equal(generator.get_state(), before)


class TestGradients:
    def test_complex_parameters(self):
        class Radio(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(4, 4, dtype=torch.cfloat)

            def forward(self, x):
                return self.inner(x.to(torch.cfloat)).abs()

        model = Two(Radio())
        one_by_one = {name: torch.zeros(p.shape) for name, p in model.a.named_parameters()}
        for x, y in batches():
            for i in range(len(y)):
                model.zero_grad()
                mse_loss(model({m: v[i : i + 1] for m, v in x.items()}), y[i : i + 1]).backward()
                for name, p in model.a.named_parameters():
                    one_by_one[name] += p.grad.abs() ** 2 / 18
        found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert_same({"a": found["a"]}, {"a": one_by_one}, rtol=1e-4)
        corrected = FisherDiagonal(model.encoders, "corrected").estimate(batches(40, 4), model, mse_loss)
        assert all(v.dtype == torch.float32 and (v >= 0).all() for v in corrected["a"].values())
        awc = AWCRegularizer(model, model.encoders, mse_loss, alphas={"a": 2.0, "b": 1.0})
        awc.start_epoch(batches())
        with torch.no_grad():
            model.a.inner.weight += 0.1 + 0.2j
        model.zero_grad()
        awc().backward()
        by_autograd = model.a.inner.weight.grad.clone()
        model.zero_grad()
        awc.add_gradient_()
        torch.testing.assert_close(model.a.inner.weight.grad, by_autograd)

    @pytest.mark.parametrize("form", ["per_batch", "corrected"])
    def test_parameters_that_no_gradient_reaches_are_named(self, form):
        class Partly(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x):
                return self.used(x)

        model = Two(Partly())
        with pytest.warns(UserWarning, match=r"`a` \(unused.bias\), `a` \(unused.weight\)"):
            diagonal = FisherDiagonal(model.encoders, form).estimate(batches(), model, mse_loss)
        assert diagonal["a"]["unused.weight"].count_nonzero() == 0

    @pytest.mark.parametrize("form", FORMS)
    def test_squares_that_overflow_are_refused(self, form):
        model = Two()
        with pytest.raises(ValueError, match="overflow in `a`|gradient of `a` .* infinite"):
            FisherDiagonal(model.encoders, form).estimate(batches(), model, lambda p, t: 1e22 * mse_loss(p, t))

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_gradients_are_taken_where_they_are_switched_off(self, context):
        model = Two()
        expected = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        with context():
            found = FisherDiagonal(model.encoders).estimate(batches(), model, mse_loss)
        assert_same(found, expected)


class TestNames:
    def test_modalities_with_dots_and_slashes_do_not_collide(self):
        model = nn.ModuleDict(
            {"cam": nn.ModuleDict({"depth": nn.Linear(4, 4)}), "dep": nn.Linear(4, 4), "h": nn.Linear(8, 2)}
        )

        def step(model, batch):
            x, y = batch
            return model["h"](torch.cat([model["cam"]["depth"](x["a"]), model["dep"](x["b"])], 1)), y

        encoders = {"cam": model["cam"], "cam.depth": model["dep"]}
        awc = AWCRegularizer(model, encoders, mse_loss, alphas=dict.fromkeys(encoders, 1.0), step=step)
        awc.start_epoch(batches())
        assert len(list(awc.buffers())) == 8
        assert awc().item() == 0


class TestSavedStates:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"_extra_state": {"epoch": 7}}, "_extra_state: should hold rule, epoch, contributions"),
            ({"_extra_state": None}, "_extra_state: should hold"),
            ({"anchor/m0/0/bias": torch.full((4,), float("nan"))}, "anchor/m0/0/bias: not finite"),
            ({"anchor/m0/0/bias": [1.0]}, "anchor/m0/0/bias: list in place of a tensor"),
        ],
    )
    def test_damaged_entries_are_refused_and_nothing_is_loaded(self, change, words):
        model = build(Concat)
        awc = AWCRegularizer(model, model.encoders, mse_loss)
        awc.start_epoch(loader_of(model))
        before = copy.deepcopy(awc.state_dict())
        with pytest.raises(ValueError, match=words):
            awc.load_state_dict({**before, **change})
        assert awc.epoch == 1
        assert awc.state_dict()["_extra_state"] == before["_extra_state"]

    def test_a_state_that_is_no_mapping(self):
        model = build(Concat)
        with pytest.raises(TypeError, match="Got NoneType"):
            AWCRegularizer(model, model.encoders, mse_loss).load_state_dict(None)


WRONG_KINDS = [
    (lambda m: ShapleyContribution(m, m.encoders, step=3), "`step` should be callable. Got int"),
    (lambda m: ShapleyContribution(m, m.encoders, step=0), "`step` should be callable. Got int"),
    (lambda m: ShapleyContribution(m, m.encoders, head=3), "`head` should be callable. Got int"),
    (lambda m: FisherDiagonal(m.encoders).estimate(batches(), m, None), "`criterion` should be callable"),
    (lambda m: AWCRegularizer(m, m.encoders, mse_loss, fisher=None), "`fisher` should be a form or a FisherDiagonal"),
    (lambda m: AWCRegularizer(m, m.encoders, mse_loss, alphas={"a": None, "b": 1.0}), "made of numbers. Got NoneType"),
    (lambda m: AWCRegularizer(m, m.encoders, mse_loss, alphas={"a": "1", "b": 1.0}), "made of numbers. Got str"),
    (lambda m: AWCRegularizer(m, m.encoders, mse_loss, alpha_superior="x"), "made of numbers. Got str"),
    (
        lambda m: ShapleyContribution(m, m.encoders, lambda p, t: None).evaluate(batches()),
        "A profit should be a number",
    ),
    (lambda m: ShapleyContribution(m, m.encoders).evaluate(None), "`loader` should be iterable. Got NoneType"),
    (
        lambda m: ShapleyContribution(m, m.encoders).evaluate(torch.utils.data.TensorDataset(torch.zeros(2, 3))),
        "`loader` should yield batches. Got TensorDataset, a data set",
    ),
]


@pytest.mark.parametrize("case", range(len(WRONG_KINDS)))
def test_arguments_of_the_wrong_kind(case):
    call, words = WRONG_KINDS[case]
    with pytest.raises(TypeError, match=words):
        call(Two())


def test_a_wrong_profit_is_refused_with_fixed_alphas_too():
    model = Two()
    with pytest.raises(ValueError, match="Got 'pearsn'"):
        AWCRegularizer(model, model.encoders, mse_loss, alphas={"a": 1, "b": 1}, contributions="pearsn")
