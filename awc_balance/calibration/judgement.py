"""What a verdict is made of: `Verdict`, and `Judgement` by modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from awc_balance.calibration import words
from awc_balance.calibration.estimate import Estimate
from awc_balance.calibration.excess import Excess

Kind: TypeAlias = Literal["balanced", "idle", "overfits", "starves", "cannot tell"]
Answer: TypeAlias = Literal["yes", "no", "unclear"]
Question: TypeAlias = Literal["overfits", "idle", "starved"]


@dataclass(frozen=True)
class Judgement:
    """What is known about one modality, on held-out data if nothing else is said."""

    modality: str
    share: float
    """Of its part in the size of the prediction."""
    slope: float
    """The factor of its part that held-out data bear out, over that of the whole prediction."""
    excess: Excess
    """By how much that is below what it is on training data."""
    overfits: Answer
    cost: Estimate | None
    """By how much the squared error grows without it; None where that was not or cannot be measured."""
    lost: Estimate | None
    """The same as a share of all that the model explains."""
    idle: Answer
    unused: Estimate | None
    """Which share of the error that is left its features predict."""
    alone: Estimate | None
    """By which share the error that is left falls with features that were learned on it alone, if that was tried."""
    starved: Answer


@dataclass(frozen=True)
class Verdict:
    """What to know, and what to do, about the balance of a model's modalities."""

    kind: Kind
    """"overfits": hold the modalities back. "starves": others are not learned beside them; train longer, and hold them
    back if others stay behind. "idle": they can be left out. "balanced": nothing is to be done. "cannot tell" from
    this much data."""
    modalities: tuple[str, ...]
    """Of whom it speaks; none if balanced, and those in doubt if it cannot be told."""
    judgements: tuple[Judgement, ...]
    """By modality, the largest part first."""
    whole: float
    """The factor of the whole prediction that held-out data bear out."""
    whole_interval: tuple[float, float] | None
    """Its 95 % interval; None for fewer than ten samples."""
    learned: bool
    """Whether the model predicts its own training data; if not, nothing else can be told."""
    explained_in_training: Estimate | None
    """By which share the model's loss on training data lies below that of a constant; None of too few samples."""
    explained: Estimate | None
    """The same on held-out data."""
    droppable: tuple[frozenset[str], ...]
    """The largest sets of modalities that can be left out at once. A modality may be in several: then either."""

    def named(self, question: Question, answer: Answer = "yes") -> list[Judgement]:
        """The modalities of whom a question has this answer."""
        return [one for one in self.judgements if getattr(one, question) == answer]

    def sentences(self) -> list[str]:
        """The same in plain words, the verdict first, every claim with its number and 95 % interval."""
        return words.sentences(self)

    def __str__(self) -> str:
        """All sentences."""
        return "\n".join(self.sentences())
