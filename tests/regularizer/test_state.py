"""A regularizer is saved, resumed, copied and moved."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from awc_balance import FisherDiagonal
from tests.models import Attention, Concat, build, loader_of
from tests.regularizer.loop import awc_of, live_elements, parameters, train


class TestState:
    @pytest.mark.parametrize("stop", [1, 4, 5, 6, 8])
    def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(self, stop):
        def run(stop):
            model = build(Attention)
            loader = loader_of(model)
            awc, optimizer = awc_of(model, window=2), torch.optim.Adam(model.parameters(), lr=1e-2)
            for number in range(9):
                if number == stop:
                    saved = io.BytesIO()
                    torch.save([x.state_dict() for x in (model, awc, optimizer)], saved)
                    saved.seek(0)
                    model = build(Attention, seed=1)
                    awc, optimizer = awc_of(model, window=2), torch.optim.Adam(model.parameters(), lr=1e-2)
                    for x, state in zip((model, awc, optimizer), torch.load(saved, weights_only=True), strict=True):
                        x.load_state_dict(state)
                if number % 3 == 0:
                    awc.start_epoch(loader)
                inputs, target = loader[number % 3]
                (mse_loss(model(inputs), target) + awc()).backward()
                optimizer.step()
                optimizer.zero_grad()
            return parameters(model), awc

        whole, awc = run(None)
        resumed, other = run(stop)
        assert torch.equal(whole, resumed)
        assert awc.history == other.history
        assert awc.epoch == other.epoch

    def test_a_state_kept_in_memory_does_not_change(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        state = awc.state_dict()
        copied = copy.deepcopy(state)
        train(model, loader_of(model), awc)
        assert state["_extra_state"] == copied["_extra_state"]
        assert all(torch.equal(v, copied[k]) for k, v in state.items() if k != "_extra_state")

    def test_a_state_of_another_model_is_refused_with_every_key(self):
        awc = awc_of(build(Concat, modalities=2))
        before = copy.deepcopy(awc.state_dict())
        other = awc_of(build(Concat, modalities=3, outputs=5)).state_dict()
        del other["anchor/m0/0/bias"]
        other["fisher/m1/0/weight"] = torch.zeros(7, 7)
        with pytest.raises(ValueError, match="same encoders") as error:
            awc.load_state_dict(other)
        for offence in (
            "anchor/m0/0/bias: missing",
            r"fisher/m1/0/weight: shape (7, 7) in place of (4, 3)",
            "anchor/m2/0/weight: unexpected",
            "fisher/m2/0/bias: unexpected",
        ):
            assert offence in str(error.value)
        after = awc.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items() if k != "_extra_state")

    def test_as_a_part_of_a_larger_module_it_is_saved_and_loaded(self):
        class Task(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = build(Concat)
                self.awc = awc_of(self.model)

        task, fresh = Task(), Task()
        task.awc.start_epoch(loader_of(task.model))
        fresh.load_state_dict(task.state_dict())
        assert fresh.awc.alphas == task.awc.alphas
        assert fresh.awc.active

    def test_copies_pull_their_own_model(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        twin = copy.deepcopy(awc)
        train(model, loader_of(model), epochs=1)
        assert awc().item() > 0
        assert twin().item() == 0

    def test_a_model_without_values_is_refused_and_the_anchors_stay(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        awc.start_epoch(loader_of(model))
        before, state = {k: v.clone() for k, v in awc.named_buffers()}, copy.deepcopy(model.state_dict())
        model.to("meta")
        for call in (awc, awc.add_gradient_, lambda: awc.start_epoch(loader_of(build(Concat)))):
            with pytest.raises(RuntimeError, match="meta device"):
                call()
        model.to_empty(device="cpu").load_state_dict(state)
        assert awc().item() == 0
        assert all(torch.equal(buffer, before[name]) for name, buffer in awc.named_buffers())

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
    def test_moving_the_model_moves_the_anchors(self):
        model = build(Concat)
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        awc.start_epoch(loader_of(model))
        model.cuda()
        assert awc().device.type == "cuda"
        assert all(buffer.is_cuda for buffer in awc.buffers())


class TestMemory:
    """Where anchors and Fisher diagonals are kept, and in what precision."""

    @staticmethod
    def ends(dtype=torch.float32, **options):
        model = build(Concat).to(dtype)
        loader = [({m: x.to(dtype) for m, x in inputs.items()}, y.to(dtype)) for inputs, y in loader_of(model)]
        awc = awc_of(model, **options)
        return parameters(train(model, loader, awc, closed_form=True)), awc

    @staticmethod
    def kept(awc, kind):
        return {name: buffer for name, buffer in awc.named_buffers() if name.startswith(kind)}

    def test_nothing_but_anchors_and_fisher_diagonals_stays_in_memory(self):
        model = build(Concat)
        own = FisherDiagonal(model.encoders, "corrected")
        before = live_elements()
        awc = awc_of(model, alphas={"m0": 1.0, "m1": 1.0})
        for _ in range(2):
            awc.start_epoch(loader_of(model))
            kept = sum(buffer.numel() for buffer in awc.buffers())
            gradients = sum(p.numel() for p in model.encoders.parameters())
            assert kept == 2 * gradients
            assert live_elements() - before <= kept + gradients
            awc.add_gradient_()
        awc = awc_of(model, fisher=own)
        awc.start_epoch(loader_of(model))
        assert own.compute()  # one of the user's own is left alone

    def test_fisher_diagonals_in_bfloat16_pull_almost_as_far(self):
        (exact, _), (coarse, awc), (plain, _) = self.ends(), self.ends(fisher_dtype=torch.bfloat16), self.ends(window=0)
        assert {buffer.dtype for buffer in self.kept(awc, "fisher").values()} == {torch.bfloat16}
        assert {buffer.dtype for buffer in self.kept(awc, "anchor").values()} == {torch.float32}
        assert 0 < (coarse - exact).norm() < 0.02 * (plain - exact).norm()

    @pytest.mark.parametrize("fisher_dtype", [None, torch.bfloat16])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_at_the_anchor_the_pull_is_0_whatever_the_precision(self, dtype, fisher_dtype):
        model = build(Attention).to(dtype)
        inputs, target = loader_of(model)[0]
        awc = awc_of(model, fisher_dtype=fisher_dtype)
        awc.start_epoch([({m: x.to(dtype) for m, x in inputs.items()}, target.to(dtype))])
        awc.add_gradient_()
        assert awc().item() == 0
        assert all(p.grad.count_nonzero() == 0 for p in model.encoders.parameters())

    def test_kept_on_another_device_it_trains_the_same(self):
        here, _ = self.ends()
        there, awc = self.ends(state_device="cpu")
        assert torch.equal(here, there)
        awc.to("meta")  # as a part of a larger module that is moved
        assert {buffer.device.type for buffer in awc.buffers()} == {"cpu"}

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU beside the CPU")
    def test_kept_on_the_cpu_for_a_model_on_a_gpu(self):
        ends = []
        for state_device in (None, "cpu"):
            model = build(Concat).cuda()
            awc = awc_of(model, state_device=state_device)
            loader = [({m: x.cuda() for m, x in inputs.items()}, y.cuda()) for inputs, y in loader_of(model)]
            ends.append(parameters(train(model, loader, awc, closed_form=state_device is None)))
        assert {buffer.device.type for buffer in awc.buffers()} == {"cpu"}
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_casting_a_larger_module_leaves_fisher_diagonals_alone(self, dtype):
        task = nn.Module()
        task.model = build(Concat)
        task.awc = awc_of(task.model, scale="mean")
        task.awc.start_epoch(loader_of(task.model))
        before = {name: buffer.clone() for name, buffer in self.kept(task.awc, "fisher").items()}
        task.to(dtype)
        after = self.kept(task.awc, "fisher")
        assert all(torch.equal(buffer, after[name]) for name, buffer in before.items())
        assert task.awc().item() == 0
        assert {buffer.dtype for buffer in self.kept(task.awc, "anchor").values()} == {dtype}
        with torch.no_grad():
            for parameter in task.model.encoders.parameters():
                parameter += 0.25
        assert task.awc() > 0

    def test_a_model_cast_in_the_middle_of_an_epoch_is_still_at_its_anchor(self):
        model = build(Concat)
        awc = awc_of(model)
        awc.start_epoch(loader_of(model))
        model.half()
        assert awc().item() == 0
        model.double()
        assert awc().item() == 0

    def test_a_resumed_run_keeps_them_as_they_were(self):
        _, awc = self.ends(fisher_dtype=torch.bfloat16)
        other = awc_of(build(Concat), fisher_dtype=torch.bfloat16)
        other.load_state_dict(awc.state_dict())
        for name, buffer in awc.named_buffers():
            assert torch.equal(buffer, other.get_buffer(name))
            assert buffer.dtype == other.get_buffer(name).dtype

    def test_overflow_is_refused_and_everything_stays(self):
        model = build(Concat).double()
        awc = awc_of(model, fisher_dtype=torch.float32)
        huge = {m: {n: torch.full_like(p, 1e300) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
        before = {name: buffer.clone() for name, buffer in awc.named_buffers()}
        with pytest.raises(ValueError, match="overflow torch.float32"):
            awc.start_epoch(None, contributions={"m0": 1, "m1": 2}, fisher=huge)
        assert all(torch.equal(buffer, before[name]) for name, buffer in awc.named_buffers())
        assert awc.epoch == 0
