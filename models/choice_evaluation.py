"""How often a model chooses what is right, with and without an adapter, and whether that differs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.interface import Cancellation, Engine, Progress

_RESAMPLES = 10_000
_LEVEL = 0.95


class Chosen(BaseModel):
    """What was chosen in one case.

    Attributes:
        right: Whether it was the right option.
        probability: Share of the right option.
        topic: What the case is about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: bool
    probability: float
    topic: str = ""


class Paired(BaseModel):
    """The same cases answered in two ways.

    Attributes:
        cases: How many.
        before: Share that was right the first way.
        after: Share that was right the second way.
        difference: ``after - before``.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        gained: Cases that only the second way answered right.
        lost: Cases that only the first way answered right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int = Field(ge=1)
    before: float
    after: float
    difference: float
    low: float
    high: float
    gained: int
    lost: int

    @property
    def is_better(self) -> bool:
        """Whether the interval excludes 0 on the good side."""
        return self.low > 0


def answer_cases(
    engine: Engine,
    cases: Sequence[LabelledCase],
    *,
    adapter: str | None = None,
    stage: str = "evaluate",
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
) -> tuple[Chosen, ...]:
    """Ask a model cases exactly as agents ask.

    Raises:
        AdapterError: If no adapter of that name is loaded.
        CancelledError: If it was cancelled.
    """
    answers: list[Chosen] = []
    for number, case in enumerate(cases):
        if progress:
            progress(stage, number, len(cases))
        choice = engine.choose(case.corrected(adapter), cancel=cancel)
        share = choice.options[case.label].probability
        answers.append(Chosen(right=choice.best == case.label, probability=share, topic=case.topic))
    if progress:
        progress(stage, len(cases), len(cases))
    return tuple(answers)


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compare two ways on the same cases; the interval is a percentile bootstrap over the pairs.

    The method is Efron's (1979, https://doi.org/10.1214/aos/1176344552); its draws are always the same.

    Args:
        before: Whether each case was right the first way; not empty.
        after: The same the second way, in the same order.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    differences = second - first
    draws = np.random.default_rng(0).integers(len(differences), size=(_RESAMPLES, len(differences)))
    means = differences[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Paired(
        cases=len(differences),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        gained=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
    )
