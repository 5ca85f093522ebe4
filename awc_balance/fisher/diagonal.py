"""Fisher diagonals of encoders: `FisherDiagonal`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from awc_balance.batches import STEP_REMEDY, Progress, Step, default_step, iterate, split_samples
from awc_balance.checks import check_callable, check_choice, check_count
from awc_balance.encoders import Encoders, check_encoders, check_model, in_words, parameters_by_modality
from awc_balance.fisher.estimates import CorrectedBatches, Estimate, MeanSquare
from awc_balance.fisher.gradients import (
    Gradients,
    Key,
    Measured,
    as_dense,
    collect,
    gradients,
    non_finite,
    refuse_non_finite,
)
from awc_balance.fisher.objective import Criterion, Objective
from awc_balance.fisher.per_sample import PerSample
from awc_balance.fisher.together import by_global_batch, over_all
from awc_balance.fisher.vectorised import Way
from awc_balance.nested import copied
from awc_balance.precision import squared
from awc_balance.preserve import Mode, differentiable_rnns, measuring
from awc_balance.processes import Processes, ProcessGroup
from awc_balance.replicas import share_model
from awc_balance.sharded import check_sharding, has_shards, local, refuse_sharded, reshard, spread_like, summed_like

Form: TypeAlias = Literal["per_sample", "per_batch", "corrected"]

Diagonal: TypeAlias = dict[str, dict[str, Tensor]]
"""By modality and parameter name, shaped like the parameters, float32 or better."""


class FisherDiagonal:
    """The diagonal of the empirical Fisher information of every encoder: the mean squared gradient of the loss.

    F_ii = 1/|D| sum over x in D of (dL_x / dtheta_i)^2 (AWC, arXiv 2501.05264, Eq. 8), with L_x the loss of one
    sample. Three forms:

    - "per_sample": the equation as written. Exact, with the model in evaluation mode. For linear, convolution, norm,
      embedding and attention layers it costs little more than a forward and backward pass; `coverage` tells what was
      slower.
    - "per_batch": the mean over batches of the squared gradient of the *batch mean*, as much public code has it.
      Smaller by up to the batch size, and it exaggerates modalities whose samples agree. Beware: an alpha that was
      tuned for one form is void for the other.
    - "corrected": an estimate of "per_sample" from the gradients of whole batches and their spread. Any layer, at
      the price of a backward pass per batch.

    F has the squared unit of the loss: from metres to millimetres it grows by a million.

    Args:
        encoders: One module per modality.
        form: See above.
        samples: How many samples `estimate` reads at most, over all processes; whole batches for the two batch forms.
            None: all.
        mode: "eval" measures in evaluation mode; "current" leaves dropout and batch norm as they are set, for the
            batch forms only, since one sample has no batch statistics.
        chunk_size: Samples to vectorise over at once in "per_sample", where `coverage` says "vmap"; None chooses by
            memory.
        process_group: Which processes `estimate` together, each from its own batches: "auto", all of them, or those
            of a model in `DistributedDataParallel`, wherever `torch.distributed` is initialised; None, each for
            itself; or a group. The batch forms take one batch of each for a global batch. `update` reads what the
            exchange of gradients left.

    Raises:
        TypeError: If `encoders` is not a mapping of modules.
        ValueError: If encoders share parameters, or an option is not one of those above.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> fisher = FisherDiagonal({"table": model[0]})
        >>> batch = (torch.randn(8, 3), torch.randn(8, 1))
        >>> diagonal = fisher.estimate([batch], model, nn.functional.mse_loss)
        >>> diagonal["table"]["weight"].shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        encoders: Encoders,
        form: Form = "per_sample",
        *,
        samples: int | None = None,
        mode: Mode = "eval",
        chunk_size: int | None = None,
        process_group: ProcessGroup = "auto",
    ) -> None:
        """See the class."""
        self.encoders = check_encoders(encoders)
        check_choice("form", form, get_args(Form))
        check_choice("mode", mode, get_args(Mode))
        if form == "per_sample" and mode == "current":
            raise ValueError(
                "mode='current' needs the gradients of whole batches. Got form='per_sample'. "
                "Use form='corrected', or mode='eval'."
            )
        for name, value in {"samples": samples, "chunk_size": chunk_size}.items():
            if value is not None:
                check_count(name, value, 1)
        self.form = form
        self.samples = samples
        self.mode = mode
        self.chunk_size = chunk_size
        self.process_group = Processes(None, process_group).group
        self.reset()

    def reset(self) -> None:
        """Forget everything measured."""
        self._estimate = self._empty()
        self._kinds: dict[Key, tuple[torch.Size, torch.device]] = {}
        self._reached: set[Key] = set()
        self._ways: Mapping[Key, Way] = {}

    def update(self, batch_size: int | None = None) -> None:
        """Take in the `.grad` of the encoders as `loss.backward()` left it, for the two batch forms.

        Call it before gradients are clipped, and after they are unscaled if they were scaled. The parameters move
        from step to step, so this estimates F along the way rather than at one point.

        Args:
            batch_size: Samples behind this gradient, over all accumulated batches and devices. "corrected" needs
                it.

        Raises:
            RuntimeError: If no encoder has a gradient, the form is "per_sample", or parameters were added, frozen,
                moved or given another shape since the first update.
            ValueError: If a gradient or its square is not finite, or `batch_size` is missing. What was measured
                before stays.
        """
        if self.form == "per_sample":
            raise RuntimeError(
                "`update` knows the gradient of the batch only. Got form='per_sample'. "
                "Use form='corrected', or estimate(loader, ...)."
            )
        if batch_size is None and self.form == "corrected":
            raise ValueError("form='corrected' needs the number of samples. Got None. Call update(batch_size=...).")
        if batch_size is not None:
            check_count("batch_size", batch_size, 1)
        parameters = self._trainable()
        kinds = _kinds(parameters)
        _refuse_changed(self._kinds, kinds)
        values, reached = collect(parameters, (parameter.grad for parameter in parameters.values()))
        if not reached:
            raise RuntimeError(
                "`update` reads the gradients of the encoders. Got none. Call it after loss.backward() and before "
                "optimizer.zero_grad()."
            )
        measured = Measured(values, batch_size or 1, None, reached)
        refuse_non_finite(measured, "this step")
        _check_no_overflow({key: squared(value) for key, value in values.items()})
        self._kinds = kinds
        self._add(self._estimate, measured)
        self._reached |= reached

    def compute(self) -> Diagonal:
        """The Fisher diagonals by modality and parameter name; zeros for frozen parameters.

        Raises:
            RuntimeError: If too little was measured, or no gradient ever reached an encoder.
        """
        return self._compute(self._estimate, self._reached)

    def trace(self) -> dict[str, float]:
        """The sum of each modality's Fisher diagonal."""
        return trace(self.compute())

    @property
    def coverage(self) -> dict[str, dict[str, Way]]:
        """How the last `estimate` took the per-sample gradients of each trained parameter, by modality and name.

        "rule": from the inputs and output gradients of layers, at about the price of a backward pass. "vmap":
        vectorised by `torch.func`. "one by one": a backward pass per sample, which is slow. The values are right
        either way: a rule is used only where it is proven. The slowest is told where batches differed. Whether samples
        influence each other, as they do where a model scales by the largest value of its batch, is seen from the
        first samples, and in every later batch from the operations or else from one sample.

        Raises:
            RuntimeError: If nothing was estimated with form="per_sample".
        """
        if not self._ways:
            raise RuntimeError(
                f"`coverage` is about per-sample gradients. Got none, with form={self.form!r}. "
                "Call estimate(loader, ...) with form='per_sample' first."
            )
        return {
            modality: {name: self._ways[modality, name] for name in named if (modality, name) in self._ways}
            for modality, named in parameters_by_modality(self.encoders).items()
        }

    def estimate(
        self,
        loader: Iterable[Any],
        model: nn.Module,
        criterion: Criterion,
        *,
        step: Step | None = None,
        progress: Progress | None = None,
    ) -> Diagonal:
        """Measure the Fisher diagonals at the present parameters, in one pass over a loader.

        Nothing of the model's is changed: `.grad`, batch-norm statistics, training flags and random state are as
        before.

        Args:
            loader: The batches.
            model: The model that the encoders are part of.
            criterion: `criterion(prediction, target)`, the mean loss over the samples of a batch.
            step: `step(model, batch) -> (prediction, target)`; see `ShapleyContribution`.
            progress: A wrapper that shows progress, such as `tqdm.tqdm`.

        Returns:
            What `compute` gives from now on.

        Raises:
            RuntimeError: If no gradient reaches an encoder, or there are too few batches.
            ValueError: If all encoders are frozen, the loader is empty, or a loss or gradient is not finite. What
                was measured before stays then.
        """
        processes = Processes(model, self.process_group)
        model = check_model(model)
        check_encoders(self.encoders, model)
        check_callable("criterion", criterion, "Pass the loss function of your training.")
        step = default_step if step is None else check_callable("step", step, STEP_REMEDY)
        if self.form == "per_sample":
            refuse_sharded(model, "Per-sample gradients", "Use form='corrected'.")
        reshard(model)
        check_sharding(model, self._trainable().values(), processes.count)
        measure, ways = self._measure(Objective(model, criterion, step))
        estimate, reached, seen = self._empty(), set[Key](), 0
        together = over_all if self.form == "per_sample" else by_global_batch
        with measuring(model, criterion, step, loader=loader, mode=self.mode), _differentiable(model):
            share_model(model, processes)
            read = iterate(loader, progress)
            read = processes.in_step(read) if has_shards(model) else read
            batches = self._batches(read, measure, self._share(processes))
            for measured in together(batches, self._trainable(), processes):
                self._add(estimate, measured)
                reached |= measured.reached
                seen += measured.samples
                if self.samples is not None and seen >= self.samples:
                    break
            reshard(model)
        diagonal = processes.attempt(lambda: self._compute(estimate, reached))
        self._estimate, self._reached, self._ways = estimate, reached, ways
        self._kinds = _kinds(self._trainable())
        return diagonal

    def _empty(self) -> Estimate:
        return CorrectedBatches() if self.form == "corrected" else MeanSquare()

    def _add(self, estimate: Estimate, measured: Measured) -> None:
        """Take a batch into an estimate: a sum of squares over samples, or the gradients of the batch mean."""
        if self.form == "per_batch":
            estimate.add({key: squared(gradient) for key, gradient in measured.values.items()}, 1)
        else:
            estimate.add(measured.values, measured.samples)

    def _measure(self, objective: Objective) -> tuple[Callable[[Any], Measured], Mapping[Key, Way]]:
        """What is read off one batch in a pass, and how for each parameter, as it goes."""
        parameters = self._trainable()
        if self.form == "per_sample":
            per_sample = PerSample(objective, parameters, self.chunk_size)
            return per_sample.measure, per_sample.coverage
        leaves = list(objective.parameters())

        def measure(batch: Any) -> Measured:  # noqa: ANN401
            loss, samples = objective.with_count(batch)
            values, reached = gradients(loss, parameters, leaves)
            return Measured(values, samples, loss.detach(), reached)

        return measure, {}

    def _share(self, processes: Processes) -> int | None:
        """How many samples to take one by one in this process; the batch forms take whole batches."""
        if self.samples is None or self.form != "per_sample":
            return None
        return (self.samples + processes.count - 1 - processes.rank) // processes.count

    @staticmethod
    def _batches(batches: Iterable[Any], measure: Callable[[Any], Measured], limit: int | None) -> Iterator[Measured]:
        """What the batches of this process say, up to a number of samples."""
        seen = 0
        if limit == 0:
            return
        for number, batch in enumerate(batches):
            measured = measure(_first(copied(batch), limit, seen))
            refuse_non_finite(measured, f"batch {number}")
            yield measured
            seen += measured.samples
            if limit is not None and seen >= limit:
                break

    def _compute(self, estimate: Estimate, reached: set[Key]) -> Diagonal:
        values = estimate.result()
        _check_reached(set(values), reached)
        _check_no_overflow(values)
        return {
            modality: {
                name: spread_like(_laid_out(values.get((modality, name)), parameter), parameter)
                for name, parameter in named.items()
            }
            for modality, named in parameters_by_modality(self.encoders).items()
        }

    def _trainable(self) -> dict[Key, nn.Parameter]:
        parameters = {
            (modality, name): parameter
            for modality, named in parameters_by_modality(self.encoders).items()
            for name, parameter in named.items()
            if parameter.requires_grad
        }
        if not parameters:
            raise ValueError(
                "At least one encoder should have parameters that require a gradient. "
                f"All of {', '.join(self.encoders)} are frozen. Call requires_grad_() on what is to be trained."
            )
        return parameters


