"""The rules of layers give what autograd gives one sample at a time, and are used nowhere else."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import mse_loss
from torch.nn.utils.parametrizations import weight_norm

from awc_balance import FisherDiagonal
from awc_balance.fisher import operation, operations
from awc_balance.fisher.criteria import losses_by_element
from tests.reference import assert_same, fisher_one_sample_at_a_time


class Encoder(nn.Module):
    """Some layers as the only encoder, and the mean of squares of what comes out."""

    def __init__(self, *layers):
        super().__init__()
        self.encoders = nn.ModuleDict({"m": nn.Sequential(*layers)})

    def forward(self, x):
        return self.encoders["m"](x).flatten(1)


class Apply(nn.Module):
    """A function of modules or parameters and an input."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function = function
        self.parts = nn.ParameterList(p for p in parts if isinstance(p, torch.Tensor))
        self.modules_ = nn.ModuleList(p for p in parts if isinstance(p, nn.Module))

    def forward(self, x):
        return self.function(x, *self.modules_, *self.parts)


def near(prediction, target):
    """A loss whose gradients are not alike for all samples."""
    return mse_loss(prediction.tanh(), target[:, :1].expand_as(prediction))


def measure(model, *inputs, criterion=near, **options):
    """The Fisher diagonal, that of one sample at a time, and how it was taken."""
    loader = [(x, torch.linspace(-1, 1, len(x)).unsqueeze(1).to(torch.get_default_dtype())) for x in inputs]
    expected = fisher_one_sample_at_a_time(model, loader, criterion)
    fisher = FisherDiagonal(model.encoders, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Per-sample gradients of this model cannot be vectorised")
        found = fisher.estimate(loader, model, criterion)
    assert_same(found, expected, rtol=2e-4, atol=1e-9)
    return fisher.coverage["m"]


def conv(dimensions, *args, transposed=False, **options):
    kinds = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        if transposed
        else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    return kinds[dimensions - 1](*args, **options)


def trained(norm):
    """A norm layer with statistics and parameters that are not those of its birth."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    return norm


VECTORS, TOKENS = (5, 6), (5, 5, 6)  # as many tokens as samples, lest they be told apart by number
ATTENTION = {"num_heads": 2, "dropout": 0.0}
LAYERS = {
    "linear": (VECTORS, lambda: [nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)]),
    "linear without bias": (VECTORS, lambda: [nn.Linear(6, 4, bias=False)]),
    "linear on tokens": (TOKENS, lambda: [nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3, bias=False)]),
    "linear on a grid": ((7, 3, 2, 6), lambda: [nn.Linear(6, 4)]),
    "relu in place": (VECTORS,
        lambda: [nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True)]),
    "conv1d": ((7, 3, 9), lambda: [conv(1, 3, 4, 3, padding=1), nn.ReLU(), conv(1, 4, 2, 2)]),
    "conv2d": ((7, 3, 6, 7),
        lambda: [conv(2, 3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), nn.ReLU(), conv(2, 4, 2, 1)]),
    "conv2d in few groups of one": ((7, 8, 5, 5), lambda: [conv(2, 8, 9, 3, padding=1, stride=2)]),
    "conv2d groups": ((7, 16, 5, 5), lambda: [conv(2, 16, 4, 3, groups=2, padding=1), conv(2, 4, 8, 3, groups=4)]),
    "conv2d dilation": ((7, 3, 9, 9), lambda: [conv(2, 3, 8, 3, dilation=2), conv(2, 8, 3, 3, dilation=2, stride=2)]),
    "conv2d that leaves a rest": ((7, 8, 6, 6), lambda: [conv(2, 8, 3, 3, stride=2), conv(2, 3, 4, 2, stride=3)]),
    "conv2d same": ((7, 9, 6, 6), lambda: [conv(2, 9, 3, (2, 3), padding="same"), conv(2, 3, 3, 2, padding="same")]),
    "conv2d valid, no bias": ((7, 3, 6, 6), lambda: [conv(2, 3, 4, 2, padding="valid", bias=False)]),
    "conv2d reflecting": ((7, 3, 6, 6), lambda: [conv(2, 3, 4, 3, padding=1, padding_mode="reflect")]),
    "conv2d circular": ((7, 3, 6, 6), lambda: [conv(2, 3, 4, 3, padding=2, padding_mode="circular")]),
    "conv3d": ((7, 2, 4, 4, 5), lambda: [conv(3, 2, 3, 2, padding=1), nn.ReLU(), conv(3, 3, 2, 3)]),
    "transposed conv1d": ((7, 3, 5), lambda: [conv(1, 3, 4, 3, stride=2, padding=1, transposed=True)]),
    "transposed conv2d": (
        (7, 4, 4, 4),
        lambda: [conv(2, 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, transposed=True)],
    ),
    "transposed conv2d, wide": ((7, 10, 4, 4), lambda: [conv(2, 10, 9, 3, dilation=2, transposed=True)]),
    "batch norm": (VECTORS, lambda: [nn.Linear(6, 4), trained(nn.BatchNorm1d(4)), nn.Tanh()]),
    "batch norm on maps": ((7, 3, 5, 5), lambda: [conv(2, 3, 4, 2), trained(nn.BatchNorm2d(4)), nn.ReLU(inplace=True)]),
    "layer norm": (TOKENS, lambda: [nn.Linear(6, 4), trained(nn.LayerNorm(4)), nn.Tanh()]),
    "layer norm over two axes": (TOKENS, lambda: [trained(nn.LayerNorm((5, 6)))]),
    "rms norm": (TOKENS, lambda: [trained(nn.RMSNorm(6)), nn.Linear(6, 2)]),
    "group norm": ((7, 4, 5, 5), lambda: [trained(nn.GroupNorm(2, 4)), conv(2, 4, 3, 2)]),
    "instance norm": ((7, 4, 5, 5), lambda: [trained(nn.InstanceNorm2d(4, affine=True))]),
    "instance norm with statistics": (
        (7, 4, 5),
        lambda: [trained(nn.InstanceNorm1d(4, affine=True, track_running_stats=True))],
    ),
    "attention": (TOKENS,
        lambda: [Apply(lambda x, a: a(x, x, x)[0], nn.MultiheadAttention(6, batch_first=True, **ATTENTION))]),
    "attention, batch second": (
        TOKENS,
        lambda: [Apply(lambda x, a: a(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1),
                       nn.MultiheadAttention(6, **ATTENTION))],
    ),
    "attention across": (
        TOKENS,
        lambda: [Apply(lambda x, a: a(x[:, :2], x, x)[0], nn.MultiheadAttention(6, batch_first=True, **ATTENTION))],
    ),
    "attention with three inputs": (
        TOKENS,
            lambda: [Apply(lambda x, a: a(x[:, :2], x, x.sin())[0],
                nn.MultiheadAttention(6, batch_first=True, **ATTENTION))],
    ),
    "attention with other widths": (
        TOKENS,
        lambda: [Apply(lambda x, a: a(x, x[..., :4], x[..., :3])[0],
                       nn.MultiheadAttention(6, kdim=4, vdim=3, batch_first=True, **ATTENTION))],
    ),
    "transformer layer": (
        TOKENS,
        lambda: [nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True)],
    ),
    "added to all": (TOKENS, lambda: [Apply(lambda x, p: x + p, torch.randn(5, 6)), nn.Linear(6, 2)]),
    "scaled": (TOKENS, lambda: [nn.Linear(6, 4), Apply(lambda x, p: x * p, torch.rand(4)), nn.Tanh()]),
    "scaled from the left": (TOKENS, lambda: [Apply(lambda x, p: p * x, torch.rand(5, 1)), nn.Linear(6, 2)]),
    "scaled by one number": (TOKENS, lambda: [Apply(lambda x, p: torch.mul(x, p), torch.tensor(0.5)), nn.Linear(6, 2)]),
    "repeated": (
        TOKENS,
            lambda: [Apply(lambda x, p: torch.cat([p.expand(len(x), -1, -1), x], 1), torch.randn(1, 1, 6)),
                nn.Linear(6, 2)],
    ),
    "time in the batch": (
        TOKENS,
            lambda: [Apply(lambda x, a, b: b(a(x.flatten(0, 1)).relu()).unflatten(0, (len(x), -1)),
                nn.Linear(6, 4), nn.Linear(4, 2))],
    ),
    "batch in time": (
        TOKENS,
            lambda: [Apply(lambda x, a: a(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (5, -1)).transpose(0, 1),
                nn.Linear(6, 4))],
    ),
    "maps in the batch": (
        (7, 2, 3, 5, 5),
            lambda: [Apply(lambda x, a, b: b(a(x.flatten(0, 1))).unflatten(0, (len(x), -1)),
                conv(2, 3, 8, 2), trained(nn.BatchNorm2d(8)))],
    ),
    "used twice": (VECTORS, lambda: (lambda a: [a, nn.Tanh(), a])(nn.Linear(6, 6))),
    "used five times": (VECTORS, lambda: (lambda a: [a, nn.Tanh(), a, nn.Tanh(), a, a, a])(nn.Linear(6, 6))),
    "twins that differ little": (VECTORS, lambda: [Apply(lambda x, a: a(x) - a(1.001 * x), nn.Linear(6, 6))]),
    "conv used twice": ((7, 3, 5, 5), lambda: (lambda a: [a, nn.Tanh(), a])(conv(2, 3, 3, 3, padding=1))),
    "norm used twice": (TOKENS, lambda: (lambda a: [a, nn.Tanh(), a])(trained(nn.LayerNorm(6)))),
    "used by two kinds of calls": (
        VECTORS,
        lambda: [Apply(lambda x, a: a(x) + F.linear(x.sin(), a.weight) * a.bias, nn.Linear(6, 6))],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own
@pytest.mark.parametrize("name", LAYERS)
def test_equal_to_one_sample_at_a_time(name):
    torch.manual_seed(0)
    shape, layers = LAYERS[name]
    model = Encoder(*layers())
    coverage = measure(model, torch.randn(shape), torch.randn(shape), torch.randn(2, *shape[1:]))
    assert set(coverage.values()) == {"rule"}


@pytest.mark.parametrize("name", ["conv2d", "linear on tokens", "batch norm on maps", "attention", "used twice"])
def test_in_double_precision_to_its_rounding(name):
    torch.manual_seed(0)
    shape, layers = LAYERS[name]
    model = Encoder(*layers()).double()
    loader = [(torch.randn(shape).double(), torch.randn(shape[0], 1).double())]
    expected = fisher_one_sample_at_a_time(model, loader, near)
    assert_same(FisherDiagonal(model.encoders).estimate(loader, model, near), expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("rows", [0, 3, 6])
def test_uses_that_cancel_in_some_outputs(rows):
    torch.manual_seed(0)
    near_zero = torch.arange(6) < rows
    layer = Apply(lambda x, a: a(x) - a(torch.where(x > 0, 1.001, 0.999) * x) * near_zero, nn.Linear(6, 6))
    assert set(measure(Encoder(layer), torch.randn(40, 6)).values()) == {"rule"}


def test_pairs_in_single_precision_where_nothing_cancels(monkeypatch):
    torch.manual_seed(0)
    g, x = torch.rand(2, 50, 3, 8).unbind()
    expected = torch.einsum("sto,sti->soi", g.double(), x.double()).square().sum(0)
    monkeypatch.setattr(torch.Tensor, "double", None)
    torch.testing.assert_close(operations._squares_by_pairs(g, x), expected.float(), rtol=1e-5, atol=0)


def test_pairs_in_double_precision_where_something_cancels():
    torch.manual_seed(0)
    g, x = torch.rand(2, 50, 2, 8).unbind()
    x[:, 1], g[:, 1, :3] = x[:, 0], -1.0001 * g[:, 0, :3]
    expected = torch.einsum("sto,sti->soi", g.double(), x.double()).square().sum(0)
    torch.testing.assert_close(operations._squares_by_pairs(g, x), expected.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("padding", [None, 0])
def test_embeddings(padding, sparse):
    table = nn.Embedding(5, 4, padding_idx=padding, sparse=sparse)
    words = [torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    assert set(measure(Encoder(table, nn.Linear(4, 3)), *words).values()) == {"rule"}


def test_an_embedding_that_is_also_the_output():
    table = nn.Embedding(5, 4)
    model = Encoder(Apply(lambda x, a: F.linear(a(x).tanh(), a.weight), table))
    words = torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(0))
    assert set(measure(model, words).values()) == {"rule"}


@pytest.mark.parametrize("alone", [0, 2**20], ids=["one by one", "several"])
@settings(max_examples=8)
@given(
    st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 10), st.sampled_from([1, 2]), st.integers(1, 3),
    st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_convolutions_of_any_kind(
    alone, seed, dimensions, channels, groups, size, stride, padding, dilation, transposed
):
    torch.manual_seed(seed)
    layer = conv(
        dimensions, groups * channels, groups * 2, size, stride=stride, padding=min(padding, size - 1),
        dilation=dilation, groups=groups, transposed=transposed,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operation, "ALONE", alone)
        coverage = measure(Encoder(layer), torch.randn(4, groups * channels, *(6, 5, 5)[:dimensions]))
    assert set(coverage.values()) == {"rule"}


@pytest.mark.parametrize("name", ["conv2d groups", "conv3d", "linear on tokens", "attention", "time in the batch"])
def test_products_of_one_sample_at_a_time_as_they_are_made_of_large_ones(name, monkeypatch):
    monkeypatch.setattr(operation, "ALONE", 0)
    test_equal_to_one_sample_at_a_time(name)


@pytest.mark.parametrize(
    "layer", [conv(2, 8, 12, 3, stride=2, padding=1), conv(2, 12, 12, 3, padding=1), conv(1, 48, 48, 3)], ids=str
)
def test_wide_convolutions(layer):
    torch.manual_seed(0)
    x = torch.randn(20, layer.in_channels, *(16, 16)[: layer.weight.dim() - 2])
    assert set(measure(Encoder(layer, nn.Tanh()), x).values()) == {"rule"}


SLOWER = {
    "recurrent": (TOKENS, lambda: [Apply(lambda x, a: a(x)[0], nn.LSTM(6, 3, batch_first=True)), nn.Linear(3, 2)]),
    "parametrized": (VECTORS, lambda: [weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2)]),
    "used in a way that no rule knows": (
        VECTORS,
        lambda: [Apply(lambda x, a: a(x) + x @ a.weight.t().sin(), nn.Linear(6, 4)), nn.Linear(4, 2)],
    ),
    "a part of a parameter": (VECTORS, lambda: [Apply(lambda x, p: x * p[:6], torch.rand(8)), nn.Linear(6, 2)]),
    "overlapping parts": (
        VECTORS,
            lambda: [Apply(lambda x, p: F.linear(x, p) + F.linear(x, p.split([2, 2])[0]).sum(1, keepdim=True),
                torch.rand(4, 6)),
                 nn.Linear(4, 2)],
    ),
    "a weight that is made": (
        VECTORS,
        lambda: [Apply(lambda x, a: F.linear(x, a.weight * 2, a.bias), nn.Linear(6, 4)), nn.Linear(4, 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOWER)
def test_what_no_rule_covers_is_right_too_and_coverage_says_so(name):
    torch.manual_seed(0)
    shape, layers = SLOWER[name]
    model = Encoder(*layers())
    coverage = measure(model, torch.randn(shape))
    last = len(model.encoders["m"]) - 1
    assert {way for key, way in coverage.items() if key.startswith(f"{last}.")} == {"rule"}
    assert {way for key, way in coverage.items() if key.startswith("0.")} & {"vmap", "one by one"}


class TestSamplesThatInfluenceEachOther:
    def test_centred_on_the_batch(self):
        model = Encoder(nn.Linear(6, 4), Apply(lambda x: x - x.mean(0)), nn.Linear(4, 2))
        assert "rule" not in measure(model, torch.randn(7, 6)).values()

    def test_batch_norm_without_statistics(self):
        model = Encoder(nn.Linear(6, 4), nn.BatchNorm2d(4, track_running_stats=False))
        model.encoders["m"].insert(1, nn.Unflatten(1, (4, 1, 1)))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            measure(model, torch.randn(7, 6))

    def test_a_branch_for_the_whole_batch(self):
        # the first samples go one way by themselves, and so does every batch of them
        model = Encoder(nn.Linear(6, 4), Apply(lambda x: x * 2 if x.abs().max() > 1.5 else x))
        x = torch.randn(7, 6)
        x[:4] *= 0.01
        assert set(measure(model, x).values()) == {"one by one"}

    def test_a_look_that_does_not_matter(self):
        mask = torch.ones(6, dtype=torch.bool)
        model = Encoder(nn.Linear(6, 4), Apply(lambda x: x * 2 if bool(mask.all()) else x))
        assert set(measure(model, torch.randn(7, 6)).values()) == {"rule"}

    def test_random_numbers(self):
        model = Encoder(nn.Linear(6, 4), Apply(lambda x: F.dropout(x, 0.5, training=True)))
        fisher = FisherDiagonal(model.encoders)
        with pytest.warns(UserWarning, match="differ from autograd's"):
            fisher.estimate([(torch.randn(7, 6), torch.randn(7, 1))], model, near)
        assert set(fisher.coverage["m"].values()) == {"one by one"}


ELEMENTWISE = {
    "module": (nn.MSELoss(), True),
    "sum of elements": (nn.L1Loss(reduction="sum"), True),
    "by name": (lambda p, t: F.huber_loss(input=p, target=t, delta=0.3), True),
    "options": (lambda p, t: F.smooth_l1_loss(p, t, beta=0.3), True),
    "turned round": (lambda p, t: mse_loss(t, p), False),
    "old options": (lambda p, t: mse_loss(p, t, size_average=True), False),
    "of a part": (lambda p, t: mse_loss(p[:, :1], t[:, :1]), False),
    "scaled": (lambda p, t: 3 * mse_loss(p, t), False),
    "after another": (lambda p, t: [F.l1_loss(p, t), mse_loss(p, t)][1], False),
    "look at the loss": (lambda p, t: (lambda loss: loss if loss.item() < 1.5 else loss**2)(mse_loss(p, t)), False),
    "look at the prediction": (lambda p, t: mse_loss(p, t) * (2 if p.max() > 0.5 else 1), False),
    "look at the number": (lambda p, t: mse_loss(p, t) if len(p) > 1 else 2 * mse_loss(p, t), False),
}  # fmt: skip
"""Criteria, and whether they are known to be means over elements."""


class TestCriteria:
    @pytest.mark.parametrize(
        "criterion",
        [
            lambda p, t: near(p, t) * 3,
            lambda p, t: ((p - t) ** 2).sum(),
            lambda p, t: ((p - t)[t.expand_as(p) > 0] ** 2).sum() / (t > 0).sum().clamp(min=1),
            lambda p, t: ((p - t) ** 2).mean().sqrt(),
            lambda p, t: ((p - t).abs() * (t > 0)).sum() / (t > 0).sum().clamp(min=1),
        ],
        ids=["scaled", "sum", "over the valid", "root of a mean", "weighted mean"],
    )
    def test_of_one_sample_at_a_time_whatever_it_makes_of_a_batch(self, criterion):
        model = Encoder(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
        assert set(measure(model, torch.randn(7, 6), criterion=criterion).values()) == {"rule"}

    @pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
    @pytest.mark.parametrize("name", ELEMENTWISE)
    def test_whose_losses_of_samples_are_read_off_the_elements(self, name):
        torch.manual_seed(0)
        criterion, known = ELEMENTWISE[name]
        prediction, target = torch.randn(2, 7, 2)
        assert (losses_by_element(criterion, prediction, target) is not None) == known
        model = Encoder(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
        loader = [(torch.randn(7, 6), target), (torch.randn(7, 6), 3 * target)]
        fisher = FisherDiagonal(model.encoders)
        found = fisher.estimate(loader, model, criterion)
        assert_same(found, fisher_one_sample_at_a_time(model, loader, criterion), rtol=2e-4, atol=1e-9)
        assert set(fisher.coverage["m"].values()) == {"rule"}

    def test_of_elements_with_targets_of_another_shape(self):
        prediction, target = torch.randn(7, 2), torch.randn(7, 1)
        assert losses_by_element(F.l1_loss, prediction, target) is None
        assert losses_by_element(F.l1_loss, {"p": prediction}, target) is None
        assert losses_by_element(F.l1_loss, torch.tensor(1.0), torch.tensor(1.0)) is None

    def test_that_uses_a_parameter(self):
        model = Encoder(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
        weight = model.encoders["m"][0].weight
        coverage = measure(model, torch.randn(7, 6), criterion=lambda p, t: near(p, t) + weight.square().sum())
        assert coverage == {"0.weight": "one by one", "0.bias": "one by one", "2.weight": "rule", "2.bias": "rule"}

    def test_a_loss_without_samples_goes_the_slow_way(self):
        model = Encoder(nn.Linear(6, 4))
        loader = [(torch.randn(7, 6), torch.randn(7, 1))]
        fisher = FisherDiagonal(model.encoders)
        found = fisher.estimate(
            loader, model, lambda loss, _: loss, step=lambda m, batch: (near(m(batch[0]), batch[1]), None)
        )
        assert_same(found, fisher_one_sample_at_a_time(model, loader, near))
        assert set(fisher.coverage["m"].values()) == {"vmap"}


class TestForwardPassesThatChange:
    def test_lengths(self):
        model = Encoder(nn.Linear(6, 4), nn.LayerNorm(4), Apply(lambda x: x.mean(1)))
        sizes = [(7, 5), (6, 4), (7, 5), (2, 3), (1, 5)]
        coverage = measure(model, *(torch.randn(*size, 6) for size in sizes))
        assert set(coverage.values()) == {"vmap"}, "two samples of a new length are too few to prove anything"
        assert set(measure(model, *(torch.randn(*size, 6) for size in sizes[:3])).values()) == {"rule"}

    def test_other_calls_in_the_next_batch(self):
        calls = []

        def sometimes(x, a, b):
            calls.append(1)
            return a(x) if len(calls) < 40 else b(a(x))

        model = Encoder(Apply(sometimes, nn.Linear(6, 6), nn.Linear(6, 6)))
        fisher = FisherDiagonal(model.encoders)
        loader = [(torch.randn(7, 6), torch.randn(7, 1)) for _ in range(60)]
        found = fisher.estimate(loader, model, near)
        assert found["m"]["0.modules_.1.weight"].sum() > 0

    def test_rows_chosen_by_the_data(self):
        model = Encoder(nn.Linear(6, 4), Apply(lambda x, a: x.sum() + 0 * a(x[x[:, 0] > 0]).sum() + x, nn.Linear(4, 2)))
        assert "rule" not in measure(model, torch.randn(7, 6)).values()


class TestOtherSettings:
    def test_unused_parameters_cost_nothing(self):
        model = Encoder(nn.Linear(6, 4), Apply(lambda x, a: x, nn.Linear(4, 4)))
        fisher = FisherDiagonal(model.encoders)
        with pytest.warns(UserWarning, match=r"No gradient reached some parameters.*1.modules_.0.weight"):
            found = fisher.estimate([(torch.randn(7, 6), torch.randn(7, 1))], model, near)
        assert found["m"]["1.modules_.0.weight"].sum() == 0
        assert set(fisher.coverage["m"].values()) == {"rule"}

    def test_checkpointed_activations(self):
        part = Apply(lambda x, a: torch.utils.checkpoint.checkpoint(a, x, use_reentrant=False), nn.Linear(6, 6))
        model = Encoder(nn.Linear(6, 6), part, nn.Linear(6, 2))
        measure(model, torch.randn(7, 6))

    def test_autocast(self):
        model = Encoder(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

        def step(model, batch):
            with torch.autocast("cpu", torch.bfloat16):
                return model(batch[0]), batch[1]

        loader = [(torch.randn(7, 6), torch.randn(7, 1))]
        fisher = FisherDiagonal(model.encoders)
        found = fisher.estimate(loader, model, near, step=step)
        assert_same(found, fisher_one_sample_at_a_time(model, loader, near), rtol=0.2, atol=1e-3)
        assert set(fisher.coverage["m"].values()) == {"rule"}
        assert {value.dtype for value in found["m"].values()} == {torch.float32}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_squared_in_single(self, dtype):
        model = Encoder(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
        loader = [(torch.randn(7, 6).to(dtype), torch.randn(7, 1).to(dtype))]
        fisher = FisherDiagonal(model.encoders)
        found = fisher.estimate(loader, model, lambda p, t: near(p, t) / 1000)
        assert set(fisher.coverage["m"].values()) == {"rule"}
        assert all(value.min() > 0 for value in found["m"].values())

    def test_compiled_parts(self):
        layer = torch.compile(nn.Linear(6, 4), backend="eager")
        model = Encoder(layer, nn.Tanh())
        loader = [(torch.randn(7, 6), torch.randn(7, 1))]
        fisher = FisherDiagonal(model.encoders)
        fisher.estimate(loader, model, near)
        assert set(fisher.coverage["m"].values()) == {"rule"}

    def test_an_input_changed_in_place_after_its_use(self):
        def change(x, a):
            hidden = x * 2
            out = a(hidden)
            hidden.add_(1)
            return out

        model = Encoder(nn.Linear(6, 6), Apply(change, nn.Linear(6, 4)))
        fisher = FisherDiagonal(model.encoders)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            fisher.estimate([(torch.randn(7, 6), torch.randn(7, 1))], model, near)

    def test_frozen_parts_stay_out(self):
        model = Encoder(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
        model.encoders["m"][0].weight.requires_grad_(False)
        fisher = FisherDiagonal(model.encoders)
        fisher.estimate([(torch.randn(7, 6), torch.randn(7, 1))], model, near)
        assert fisher.coverage == {"m": {"0.bias": "rule", "2.weight": "rule", "2.bias": "rule"}}

    def test_coverage_before_anything_was_measured(self):
        model = Encoder(nn.Linear(6, 4))
        with pytest.raises(RuntimeError, match="`coverage` is about per-sample gradients"):
            _ = FisherDiagonal(model.encoders, "corrected").coverage


def test_samples_that_influence_each_other_in_a_later_batch_only():
    """Scaled by the largest value of the batch, once that is beyond 10: of one sample alone it is its own."""

    def scale(x, a):
        return a(x / x.abs().max().clamp(min=10))

    model = Encoder(Apply(scale, nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 3))
    calm, wild = torch.rand(7, 6), 100 * torch.rand(7, 6)
    assert set(measure(model, calm, calm).values()) == {"rule"}
    assert set(measure(model, calm, wild, calm).values()) != {"rule"}
