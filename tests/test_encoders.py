import pytest
import torch
from torch import nn

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.encoders import check_encoders, in_words, parameters_by_modality, unwrap
from tests.models import Concat, build


def everything(model, encoders):
    return [
        lambda: ShapleyContribution(model, encoders),
        lambda: FisherDiagonal(encoders).estimate([], model, nn.functional.mse_loss),
        lambda: AWCRegularizer(model, encoders, nn.functional.mse_loss),
    ]


MODEL = build(Concat)
SHARED = nn.Linear(2, 2)
BAD = {
    "no mapping": (
        [MODEL.encoders["m0"]],
        TypeError,
        r"mapping from modality to module. Got list.*\{'rgb': model.rgb\}",
    ),
    "one module": (MODEL, TypeError, "Got Concat"),
    "empty": ({}, ValueError, r"at least one modality. Got `\{\}`. Pass a mapping such as \{'rgb': model.rgb\}"),
    "a name that is no str": ({0: MODEL.encoders["m0"]}, TypeError, "non-empty str. Got 0"),
    "an empty name": ({"": MODEL.encoders["m0"]}, TypeError, "non-empty str. Got ''"),
    "no module": ({"a": MODEL.head[0].weight}, TypeError, "encoder of `a` should be an nn.Module. Got Parameter"),
    "a copy": (
        {"a": nn.Linear(2, 4)},
        ValueError,
        "`a` should be a part of the model. Not found in Concat: weight, bias",
    ),
    "one encoder twice": (
        {"a": MODEL.encoders["m0"], "b": MODEL.encoders["m0"]},
        ValueError,
        r"`a` \(0.weight\) and `b` \(0.weight\)",
    ),
    "an encoder inside another": (
        {"a": MODEL.encoders, "b": MODEL.encoders["m1"]},
        ValueError,
        r"`a` \(m1.0.weight\) and `b` \(0.weight\)",
    ),
    "a shared layer": (
        {"a": nn.Sequential(SHARED, nn.ReLU()), "b": nn.Sequential(nn.ReLU(), SHARED)},
        ValueError,
        r"`a` \(0.weight\) and `b` \(1.weight\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("part", range(3))
def test_bad_encoders_are_refused_everywhere(case, part):
    encoders, error, words = BAD[case]
    with pytest.raises(error, match=words):
        everything(MODEL, encoders)[part]()


def test_the_same_parameterless_module_twice_is_refused():
    same = nn.Identity()
    with pytest.raises(ValueError, match="`a` .* and `b`"):
        check_encoders({"a": same, "b": same})


@pytest.mark.parametrize("model", [None, print, torch.zeros(2)])
def test_a_model_that_is_no_module_is_refused(model):
    with pytest.raises(TypeError, match="`model` should be an nn.Module"):
        ShapleyContribution(model, {"a": nn.Linear(1, 1)})


def test_an_error_names_every_modality_and_some_of_its_parameters():
    keys = [("rgb", f"{i}.weight") for i in range(9)] + [("wifi", "0.bias")]
    assert in_words(keys) == "`rgb` (0.weight, 1.weight, 2.weight and 6 more), `wifi` (0.bias)"


def test_wrappers_are_seen_through():
    inner = nn.Sequential(nn.Linear(2, 2))
    compiled = torch.compile(nn.DataParallel(inner))
    assert unwrap(compiled) is inner
    assert parameters_by_modality(check_encoders({"a": compiled}))["a"].keys() == {"0.weight", "0.bias"}


def test_names_do_not_know_of_compiled_layers():
    encoder = nn.Sequential(torch.compile(nn.Linear(2, 2)), nn.ReLU())
    assert parameters_by_modality({"a": encoder})["a"].keys() == {"0.weight", "0.bias"}


def test_an_attribute_called_module_is_no_wrapper():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(1, 1)

    model = Own()
    assert unwrap(model) is model
