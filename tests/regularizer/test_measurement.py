"""What is measured at the start of an epoch, and on how much of the loader."""

import pytest
import torch
from torch.nn.functional import mse_loss

from awc_balance import FisherDiagonal, ShapleyContribution
from awc_balance.fisher import trace
from tests.models import Concat, Convolutional, build, loader_of
from tests.regularizer.loop import awc_of, parameters, train


class TestCheapMeasurement:
    """A few batches of the loader, or what is known already, in place of two passes over the data."""

    def test_a_few_batches_are_read_once_and_used_for_both(self):
        model, reads = build(Concat), []
        batches = loader_of(model, 5)

        class Loader:
            def __iter__(self):
                for batch in batches:
                    reads.append(batch)
                    yield batch

        awc = awc_of(model, batches=2, fisher="corrected")
        awc.start_epoch(Loader())
        assert len(reads) == 2
        assert awc.contributions == dict(ShapleyContribution(model, model.encoders).evaluate(batches[:2]))
        expected = FisherDiagonal(model.encoders, "corrected").estimate(batches[:2], model, mse_loss)
        assert awc.history[0]["fisher"] == trace(expected)

    def test_more_batches_than_there_are_is_all(self):
        model = build(Concat)
        few, every = awc_of(model, batches=100), awc_of(model)
        for awc in (few, every):
            awc.start_epoch(loader_of(model))
        assert few.history == every.history

    def test_measuring_on_a_few_does_not_change_what_the_loader_yields(self):
        ends = []
        for use in (False, True):
            model = build(Convolutional).train()
            data = [({m: x[i] for m, x in inputs.items()}, y[i]) for inputs, y in loader_of(model) for i in range(8)]
            generator = torch.Generator().manual_seed(0)
            loader = torch.utils.data.DataLoader(data, 6, shuffle=True, generator=generator)
            awc = awc_of(model, alpha_superior=0.0, alpha_inferior=0.0, batches=2) if use else None
            ends.append(parameters(train(model, loader, awc)))
        assert torch.equal(*ends)

    def test_an_empty_loader_is_refused(self):
        with pytest.raises(ValueError, match="at least one batch"):
            awc_of(build(Concat), batches=2).start_epoch([])

    def test_fisher_diagonals_of_the_last_steps(self):
        model = build(Concat)
        loader, fisher = loader_of(model), FisherDiagonal(model.encoders, "corrected")
        awc, optimizer = awc_of(model, scale="root_mean"), torch.optim.SGD(model.parameters(), lr=0.1)
        awc.start_epoch(loader)
        for inputs, target in loader:
            mse_loss(model(inputs), target).backward()
            fisher.update(len(target))
            awc.add_gradient_()
            optimizer.step()
            optimizer.zero_grad()
        awc.start_epoch(None, contributions=awc.contributions, fisher=fisher.compute())
        assert awc.history[1]["fisher"] == fisher.trace()
        train(model, loader, epochs=1)
        assert awc().item() > 0

    BAD = {
        "no mapping": (lambda fisher: 3.0, TypeError, "mapping by modality. Got float"),
        "no mapping inside": (lambda fisher: {**fisher, "m0": 3.0}, TypeError, r"fisher\['m0'\].*Got float"),
        "a modality too few": (lambda fisher: {"m0": fisher["m0"]}, ValueError, "exactly the modalities m0, m1"),
        "a parameter too few": (lambda fisher: {**fisher, "m0": {}}, ValueError, "0.weight of `m0`: missing"),
        "a parameter too many": (
            lambda fisher: {**fisher, "m0": {**fisher["m0"], "x": torch.ones(1)}},
            ValueError,
            "x of `m0`: unexpected",
        ),
        "no tensor": (
            lambda fisher: {**fisher, "m0": dict.fromkeys(fisher["m0"], 1.0)},
            ValueError,
            "float in place of a tensor",
        ),
        "another shape": (
            lambda fisher: {**fisher, "m0": {n: f[:1] for n, f in fisher["m0"].items()}},
            ValueError,
            r"shape \(1,\) in place of \(4,\)",
        ),
        "integers": (
            lambda fisher: {**fisher, "m0": {n: f.long() for n, f in fisher["m0"].items()}},
            ValueError,
            "int64 in place of a floating-point dtype",
        ),
        "not finite": (
            lambda fisher: {**fisher, "m0": {n: f / 0 for n, f in fisher["m0"].items()}},
            ValueError,
            "not finite",
        ),
        "negative": (
            lambda fisher: {**fisher, "m0": {n: -f - 1 for n, f in fisher["m0"].items()}},
            ValueError,
            "negative",
        ),
    }

    @pytest.mark.parametrize("case", BAD)
    def test_bad_fisher_diagonals_are_refused_and_everything_stays(self, case):
        change, error, words = self.BAD[case]
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        good = FisherDiagonal(model.encoders).estimate(loader_of(model), model, mse_loss)
        with pytest.raises(error, match=words):
            awc.start_epoch(loader_of(model), fisher=change(good))
        assert awc.epoch == 1
