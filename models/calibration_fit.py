"""Fitting a calibration on labelled cases, and telling what it is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from watchkeeper.models.calibration import Bin, Calibration, Comparison, Quality, Scale
from watchkeeper.models.calibration_cases import LabelledCase, digest_of
from watchkeeper.models.errors import CalibrationError
from watchkeeper.models.interface import Cancellation, Engine, ModelIdentity, Progress

FEWEST_CASES = 30
"""Below this a temperature says more about the cases than about the model."""

_FOLDS = 5
_BINS = 10
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WEIGHTS = tuple(step / 10 for step in range(16))
# What an engine calls impossible is as good as impossible, and can be reckoned with.
_LOWEST = -1e6
# A temperature at the upper end makes shares flat: the scores say nothing about what is right.
_LOG_TEMPERATURES = (math.log(0.05), math.log(1000.0))
_GOLDEN = (math.sqrt(5) - 1) / 2
_PRECISION = 1e-3
# A parameter that gains less, in nats a case, is not worth having.
_WORTH = 1e-5


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """A labelled case as a model scored it.

    Attributes:
        logprobs: Of each option, in nats.
        neutral: The same without evidence, where the case has such a question.
        lengths: Tokens of each option.
        label: Index of the right option.
        topic: What the case is about.
        held_out: Whether it must not be fitted.
        neutral_weight: Share of the neutral log-probability that its question takes off by itself.
    """

    logprobs: tuple[float, ...]
    neutral: tuple[float, ...] | None
    lengths: tuple[int, ...]
    label: int
    topic: str
    held_out: bool
    neutral_weight: float = 1.0


def score_cases(
    engine: Engine,
    cases: Sequence[LabelledCase],
    *,
    adapter: str | None = None,
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
) -> list[ScoredCase]:
    """Ask a model all cases, with and without their evidence.

    Raises:
        CalibrationError: If the engine cannot tell the log-probability of options.
        CancelledError: If it was cancelled.
    """
    scored: list[ScoredCase] = []
    for number, case in enumerate(cases):
        if progress:
            progress("calibrate", number, len(cases))
        choice = engine.choose(replace(case.request(), adapter=adapter), cancel=cancel)
        if choice.basis != "scored":
            message = (
                f"{engine.identity.id!r} does not tell the log-probability of every option: "
                "calibrate a model that is hosted here"
            )
            raise CalibrationError(message)
        neutral: tuple[float, ...] | None = None
        if case.neutral is not None:
            without = engine.choose(replace(case.request(neutral=True), adapter=adapter), cancel=cancel)
            neutral = tuple(max(option.logprob, _LOWEST) for option in without.options)
        scored.append(
            ScoredCase(
                tuple(max(option.logprob, _LOWEST) for option in choice.options),
                neutral,
                tuple(option.tokens for option in choice.options),
                case.label,
                case.topic,
                case.held_out,
                case.request().neutral_weight,
            )
        )
    if progress:
        progress("calibrate", len(cases), len(cases))
    return scored


def fit(cases: Sequence[ScoredCase]) -> Calibration:
    """Find the parameters under which the right answers are most probable.

    The exponent and the weight are tried on a grid; the likelihood has a single peak in the temperature,
    which golden-section search finds.

    Args:
        cases: Cases to fit; those with a neutral question are fitted both with and without it.
    """
    plain = [dataclasses.replace(case, neutral=None) for case in cases]
    corrected = [case for case in cases if case.neutral is not None]
    return Calibration(
        plain=_best(plain, (0.0,), weighted=False),
        corrected=_best(corrected, _WEIGHTS, weighted=True) if corrected else Scale(),
    )


def calibrate(
    cases: Sequence[ScoredCase], identity: ModelIdentity, asked: Sequence[LabelledCase] = ()
) -> Calibration:
    """Fit a calibration and measure it on what it was not fitted on.

    Args:
        cases: Scored cases.
        identity: Who scored them.
        asked: The cases themselves, for their digest.

    Raises:
        CalibrationError: If there are too few to fit, of one topic only, or none is held out.
    """
    refuse_too_few(cases)
    fitted = [case for case in cases if not case.held_out]
    held_out = [case for case in cases if case.held_out]
    found = fit(fitted)
    crossed = _cross_validated(fitted)
    judged = [(case, found) for case in held_out]
    measured = [
        _comparison(asked_as, judged_by, pairs)
        for asked_as in ("plain", "corrected")
        for judged_by, pairs in (("cross-validation", crossed), ("held-out", judged))
        if asked_as == "plain" or any(case.neutral is not None for case, _ in pairs)
    ]
    return found.model_copy(
        update={
            "model": identity.id,
            "model_digest": identity.digest,
            "quantization": identity.quantization,
            "cases_digest": digest_of(asked),
            "measured": tuple(measured),
        }
    )


def refuse_too_few(cases: Sequence[LabelledCase] | Sequence[ScoredCase]) -> None:
    """Refuse cases that cannot tell anything, before a model is asked them.

    Raises:
        CalibrationError: If there are too few to fit, of one topic only, or none is held out.
    """
    topics = [case.topic for case in cases if not case.held_out]
    held_out = len(cases) - len(topics)
    if len(topics) < FEWEST_CASES or not held_out:
        message = (
            f"{len(topics)} cases to fit and {held_out} held out are too few: give at least {FEWEST_CASES} "
            "to fit and one to hold out"
        )
        raise CalibrationError(message)
    if len(set(topics)) < 2:
        raise CalibrationError(
            f"all cases to fit are of topic {topics[0]!r}: give two, so that one can judge the other"
        )


def quality(shares: Sequence[Sequence[float]], labels: Sequence[int]) -> Quality:
    """Judge shares by the right answers.

    Args:
        shares: Of each question.
        labels: Index of each question's right option.
    """
    best = [max(range(len(row)), key=row.__getitem__) for row in shares]
    confidence = np.array([row[index] for row, index in zip(shares, best, strict=True)])
    right = np.array([index == label for index, label in zip(best, labels, strict=True)], dtype=float)
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        Bin(
            low=place / _BINS,
            high=(place + 1) / _BINS,
            cases=int(inside.sum()),
            confidence=min(1.0, float(confidence[inside].mean())),
            accuracy=float(right[inside].mean()),
        )
        for place in range(_BINS)
        if (inside := places == place).any()
    ]
    count = len(labels)
    brier = [
        sum((share - (index == label)) ** 2 for index, share in enumerate(row))
        for row, label in zip(shares, labels, strict=True)
    ]
    loss = [-math.log(max(row[label], 1e-12)) for row, label in zip(shares, labels, strict=True)]
    return Quality(
        cases=count,
        accuracy=float(right.mean()),
        ece=min(1.0, sum(part.cases * abs(part.confidence - part.accuracy) for part in bins) / count),
        brier=min(2.0, math.fsum(brier) / count),
        log_loss=max(0.0, math.fsum(loss) / count),
        bins=tuple(bins),
    )


def _cross_validated(cases: Sequence[ScoredCase]) -> list[tuple[ScoredCase, Calibration]]:
    """Each case with a calibration that was fitted without any case of its topic."""
    topics = list(dict.fromkeys(case.topic for case in cases))
    folds = min(_FOLDS, len(topics))
    fold_of = {topic: number % folds for number, topic in enumerate(topics)}
    pairs: list[tuple[ScoredCase, Calibration]] = []
    for fold in range(folds):
        found = fit([case for case in cases if fold_of[case.topic] != fold])
        pairs += [(case, found) for case in cases if fold_of[case.topic] == fold]
    return pairs


def _comparison(asked: str, judged_by: str, pairs: Sequence[tuple[ScoredCase, Calibration]]) -> Comparison:
    if asked == "plain":
        pairs = [(dataclasses.replace(case, neutral=None), found) for case, found in pairs]
    else:
        pairs = [(case, found) for case, found in pairs if case.neutral is not None]
    labels = [case.label for case, _ in pairs]
    before = [
        Calibration().shares(case.logprobs, case.neutral, case.lengths, neutral_weight=case.neutral_weight)
        for case, _ in pairs
    ]
    after = [found.shares(case.logprobs, case.neutral, case.lengths) for case, found in pairs]
    return Comparison(
        asked=asked, judged_by=judged_by, before=quality(before, labels), after=quality(after, labels)
    )


def _best(cases: Sequence[ScoredCase], weights: Sequence[float], *, weighted: bool) -> Scale:
    """Try all exponents and weights; the first of equals, which changes least."""
    width = max(len(case.logprobs) for case in cases)
    given, without, lengths = (np.zeros((len(cases), width)) for _ in range(3))
    there = np.zeros((len(cases), width), dtype=bool)
    for row, case in enumerate(cases):
        count = len(case.logprobs)
        given[row, :count] = case.logprobs
        without[row, :count] = case.neutral or 0.0
        lengths[row, :count] = case.lengths
        there[row, :count] = True
    labels = np.array([case.label for case in cases])
    found: tuple[float, Scale] | None = None
    for exponent in _EXPONENTS:
        divisor = np.maximum(lengths, 1.0) ** exponent
        for weight in weights:
            scores = (given - weight * without) / divisor
            loss, temperature = _coolest(scores, there, labels)
            if found is None or loss < found[0] - _WORTH:
                chosen = weight if weighted else None
                found = loss, Scale(temperature=temperature, length_exponent=exponent, neutral_weight=chosen)
    assert found is not None
    return found[1]


def _coolest(
    scores: NDArray[np.float64], there: NDArray[np.bool_], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """The smallest mean loss of scores over all temperatures, and its temperature."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = np.where(there, scores / math.exp(log_temperature), -np.inf)
        highest = scaled.max(axis=1)
        norms = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float((norms - scaled[rows, labels]).mean())

    low, high = _LOG_TEMPERATURES
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > _PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    middle = (low + high) / 2
    return loss(middle), math.exp(middle)