def trace(diagonal: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """The sum of each modality's Fisher diagonal."""
    return {
        modality: sum((float(_total(values)) for values in named.values()), 0.0) for modality, named in diagonal.items()
    }


def _laid_out(value: Tensor | None, parameter: nn.Parameter) -> Tensor:
    """The value in the memory format of the parameter, of which per-sample gradients know nothing."""
    kept = as_dense(None, parameter).real
    return kept if value is None else kept.copy_(value)


def _total(values: Tensor) -> Tensor:
    return summed_like(local(values).sum(dtype=torch.float64), values)


def _first(batch: Any, limit: int | None, seen: int) -> Any:  # noqa: ANN401
    """The samples of a batch that are still wanted."""
    if limit is None:
        return batch
    _, leaves, rebuild = split_samples(batch)
    return rebuild([leaf[: limit - seen] for leaf in leaves])


def _kinds(parameters: Mapping[Key, nn.Parameter]) -> dict[Key, tuple[torch.Size, torch.device]]:
    return {key: (parameter.shape, parameter.device) for key, parameter in parameters.items()}


def _refuse_changed(before: Mapping[Key, object], now: Mapping[Key, object]) -> None:
    """Refuse to mix gradients of parameters that are no longer the same; nothing before is no matter."""
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)] if before else []
    if changed:
        raise RuntimeError(
            "The same parameters should be trained from one update to the next. Added, frozen, moved or of another "
            f"shape are {in_words(changed)}. Call compute() for what was measured, then reset()."
        )


def _check_reached(wanted: set[Key], reached: set[Key]) -> None:
    missed = {modality for modality, _ in wanted} - {modality for modality, _ in reached}
    if missed:
        raise RuntimeError(
            f"The loss should depend on every encoder. No gradient reached {', '.join(sorted(missed))}. "
            "Name modules that the model calls, or freeze them with requires_grad_(False)."
        )
    if wanted - reached:
        names = ", ".join(f"`{modality}` ({name})" for modality, name in sorted(wanted - reached))
        warnings.warn(
            f"No gradient reached some parameters, so their Fisher diagonal is 0: {names}. Freeze what the loss does "
            "not depend on; if it does, use torch.utils.checkpoint with use_reentrant=False.",
            stacklevel=4,
        )


def _check_no_overflow(values: Gradients) -> None:
    too_large = non_finite(values)
    if too_large:
        raise ValueError(
            "Squared gradients should stay within their dtype. They overflow in "
            f"{in_words(too_large)}. Scale the loss down."
        )


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Gradients whatever the caller switched off; cuDNN cannot differentiate recurrent layers in evaluation mode."""
    with torch.inference_mode(False), torch.enable_grad(), differentiable_rnns(model):
        yield
