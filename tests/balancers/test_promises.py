"""What every method promises: it trains any model, changes nothing of the user's, and switched off it is not there."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from awc_balance import balancers
from awc_balance.balancers import (
    AGM,
    AWC,
    OGMGE,
    Balancer,
    GBlending,
    InfoReg,
    MMPareto,
    ModalityResampling,
    Plain,
    SampleResampling,
    linear_heads,
)
from tests.balancers.methods import METHODS, NO_STRENGTH, cast, easy, optimizer_of, parameters, step, task_of, train
from tests.models import KINDS, Attention, Concat, Convolutional, build, loader_of
from tests.test_nothing_is_changed import LOADERS, picture, same

MODELS = {
    "two modalities": lambda: build(Concat),
    "five modalities": lambda: build(Concat, modalities=5),
    "attention": lambda: build(Attention),
}


def prepared(name, model, criterion=mse_loss, **options):
    """A method and the batches to train on."""
    balancer = METHODS[name](model, model.encoders, criterion, **options)
    return balancer, task_of(loader_of(model), criterion)


class Pair(nn.Module):
    """Two modalities from one tensor, as the loaders of `test_nothing_is_changed` have it."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})

    def forward(self, x):
        return self.encoders["a"](x) + self.encoders["b"](x).tanh()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_trains_and_differs_from_plain_training(name, model, criterion, optimizer):
    ends, model = [], MODELS[model]
    for use in (False, True):
        user = model()
        loader = easy(user, criterion)
        balancer = METHODS[name](user, user.encoders, criterion) if use else None
        train(user, loader, criterion, balancer, optimizer_of(user, balancer, optimizer))
        ends.append(parameters(user))
    assert all(end.isfinite().all() for end in ends)
    assert not torch.equal(*ends)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_takes_every_kind_of_model(name, kind):
    model = build(kind)
    balancer, loader = prepared(name, model)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
    assert parameters(model).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_takes_a_single_modality(name):
    model = build(Concat, modalities=1)
    balancer, loader = prepared(name, model)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
    assert parameters(model).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_takes_frozen_encoders(name):
    model = build(Concat)
    model.encoders["m0"].requires_grad_(False)
    before = parameters(model.encoders["m0"])
    balancer, loader = prepared(name, model)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
    assert torch.equal(parameters(model.encoders["m0"]), before)
    assert all(p.grad is None for p in model.encoders["m0"].parameters())


@pytest.mark.parametrize("name", METHODS)
def test_takes_double_precision(name):
    model = build(Concat).double()
    balancer = METHODS[name](model, model.encoders, mse_loss, **({} if name != "G-Blending" else weights_of(model)))
    loader = cast(loader_of(model), torch.float64)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
    assert parameters(model).isfinite().all()


def weights_of(model):
    return {"weights": {**dict.fromkeys(model.encoders, 0.25), "joint": 0.5}}


class TestSwitchedOff:
    @pytest.mark.parametrize("criterion", [mse_loss, cross_entropy])
    @pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
    @pytest.mark.parametrize("name", METHODS)
    def test_without_strength_it_is_bitwise_plain_training(self, name, optimizer, criterion):
        ends = []
        for use in (False, True):
            model = build(Concat, modalities=3)
            balancer, loader = prepared(name, model, criterion, **NO_STRENGTH[name](model.encoders))
            balancer = balancer if use else None
            ends.append(parameters(train(model, loader, criterion, balancer, optimizer_of(model, balancer, optimizer))))
        assert torch.equal(*ends)

    @pytest.mark.parametrize("options", [{"window": 0}, None])
    @pytest.mark.parametrize("name", METHODS)
    def test_with_batch_norm_dropout_and_a_shuffled_loader(self, name, options):
        ends = []
        for use in (False, True):
            model = build(Convolutional).train()
            balancer, loader = prepared(name, model, **(options or NO_STRENGTH[name](model.encoders)))
            data = [({m: x[i] for m, x in inputs.items()}, y[i]) for inputs, y in loader for i in range(8)]
            shuffled = torch.utils.data.DataLoader(data, 6, shuffle=True)
            balancer = balancer if use else None
            train(model, shuffled, mse_loss, balancer, optimizer_of(model, balancer))
            ends.append(copy.deepcopy(model.state_dict()))
        assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())

    @pytest.mark.parametrize("name", METHODS)
    def test_after_the_window_it_is_plain_training(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model, window=1)
        optimizer = optimizer_of(model, balancer)
        train(model, loader, mse_loss, balancer, optimizer, epochs=1)
        assert balancer.active
        balancer.start_epoch(loader)
        assert not balancer.active
        assert torch.equal(balancer.loss(loader[0]), mse_loss(model(loader[0][0]), loader[0][1]))
        balancer.loss(loader[0]).backward()
        before = [p.grad.clone() for p in model.parameters()]
        balancer.adjust_gradients_()
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))

    @pytest.mark.parametrize("name", METHODS)
    def test_without_gradients_the_loss_is_the_task_loss(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model)
        balancer.start_epoch(loader)
        with torch.no_grad():
            assert torch.equal(balancer.loss(loader[0]), mse_loss(model(loader[0][0]), loader[0][1]))

    def test_plain_is_plain(self):
        ends = []
        for use in (False, True):
            model = build(Concat)
            balancer = Plain(model, model.encoders, mse_loss) if use else None
            ends.append(parameters(train(model, loader_of(model), mse_loss, balancer, optimizer_of(model, balancer))))
        assert torch.equal(*ends)


