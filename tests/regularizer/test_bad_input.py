"""Bad options, bad data, and what was changed behind its back."""

import copy
import pickle

import pytest
import torch
from torch import nn

from awc_balance import AWCRegularizer, FisherDiagonal
from tests.models import Concat, build, loader_of
from tests.regularizer.loop import awc_of, train


class TestChangedBehindItsBack:
    """What is pulled is worked out once and kept, yet always that of the present model."""

    @staticmethod
    def moved(**options):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 2.0}, **options)
        awc.start_epoch(loader_of(model))
        with torch.no_grad():
            for p in model.encoders.parameters():
                p += 0.1
        return model, awc, awc().item()

    def test_alphas(self):
        _, awc, value = self.moved()
        awc.alphas = {m: 2 * alpha for m, alpha in awc.alphas.items()}
        assert awc().item() == pytest.approx(2 * value)

    def test_a_parameter_that_was_replaced(self):
        model, awc, value = self.moved()
        layer = model.encoders["m0"][0]
        layer.weight = nn.Parameter(awc.get_buffer("anchor/m0/0/weight").clone())
        assert 0 < awc().item() < value
        awc.add_gradient_()
        assert layer.weight.grad.count_nonzero() == 0

    def test_a_layer_that_was_replaced(self):
        model, awc, value = self.moved()
        layer = copy.deepcopy(model.encoders["m0"][0])
        model.encoders["m0"][0] = layer
        assert awc().item() == value
        awc.add_gradient_()
        assert layer.weight.grad is not None

    def test_data_of_another_shape(self):
        model, awc, _ = self.moved()
        model.encoders["m0"][0].weight.data = torch.zeros(1, 3)
        with pytest.raises(RuntimeError, match=r"0.weight of `m0` is new or has another shape"):
            awc()

    def test_a_state_that_is_loaded_with_assign(self):
        _, awc, value = self.moved()
        state = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in awc.state_dict().items()}
        state["fisher/m0/0/weight"] *= 0
        awc.load_state_dict(state, assign=True)
        assert 0 < awc().item() < value

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
    def test_a_copy_of_both(self, copied):
        model, awc, value = self.moved()
        twin, other = copied((model, awc))
        with torch.no_grad():
            for p in twin.encoders.parameters():
                p.zero_()
        assert awc().item() == value != other().item()
        other.add_gradient_()
        assert all(p.grad is None for p in model.parameters())
        assert all(p.grad is not None for p in twin.encoders.parameters())

    def test_the_next_epoch(self):
        model, awc, value = self.moved()
        awc.start_epoch(loader_of(model))
        assert value > awc().item() == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"window": -1}, ValueError, "`window`.*at least 0. Got -1"),
            ({"window": 2.5}, ValueError, "Got 2.5"),
            ({"window": True}, ValueError, "Got True"),
            ({"alpha_superior": -1.0}, ValueError, "`alpha_superior`.*at least 0. Got -1"),
            ({"alpha_inferior": float("nan")}, ValueError, "`alpha_inferior`.*Got nan"),
            ({"alphas": {"m0": 1.0}}, ValueError, "exactly the modalities m0, m1. Got m0"),
            ({"alphas": {"m0": 1.0, "m1": -2.0}}, ValueError, r"alphas\['m1'\].*Got -2"),
            ({"alphas": 3.0}, TypeError, "mapping by modality. Got float"),
            ({"contributions": "r2"}, ValueError, "`contributions` should be one of 'pearson'.*Got 'r2'"),
            ({"contributions": [1.0, 2.0]}, TypeError, "`contributions` should be callable. Got list"),
            ({"grouping": "kmeans"}, TypeError, "`grouping` should be callable"),
            ({"fisher": "exact"}, ValueError, "`fisher` should be one of.*'corrected'. Got 'exact'"),
            ({"scale": "free"}, ValueError, "'root_mean'. Got 'free'"),
            ({"batches": 0}, ValueError, "`batches`.*at least 1. Got 0"),
            ({"fisher_dtype": "bfloat16"}, TypeError, "`fisher_dtype` should be a torch.dtype. Got str"),
            ({"fisher_dtype": torch.float16}, ValueError, "one of None, torch.bfloat16.*Got torch.float16"),
            ({"state_device": 0}, TypeError, "`state_device` should be a device. Got int"),
            ({"state_device": "attic"}, ValueError, "`state_device` should be a device. Got 'attic'"),
        ],
    )
    def test_options(self, options, error, words):
        with pytest.raises(error, match=words):
            awc_of(build(Concat), **options)

    def test_a_mapping_of_contributions_that_leaves_somebody_out(self):
        model = build(Concat)
        awc = awc_of(model, contributions={"m0": 1.0})
        with pytest.raises(ValueError, match="`contributions` should name exactly the modalities m0, m1. Got m0"):
            awc.start_epoch(loader_of(model))
        assert awc.epoch == 0

    def test_a_progress_bar_that_cannot_be_called(self):
        model = build(Concat)
        awc = awc_of(model)
        with pytest.raises(TypeError, match="`progress` should be callable. Got bool. Pass a wrapper"):
            awc.start_epoch(loader_of(model), progress=True)
        assert awc.epoch == 0

    def test_a_criterion_that_cannot_be_called(self):
        model = build(Concat)
        with pytest.raises(TypeError, match="`criterion` should be callable. Got NoneType"):
            AWCRegularizer(model, model.encoders, None)

    def test_a_fisher_diagonal_of_other_encoders(self):
        with pytest.raises(ValueError, match="same encoders"):
            awc_of(build(Concat), fisher=FisherDiagonal(build(Concat).encoders))

    def test_calls_in_the_wrong_order(self):
        awc = awc_of(build(Concat))
        with pytest.raises(RuntimeError, match=r"Call start_epoch\(loader\)"):
            awc()
        with pytest.raises(RuntimeError, match=r"Call start_epoch\(loader\)"):
            awc.add_gradient_()

    def test_parameters_exchanged_behind_its_back(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        model.encoders["m0"].append(nn.Linear(4, 4))
        with pytest.raises(RuntimeError, match=r"2.weight of `m0` is new"):
            awc()

    FAILURES = {
        "an empty loader": ([], {}, ValueError, "at least one batch"),
        "a non-finite loss": ("poisoned", {}, ValueError, "finite"),
        "a loader that raises": ("breaking", {}, OSError, "disk"),
        "contributions of other modalities": ("good", {"contributions": {"m0": 1.0}}, ValueError, "Got m0"),
        "a contribution that is not finite": (
            "good",
            {"contributions": {"m0": 1.0, "m1": float("nan")}},
            ValueError,
            "Got nan for `m1`",
        ),
    }

    @pytest.mark.parametrize("case", FAILURES)
    def test_an_epoch_that_cannot_start_leaves_everything(self, case):
        kind, options, error, words = self.FAILURES[case]
        model = build(Concat)
        good = loader_of(model)

        class Breaking:
            def __iter__(self):
                yield good[0]
                raise OSError("the disk is gone")

        inputs, target = good[0]
        loader = {"good": good, "poisoned": [({**inputs, "m0": inputs["m0"] / 0}, target)], "breaking": Breaking()}.get(
            kind if isinstance(kind, str) else "", kind
        )
        awc = awc_of(model)
        awc.start_epoch(good)
        train(model, good, epochs=1)
        before, value = copy.deepcopy(awc.state_dict()), awc().item()
        with pytest.raises(error, match=words):
            awc.start_epoch(loader, **options)
        assert awc.state_dict()["_extra_state"] == before["_extra_state"]
        assert awc().item() == value
        awc.start_epoch(good)
        assert awc.epoch == 2
