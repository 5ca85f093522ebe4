"""Where one process cannot measure, none goes on with numbers of its own, and none waits for ever."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.processes import Processes
from tests.models import Concat, build, loader_of
from tests.processes import in_two_processes


class BadError(Exception):
    pass


class Broken(list):
    """Batches of which one can be read."""

    def __iter__(self):
        yield self[0]
        raise BadError("a damaged file")


def spoilt(loader):
    inputs, target = loader[-1]
    return [*loader[:-1], (inputs, target * float("nan"))]


MEASUREMENTS = {
    "contributions": lambda model, loader: ShapleyContribution(model, model.encoders).evaluate(loader),
    "regularizer": lambda model, loader: AWCRegularizer(model, model.encoders, mse_loss).start_epoch(loader),
    "a source of one's own": lambda model, loader: AWCRegularizer(
        model, model.encoders, mse_loss, contributions=lambda batches: {m: len(list(batches)) for m in model.encoders}
    ).start_epoch(loader),
    **{
        form: lambda model, loader, form=form: FisherDiagonal(model.encoders, form).estimate(loader, model, mse_loss)
        for form in ("per_sample", "per_batch", "corrected")
    },
}


def failing_in_one(rank):
    model = build(Concat)
    loader = loader_of(model)
    for name, measure in MEASUREMENTS.items():
        loaders = [("damaged", Broken(loader))] if name != "contributions" else []
        loaders += [("at least one batch", []), ("finite", spoilt(loader))]
        for words, bad in loaders if "source" not in name else loaders[:1]:
            error, expected = ((BadError, ValueError), words) if rank else (RuntimeError, f"process 1: .*{words}")
            with pytest.raises(error, match=expected):
                measure(model, bad if rank else list(loader))
    measure(model, loader)  # they are still in step


def compute_too_early(rank):
    model = build(Concat)
    contribution = ShapleyContribution(model, model.encoders)
    if rank == 0:
        contribution.update(loader_of(model)[0])
    with pytest.raises(RuntimeError, match="at least one batch"):
        contribution.compute()


def other_models(rank):
    model = build(Concat, seed=rank)
    loader = loader_of(model)
    for measure in MEASUREMENTS.values():
        with pytest.raises(ValueError, match="copies of one model"):
            measure(model, loader)
    frozen = build(Concat)
    frozen.encoders["m0"].requires_grad_(rank == 0)
    with pytest.raises(ValueError, match="copies of one model"):
        FisherDiagonal(frozen.encoders).estimate(loader, frozen, mse_loss)
    FisherDiagonal(model.encoders, process_group=None).estimate(loader, model, mse_loss)
    AWCRegularizer(model, model.encoders, mse_loss, process_group=None).start_epoch(loader[rank:])


def other_outputs(rank):
    models = [build(Concat, outputs=outputs) for outputs in (3, 2)]
    encoders = {m: nn.Identity() for m in ("a", "b")}
    for model in models:  # no parameters, so that nothing but the outputs tells them apart
        model.encoders, model.head = nn.ModuleDict(encoders), nn.Identity()
    inputs = {m: torch.randn(4, 1 + rank) for m in encoders}
    with pytest.raises(ValueError, match="the same shape in every process"):
        ShapleyContribution(models[0], encoders).evaluate([(inputs, torch.randn(4, 2 + 2 * rank))])


def groups(rank):
    own = [dist.new_group([0]), dist.new_group([1])]
    assert Processes(None, own[rank]).count == 1
    with pytest.raises(TypeError, match="`process_group` should be"):
        Processes(None, own[1 - rank])
    model = build(Concat, seed=rank)
    FisherDiagonal(model.encoders, process_group=own[rank]).estimate(loader_of(model), model, mse_loss)


def work(rank):
    for check in (failing_in_one, compute_too_early, other_models, other_outputs, groups):
        check(rank)


def test_what_fails_in_one_process_fails_in_all(tmp_path):
    in_two_processes(work, tmp_path)


@pytest.mark.parametrize("group", ["all", 3, [0, 1]])
def test_no_group(group):
    model = build(Concat)
    with pytest.raises(TypeError, match="`process_group` should be 'auto', None or a group"):
        FisherDiagonal(model.encoders, process_group=group)
    with pytest.raises(TypeError, match="`process_group` should be 'auto', None or a group"):
        AWCRegularizer(model, model.encoders, mse_loss, process_group=group)