class TestNothingIsChanged:
    @pytest.mark.parametrize("kind", [Convolutional, Attention, Concat])
    @pytest.mark.parametrize("name", METHODS)
    def test_a_step_leaves_of_the_model_what_plain_training_leaves(self, name, kind):
        """Hooks, attributes, flags, buffers, random state; of gradients only which there are."""
        pictures = []
        for use in (False, True):
            model = build(kind).train()
            list(model.modules())[-1].eval()
            batch = loader_of(model)[0]
            balancer = METHODS[name](model, model.encoders, mse_loss) if use else None
            torch.manual_seed(3)
            if use:
                balancer.start_epoch([batch, batch])
                balancer.loss(batch).backward()
                balancer.adjust_gradients_()
            else:
                mse_loss(model(batch[0]), batch[1]).backward()
            found = picture(model)
            for part in ("parameters", "buffers"):
                found.pop(part)
            found["gradients"] = {key: torch.ones(()) for key in found["gradients"]}
            pictures.append(found)
        same(*pictures)

    @pytest.mark.parametrize("name", METHODS)
    def test_building_and_starting_leave_everything_as_it_was(self, name):
        model = build(Convolutional)
        inputs, target = loader_of(model)[0]
        mse_loss(model(inputs), target).backward()
        before = picture(model)
        balancer, loader = prepared(name, model)
        for _ in range(2):
            balancer.start_epoch(loader)
        same(before, picture(model))

    @pytest.mark.parametrize("name", METHODS)
    def test_the_model_keeps_nothing_of_the_balancer(self, name):
        model = build(Concat)
        names = set(model.state_dict())
        balancer, loader = prepared(name, model)
        train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
        inputs, _ = loader[0]
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(other(inputs), model(inputs))
        assert set(model.state_dict()) == names
        assert not {id(p) for p in model.parameters()} & {id(p) for p in balancer.parameters()}

    @pytest.mark.parametrize("kind", ["global generator", "generator of the loader", "generator of the sampler"])
    @pytest.mark.parametrize("name", METHODS)
    def test_the_order_of_the_next_epoch_is_what_it_would_have_been(self, name, kind):
        def next_epoch(use):
            torch.manual_seed(0)
            loader, model = LOADERS[kind](), build(Pair)
            if use:
                heads = {"heads": {m: nn.Linear(3, 3) for m in model.encoders}}
                options = {"G-Blending": {"held_out": loader, **heads}, "MMPareto": heads}.get(name, {})
                method = {"G-Blending": GBlending, "MMPareto": MMPareto}.get(name, METHODS[name])
                balancer = method(model, model.encoders, mse_loss, **options)
            torch.manual_seed(1)
            if use:
                balancer.start_epoch(loader)
            return torch.cat([x for x, _ in loader]), torch.rand(2)

        for expected, found in zip(next_epoch(False), next_epoch(True), strict=True):
            assert torch.equal(expected, found)

    @pytest.mark.parametrize("name", METHODS)
    def test_a_failing_epoch_changes_nothing(self, name):
        class Loader:
            def __iter__(self):
                raise OSError("the disk is gone")

        model = build(Concat)
        balancer, loader = prepared(name, model)
        balancer.start_epoch(loader)
        before = copy.deepcopy(balancer.state_dict())
        try:
            balancer.start_epoch(Loader())
        except OSError:
            assert str(before) == str(balancer.state_dict())
        else:
            assert balancer.epoch == 2


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_resumed_in_the_middle_of_an_epoch_ends_at_the_same_bits(name, optimizer):
    def begin():
        model = build(Convolutional)
        balancer, loader = prepared(name, model)
        return model, balancer, loader, optimizer_of(model, balancer, optimizer)

    def second_half(model, balancer, loader, opt):
        for batch in loader[1:]:
            step(model, batch, mse_loss, balancer, opt)
        train(model, loader, mse_loss, balancer, opt, epochs=2)
        return parameters(model)

    model, balancer, loader, opt = begin()
    train(model, loader, mse_loss, balancer, opt, epochs=2)
    balancer.start_epoch(loader)
    step(model, loader[0], mse_loss, balancer, opt)
    file = io.BytesIO()
    saved = {"model": model, "balancer": balancer, "optimizer": opt}
    torch.save({key: value.state_dict() for key, value in saved.items()} | {"rng": torch.get_rng_state()}, file)
    expected = second_half(model, balancer, loader, opt)

    model, balancer, loader, opt = begin()
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for key, value in {"model": model, "balancer": balancer, "optimizer": opt}.items():
        value.load_state_dict(state[key])
    torch.set_rng_state(state["rng"])
    assert torch.equal(second_half(model, balancer, loader, opt), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_function_of_the_users_own(name):
    """A batch as a dict, and a model called with keywords."""
    model = build(Concat)
    loader = [{"x": x, "y": y} for x, y in loader_of(model)]

    def read(model, batch):
        return model(inputs=batch["x"]), batch["y"]

    ends = []
    for own in (False, True):
        user = copy.deepcopy(model)
        options = weights_of(user) if name == "G-Blending" else {}
        balancer = METHODS[name](user, user.encoders, mse_loss, **options, **({"step": read} if own else {}))
        optimizer = optimizer_of(user, balancer)
        balancer.start_epoch(loader if own else loader_of(user))
        for batch in loader if own else loader_of(user):
            step(user, batch, mse_loss, balancer, optimizer)
        ends.append(parameters(user))
    if name not in ("MMPareto", "G-Blending"):  # whose heads begin at random
        assert torch.equal(*ends)


@pytest.mark.parametrize("name", METHODS)
def test_compiled_models(name):
    model = build(Concat)
    loader = loader_of(model)
    compiled = torch.compile(model, backend="eager")
    compiled(loader[0][0])
    balancer = METHODS[name](compiled, model.encoders, mse_loss)
    train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
    assert parameters(model).isfinite().all()


def test_every_public_class_is_tested_here():
    classes = {getattr(balancers, name) for name in balancers.__all__}
    methods = {c for c in classes if isinstance(c, type) and issubclass(c, Balancer)} - {Balancer, Plain}
    model = build(Concat)
    assert {type(prepared(name, model)[0]) for name in METHODS} == methods


BAD = [
    (OGMGE, {"alpha": -1.0}, ValueError, "alpha"),
    (OGMGE, {"alpha": float("nan")}, ValueError, "alpha"),
    (OGMGE, {"tensors": "some"}, ValueError, "convolutions"),
    (OGMGE, {"head": nn.ReLU()}, TypeError, "nn.Linear"),
    (OGMGE, {"score": "good"}, TypeError, "score"),
    (AGM, {"alpha": -1.0}, ValueError, "alpha"),
    (AGM, {"cap": float("inf")}, ValueError, "cap"),
    (AGM, {"score": 3}, TypeError, "score"),
    (InfoReg, {"beta": -0.1}, ValueError, "beta"),
    (InfoReg, {"memory": 0}, ValueError, "memory"),
    (InfoReg, {"growth": float("nan")}, ValueError, "growth"),
    (AWC, {"alpha_superior": -1.0}, ValueError, "alpha_superior"),
    (AWC, {"window": -1}, ValueError, "window"),
    (SampleResampling, {"alpha": -1.0}, ValueError, "alpha"),
    (SampleResampling, {"warmup": -1}, ValueError, "warmup"),
    (SampleResampling, {"warmup": 2.5}, ValueError, "warmup"),
    (ModalityResampling, {"profit": "luck"}, ValueError, "accuracy"),
    (ModalityResampling, {"profit": "pearson", "share": 0.0}, ValueError, "share"),
    (MMPareto, {"heads": {}}, ValueError, "heads"),
    (MMPareto, {"heads": {"m0": nn.Linear(4, 3), "m1": "head"}}, TypeError, "head of `m1`"),
    (MMPareto, {"heads": {"m0": nn.Linear(4, 3), "m1": nn.Linear(4, 3)}, "gamma": 0.0}, ValueError, "gamma"),
    (GBlending, {"heads": {"m0": nn.Linear(4, 3), "m1": nn.Linear(4, 3)}}, ValueError, "neither"),
    *(
        (GBlending, {"heads": {"m0": nn.Linear(4, 3), "m1": nn.Linear(4, 3)}, **options}, ValueError, match)
        for options, match in [
            ({"weights": {"m0": 1.0}}, "weights"),
            ({"weights": {"m0": 0.0, "m1": 0.0, "joint": 0.0}}, "at least 0"),
            ({"weights": {"m0": -1.0, "m1": 1.0, "joint": 1.0}}, "at least 0"),
            ({"held_out": [], "super_epoch": 0}, "super_epoch"),
        ]
    ),
    (Plain, {"window": -1}, ValueError, "window"),
    (Plain, {"window": 1.5}, ValueError, "window"),
    (Plain, {"criterion": "mse"}, TypeError, "criterion"),
    (Plain, {"step": "mine"}, TypeError, "step"),
    (Plain, {"encoders": {}}, ValueError, "at least one modality"),
    (Plain, {"encoders": {"x": nn.Linear(2, 2)}}, ValueError, "part of the model"),
    (Plain, {"model": 3}, TypeError, "nn.Module"),
]


@pytest.mark.parametrize(("method", "options", "error", "match"), BAD)
def test_bad_input(method, options, error, match):
    model = build(Concat)
    arguments = {"model": model, "encoders": model.encoders, "criterion": mse_loss, **options}
    with pytest.raises(error, match=match) as raised:
        method(**arguments)
    assert " Got " in str(raised.value) or "Not found" in str(raised.value) or "shared" in str(raised.value).lower()


class TestOrderOfCalls:
    @pytest.mark.parametrize("name", METHODS)
    def test_a_loss_before_the_first_epoch_is_refused(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model)
        with pytest.raises(RuntimeError, match="start_epoch"):
            balancer.loss(loader[0])

    @pytest.mark.parametrize("name", ["OGM-GE", "InfoReg"])
    def test_adjusting_without_a_loss_is_refused(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model)
        balancer.start_epoch(loader)
        with pytest.raises(RuntimeError, match="loss\\(batch\\)"):
            balancer.adjust_gradients_()

    @pytest.mark.parametrize("name", METHODS)
    def test_an_epoch_without_adjusting_is_refused_where_it_matters(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model)
        balancer.start_epoch(loader)
        balancer.loss(loader[0]).backward()
        if name in ("OGM-GE", "InfoReg", "AWC"):
            with pytest.raises(RuntimeError, match="adjust_gradients_"):
                balancer.start_epoch(loader)
        else:
            balancer.start_epoch(loader)

    @pytest.mark.parametrize("name", [name for name in METHODS if name != "sample resampling"])
    def test_numbers_that_are_not_finite_are_refused_and_never_kept(self, name):
        model = build(Concat)
        balancer, loader = prepared(name, model)
        bad = [({m: x * float("nan") for m, x in inputs.items()}, target) for inputs, target in loader]
        measures_first = name in ("G-Blending", "modality resampling", "AWC")
        if not measures_first:
            balancer.start_epoch(loader)
        before = str(balancer.state_dict())
        with pytest.raises(ValueError, match="finite"):
            balancer.start_epoch(bad) if measures_first else balancer.loss(bad[0])
        assert str(balancer.state_dict()) == before

    def test_a_state_of_another_method_is_refused(self):
        model = build(Concat)
        one, other = (prepared(name, model)[0] for name in ("OGM-GE", "AGM"))
        with pytest.raises(ValueError, match="same kind"):
            one.load_state_dict(other.state_dict())

    def test_a_state_of_other_encoders_is_refused_with_every_key(self):
        one, other = build(Concat), build(Concat, modalities=3)
        with pytest.raises(ValueError, match="anchor/m2/0/bias: unexpected"):
            prepared("InfoReg", one)[0].load_state_dict(prepared("InfoReg", other)[0].state_dict())


class TestWarnings:
    @pytest.mark.parametrize("name", ["OGM-GE", "AGM"])
    @pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
    def test_scaling_is_void_under_adam(self, name, optimizer):
        model = build(Concat)
        with pytest.warns(UserWarning, match="no effect"):
            prepared(name, model)[0].check(optimizer(model.parameters()))

    @pytest.mark.parametrize("name", METHODS)
    def test_sgd_with_the_heads_is_fine(self, name):
        model = build(Concat)
        balancer, _ = prepared(name, model)
        balancer.check(optimizer_of(model, balancer, "SGD"))

    @pytest.mark.parametrize("name", ["MMPareto", "G-Blending"])
    def test_heads_that_are_not_trained(self, name):
        model = build(Concat)
        with pytest.warns(UserWarning, match="add_param_group"):
            prepared(name, model)[0].check(torch.optim.SGD(model.parameters()))

    def test_only_optimizers_are_checked(self):
        model = build(Concat)
        with pytest.raises(TypeError, match="Optimizer"):
            prepared("AGM", model)[0].check(model)

    @pytest.mark.parametrize(("name", "options"), [("OGM-GE", {"alpha": 5.0}), ("AGM", {"alpha": 20.0})])
    def test_alpha_of_another_scale(self, name, options):
        with pytest.warns(UserWarning, match="alpha="):
            prepared(name, build(Concat), **options)

    def test_beta_of_another_scale(self):
        with pytest.warns(UserWarning, match="beta="):
            prepared("InfoReg", build(Concat), beta=100.0)

    @pytest.mark.parametrize("options", [{"scale": "root_mean"}, {"fisher": "per_sample"}])
    def test_the_papers_alphas_in_another_setting(self, options):
        model = build(Concat)
        balancer = AWC(model, model.encoders, mse_loss, **options)
        with pytest.warns(UserWarning, match="paper's scale"):
            balancer.start_epoch(loader_of(model))

    def test_a_batch_too_small_for_a_correlation(self):
        model = build(Concat)
        balancer = InfoReg(model, model.encoders, mse_loss)
        balancer.start_epoch([])
        with pytest.warns(UserWarning, match="8 samples"):
            balancer.loss(loader_of(model, samples=4)[0])


class TestHeads:
    @pytest.mark.parametrize("kind", KINDS)
    def test_predict_the_shape_of_the_model(self, kind):
        model = build(kind)
        batch = loader_of(model)[0]
        before = picture(model)
        heads = linear_heads(model, model.encoders, batch)
        same(before, picture(model))
        assert list(heads) == list(model.encoders)
        for head in heads.values():
            assert head(torch.randn(5, head.linear.in_features)).shape == (5, *model(batch[0]).shape[1:])

    def test_names_may_hold_dots_and_be_those_of_methods(self):
        model = build(Concat)
        encoders = {"a.b": model.encoders["m0"], "keys": model.encoders["m1"]}
        loader = loader_of(model)
        for method in (MMPareto, InfoReg):
            arguments = (linear_heads(model, encoders, loader[0]),) if method is MMPareto else ()
            balancer = method(model, encoders, mse_loss, *arguments)
            train(model, loader, mse_loss, balancer, optimizer_of(model, balancer))
            balancer.load_state_dict(balancer.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_automatic_mixed_precision(name):
    model = build(Attention)
    balancer, loader = prepared(name, model)
    optimizer = optimizer_of(model, balancer)
    for _ in range(2):
        balancer.start_epoch(loader)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = balancer.loss(batch)
            loss.backward()
            balancer.adjust_gradients_()
            optimizer.step()
            optimizer.zero_grad()
    assert parameters(model).isfinite().all()
