import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance.balancers import GBlending, MMPareto, linear_heads
from awc_balance.balancers.rows import row_of
from tests.balancers.methods import optimizer_of, train
from tests.models import Concat, TwoPart, build, loader_of

SIZES = [1, 2, 5, 8]


class Series(TwoPart):
    """A recurrent layer and a convolution over time as encoders."""

    def __init__(self, layer):
        super().__init__()
        self.encoders = nn.ModuleDict({"recurrent": layer, "channels": nn.Conv1d(3, 4, 2)})
        self.head = nn.Linear(8, 2)

    def fuse(self, features):
        series, channels = features["recurrent"][0], features["channels"].mean(2)
        return self.head(torch.cat([series.mean(1 if len(series) == len(channels) else 0), channels], dim=1))

    def batch(self, samples, generator=None):
        inputs = {
            "recurrent": torch.randn(samples, 7, 3, generator=generator),
            "channels": torch.randn(samples, 3, 7, generator=generator),
        }
        return inputs, torch.randn(samples, 2, generator=generator)


def layers():
    for kind in (nn.LSTM, nn.GRU):
        yield kind(3, 4, batch_first=True)
        yield nn.Sequential(nn.Tanh(), kind(3, 4, batch_first=True))


@pytest.mark.parametrize("method", [GBlending, MMPareto])
@pytest.mark.parametrize("layer", list(layers()), ids=lambda layer: type(layer).__name__)
def test_short_batches_of_recurrent_layers_train(method, layer):
    model = Series(layer)
    loader = [loader_of(model, 1, samples=samples)[0] for samples in SIZES]
    options = {"held_out": loader, "super_epoch": 1} if method is GBlending else {}
    for made_with in loader:
        heads = linear_heads(model, model.encoders, made_with)
        assert heads["recurrent"].linear.in_features == 4
        balancer = method(model, model.encoders, mse_loss, heads, **options)
        train(model, loader, mse_loss, balancer, optimizer_of(model, balancer), epochs=2)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("samples", SIZES)
def test_rows_of_recurrent_layers_are_the_mean_of_their_outputs(samples, layers, batch_first):
    layer = nn.LSTM(3, 4, layers, batch_first=batch_first, bidirectional=True)
    outputs = layer(torch.randn((samples, 5, 3) if batch_first else (5, samples, 3)))
    torch.testing.assert_close(row_of(layer, outputs, samples), outputs[0].mean(1 if batch_first else 0))


def test_pool_makes_the_rows_of_the_modalities_it_names():
    model = Series(nn.GRU(3, 5, batch_first=True))
    model.head = nn.Linear(9, 2)
    loader = loader_of(model)
    pool = {"channels": lambda feature: feature.mean(2)}
    heads = linear_heads(model, model.encoders, loader[0], pool=pool)
    assert [head.linear.in_features for head in heads.values()] == [5, 4]
    for method, options in ((MMPareto, {}), (GBlending, {"held_out": loader})):
        balancer = method(model, model.encoders, mse_loss, heads, pool=pool, **options)
        train(model, loader, mse_loss, balancer, optimizer_of(model, balancer), epochs=1)
    with pytest.raises(ValueError, match="Pass pool="):  # forgotten in one of the two places
        train(model, loader, mse_loss, MMPareto(model, model.encoders, mse_loss, heads), None)


@pytest.mark.parametrize(
    ("pool", "error", "match"),
    [
        ({"m7": torch.flatten}, ValueError, "m7"),
        ({"m0": 3}, TypeError, "mapping from modality to function"),
        (torch.flatten, TypeError, "mapping from modality to function"),
        ({"m0": lambda feature: feature.mean()}, ValueError, r"row \[8, width\]"),
        ({"m0": lambda feature: feature[:3]}, ValueError, r"\(3, 4\) for `m0`"),
    ],
)
def test_a_bad_pool_is_refused(pool, error, match):
    model = build(Concat)
    with pytest.raises(error, match=match):
        linear_heads(model, model.encoders, loader_of(model)[0], pool=pool)
