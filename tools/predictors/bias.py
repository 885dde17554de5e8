"""Tests of bias: whether a predictor treats groups differently, beyond what chance and a policy allow.

Rates are fairlearn's (Bird et al.: "Fairlearn: A toolkit for assessing and improving fairness in AI", 2020):
demographic parity compares how often groups are given a label, equalized odds how often where it is right
and where it is wrong (Hardt, Price, Srebro 2016). A difference alone convicts nobody and acquits nobody:
of every pair of groups the interval of the difference is compared with the threshold, at a confidence
that holds for all pairs together (Bonferroni), so that a small group, or one of many, leads to no verdict
by noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import DataError, MissingExtraError
from watchkeeper.tools.predictors.bias_report import (
    BiasPolicy,
    BiasReport,
    Disparity,
    GroupRate,
    Rate,
    Verdict,
)
from watchkeeper.tools.predictors.intervals import apart, newcombe, wilson

__all__ = [
    "BiasPolicy",
    "BiasReport",
    "Disparity",
    "GroupRate",
    "Rate",
    "Verdict",
    "bias_test",
    "require_fairness",
]

_Numbers = NDArray[np.int64]


_MISSING = "tests of bias need the package fairlearn: pip install 'watchkeeper[fairness]'"


def require_fairness() -> None:
    """See to it that groups can be compared, before anything is trained for it.

    Raises:
        MissingExtraError: If fairlearn is not installed.
    """
    if find_spec("fairlearn") is None:
        raise MissingExtraError(_MISSING)


def bias_test(
    truth: Sequence[str],
    answered: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    policy: BiasPolicy,
) -> tuple[BiasReport, ...]:
    """Compare how groups are answered, column by column.

    Args:
        truth: True label of each row.
        answered: Label that each row was given.
        groups: For each column the value of each row.
        policy: What a difference may be.

    Raises:
        DataError: If a column has fewer than two groups, or lengths differ, or a label does not occur.
        MissingExtraError: If fairlearn is not installed.
    """
    labels = sorted({*truth, *answered})
    for label in policy.positive:
        if label not in labels:
            raise DataError(f"label {label!r} does not occur; there are: {', '.join(labels)}")
    # Of two labels, one says all that the other would.
    chosen = policy.positive or tuple(labels if len(labels) != 2 else labels[1:])
    return tuple(_report(name, truth, answered, values, chosen, policy) for name, values in groups.items())


def _report(
    column: str,
    truth: Sequence[str],
    answered: Sequence[str],
    values: Sequence[str],
    labels: Sequence[str],
    policy: BiasPolicy,
) -> BiasReport:
    if not len(truth) == len(answered) == len(values):
        raise DataError(
            f"column {column!r} has {len(values)} values for {len(truth)} labels and {len(answered)} answers"
        )
    if len(set(values)) < 2:
        raise DataError(f"column {column!r} tells no groups apart: all rows have the value {values[0]!r}")
    right = np.array([true == given for true, given in zip(truth, answered, strict=True)], np.int64)
    names = np.array(values, dtype=object)
    everything = np.ones(len(names), bool)
    disparities: list[Disparity] = []
    unseen: list[tuple[Rate, str]] = []
    for label in labels:
        given = np.array([one == label for one in answered], np.int64)
        true = np.array([one == label for one in truth], bool)
        for rate, rows, threshold in (
            (Rate.SELECTION, everything, policy.demographic_parity),
            (Rate.TRUE_POSITIVE, true, policy.equalized_odds),
            (Rate.FALSE_POSITIVE, ~true, policy.equalized_odds),
        ):
            if len(set(names[rows])) > 1:
                counted = _counted(given[rows], names[rows])
                found = _disparity(rate, label, counted, threshold, policy, 3 * len(labels))
                disparities.append(_with_missing(found, set(values) - set(counted)))
            else:
                unseen.append((rate, label))
    verdicts = [found.verdict for found in disparities if found.verdict is not None]
    # What nobody could look at was not found to be within anything.
    if unseen and policy.equalized_odds is not None:
        verdicts.append(Verdict.UNDECIDED)
    worst = max(verdicts, key=list(Verdict).index, default=None)
    by_group = _counted(right, names)
    return BiasReport(
        column=column,
        rows={name: count for name, (_, count) in by_group.items()},
        accuracy=_rates(by_group, policy.confidence),
        disparities=tuple(disparities),
        verdict=worst,
        unseen=tuple(unseen),
    )


def _with_missing(found: Disparity, missing: set[str]) -> Disparity:
    """Take an acquittal back where a group has no row that could have told against it."""
    if not missing:
        return found
    if found.verdict in (None, Verdict.BEYOND):
        return found.model_copy(update={"most": 1.0})
    short = tuple(sorted({*found.short, *missing}))
    return found.model_copy(update={"verdict": Verdict.UNDECIDED, "short": short, "most": 1.0})


def _counted(hits: _Numbers, names: NDArray[np.object_]) -> dict[str, tuple[int, int]]:
    """Return for each group how many rows hit, of how many."""
    try:
        from fairlearn.metrics import MetricFrame, count, selection_rate
    except ImportError as error:
        raise MissingExtraError(_MISSING) from error
    frame = MetricFrame(
        metrics={"rate": selection_rate, "count": count},
        y_true=hits,
        y_pred=hits,
        sensitive_features=names,
    )
    found: dict[str, tuple[int, int]] = {}
    for name, row in frame.by_group.to_dict("index").items():
        rows = int(row["count"])
        found[str(name)] = (round(float(row["rate"]) * rows), rows)
    return found


def _rates(counted: Mapping[str, tuple[int, int]], confidence: float) -> dict[str, GroupRate]:
    made: dict[str, GroupRate] = {}
    for name, (hits, count) in counted.items():
        low, high = wilson(hits, count, confidence)
        made[name] = GroupRate(rate=hits / count, count=count, low=low, high=high)
    return made


def _disparity(
    rate: Rate,
    label: str,
    counted: Mapping[str, tuple[int, int]],
    threshold: float | None,
    policy: BiasPolicy,
    tests: int,
) -> Disparity:
    pairs = list(combinations(counted, 2))
    confidence = 1 - (1 - policy.confidence) / (len(pairs) * tests)
    sizes = {pair: apart(*newcombe(counted[pair[0]], counted[pair[1]], confidence)) for pair in pairs}
    shares = {name: hits / count for name, (hits, count) in counted.items()}
    difference = max(shares.values()) - min(shares.values())
    verdict: Verdict | None = None
    between = max(pairs, key=lambda pair: abs(shares[pair[0]] - shares[pair[1]]))
    short: tuple[str, ...] = ()
    surest = max(pairs, key=lambda pair: sizes[pair][0])
    widest = max(pairs, key=lambda pair: sizes[pair][1])
    if threshold is not None:
        if sizes[surest][0] > threshold:
            verdict, between = Verdict.BEYOND, surest
        elif sizes[widest][1] <= threshold:
            verdict, between = Verdict.WITHIN, widest
        else:
            verdict, between = Verdict.UNDECIDED, widest
            open_ = [pair for pair in pairs if sizes[pair][1] > threshold]
            short = tuple(sorted({min(pair, key=lambda name: counted[name][1]) for pair in open_}))
    return Disparity(
        rate=rate,
        label=label,
        groups=_rates(counted, policy.confidence),
        difference=difference,
        between=between,
        low=sizes[between][0],
        high=sizes[between][1],
        threshold=threshold,
        verdict=verdict,
        short=short,
        surest=surest,
        least=sizes[surest][0],
        most=sizes[widest][1],
    )
