"""What the penalty of AWC and its gradient cost, against a loop over the parameters with autograd.

    python -m benchmarks.awc_penalty [--quick] [--device cpu] [--result FILE]

All ways add the same gradient to `.grad`; those through a loss also give the value. The last three rows of a size are
the library, the last two with what it takes to see that nobody has changed the model since the last step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from awc_balance import AWCRegularizer
from awc_balance.fisher.diagonal import Diagonal
from awc_balance.penalty import Pulled, add_penalty_gradient_, bundles
from benchmarks.awc_timing import Works, give, milliseconds, parse, parser

SIZES = {
    "400 tensors, 30 thousand elements": (100, 16),
    "400 tensors, 3 million elements": (100, 170),
    "40 tensors, 42 million elements": (10, 2048),
}
ALPHA = 2.0
NOTES = ("Median milliseconds, and how many times as fast as the loop with autograd, in one run.",)


class Towers(nn.Module):
    """Two encoders of linear layers and norms: four tensors a block, of which half are biases."""

    def __init__(self, blocks: int, width: int) -> None:
        """Build `blocks` in all."""
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for _ in part))
                for name, part in {"a": range(blocks // 2), "b": range(blocks - blocks // 2)}.items()
            }
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Both encoders on one input, summed."""
        return torch.stack([encoder(inputs) for encoder in self.encoders.values()]).sum(0)


def works_of(model: Towers) -> Works:
    """Every way of adding the gradient of the penalty, by name, for a model that has left its anchors."""
    fisher = {m: {n: torch.rand_like(p) for n, p in e.named_parameters()} for m, e in model.encoders.items()}
    awc, coarse = anchored(model, fisher), anchored(model, fisher, fisher_dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
            parameter.grad = torch.zeros_like(parameter)
    terms = [
        Pulled(parameter, *(awc.get_buffer(f"{kind}/{m}/{n.replace('.', '/')}") for kind in ("anchor", "fisher")))
        for m, encoder in model.encoders.items()
        for n, parameter in encoder.named_parameters()
    ]
    parts = bundles((ALPHA, term) for term in terms)
    return {
        "loop with autograd": lambda: by_autograd(terms),
        "multi-tensor operations with autograd": lambda: by_foreach_autograd(terms),
        "loop, closed form": lambda: in_closed_form(terms),
        "multi-tensor operations, closed form": lambda: add_penalty_gradient_(parts),
        "awc().backward()": lambda: awc().backward(),
        "awc.add_gradient_()": awc.add_gradient_,
        "the same, Fisher diagonals in bfloat16": coarse.add_gradient_,
    }


def anchored(model: Towers, fisher: Diagonal, **options: Any) -> AWCRegularizer:  # noqa: ANN401 - its own
    """A regularizer in its window."""
    awc = AWCRegularizer(model, model.encoders, nn.functional.mse_loss, alphas=dict.fromkeys("ab", ALPHA), **options)
    awc.start_epoch([], fisher=fisher)
    return awc


def by_autograd(terms: Sequence[Pulled]) -> None:
    """The loss of the equation, written down as it is."""
    total = torch.zeros((), device=terms[0].parameter.device)
    for parameter, anchor, fisher in terms:
        total = total + ALPHA * (fisher * (parameter - anchor) ** 2).sum()
    total.backward()


def by_foreach_autograd(terms: Sequence[Pulled]) -> None:
    """The same by multi-tensor operations, differentiated by torch."""
    parameters, anchors, fishers = zip(*terms, strict=True)
    offsets = torch._foreach_sub(parameters, anchors)
    squares = torch._foreach_mul(torch._foreach_mul(offsets, offsets), fishers)
    (ALPHA * torch.stack(torch._foreach_norm(squares, 1)).sum()).backward()


@torch.no_grad()
def in_closed_form(terms: Sequence[Pulled]) -> None:
    """The gradient alone, one parameter after another."""
    for parameter, anchor, fisher in terms:
        if parameter.grad is not None:
            parameter.grad.add_((parameter - anchor).mul_(fisher), alpha=2 * ALPHA)


def measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All ways on one size."""
    model = Towers(*SIZES[name]).to(args.device)
    times = milliseconds(works_of(model), args.device, args.rounds)
    slowest = times["loop with autograd"]
    return [
        {"size": name, "way": way, "milliseconds": round(value, 4), "times_as_fast": round(slowest / value, 2)}
        for way, value in times.items()
    ]


def main() -> None:
    """Measure, print and save."""
    args = parse(parser(__doc__))
    sizes = list(SIZES)[:1] if args.quick else list(SIZES)
    rows = [row for name in sizes for row in measure(name, args)]
    columns = {"size": "{size}", "way": "{way}", "ms": "{milliseconds:.2f}", "times as fast": "{times_as_fast:.1f}"}
    give(args, NOTES, rows, columns)


if __name__ == "__main__":
    main()
