"""Tests of bias: differences as fairlearn counts them, and verdicts that no noise decides."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.bias import BiasPolicy, BiasReport, Rate, Verdict, bias_test
from watchkeeper.tools.predictors.intervals import apart, newcombe, wilson

BOTH = BiasPolicy(demographic_parity=0.2, equalized_odds=0.2)


def drawn(sizes: dict[str, int], rates: dict[str, tuple[float, float]], seed: int) -> BiasReport:
    """Test groups that are given "yes" at a rate where it is right, and at another where it is wrong."""
    chance = random.Random(seed)
    truth, answered, groups = [], [], []
    for name, size in sizes.items():
        for number in range(size):
            true = number % 2
            truth.append(("no", "yes")[true])
            answered.append("yes" if chance.random() < rates[name][1 - true] else "no")
            groups.append(name)
    (report,) = bias_test(truth, answered, {"team": groups}, BOTH)
    return report


def of(report: BiasReport, rate: Rate) -> Verdict | None:
    return next(found.verdict for found in report.disparities if found.rate is rate)


def test_differences_are_those_of_fairlearn() -> None:
    chance = np.random.default_rng(2)
    truth, given = chance.integers(0, 2, 400), chance.integers(0, 2, 400)
    groups = chance.choice(["x", "y", "z"], 400)
    (report,) = bias_test(
        [str(one) for one in truth], [str(one) for one in given], {"g": groups.tolist()}, BiasPolicy()
    )
    differences = {found.rate: found.difference for found in report.disparities}
    assert differences[Rate.SELECTION] == pytest.approx(
        demographic_parity_difference(truth, given, sensitive_features=groups)
    )
    assert max(differences[Rate.TRUE_POSITIVE], differences[Rate.FALSE_POSITIVE]) == pytest.approx(
        equalized_odds_difference(truth, given, sensitive_features=groups)
    )
    assert report.verdict is None
    assert report.rows == {name: int((groups == name).sum()) for name in "xyz"}


def test_large_groups_are_convicted_and_acquitted() -> None:
    fair = drawn({"x": 900, "y": 900}, {"x": (0.9, 0.1), "y": (0.9, 0.1)}, 1)
    assert fair.verdict is Verdict.WITHIN
    unfair = drawn({"x": 900, "y": 900}, {"x": (0.9, 0.1), "y": (0.5, 0.1)}, 1)
    assert unfair.verdict is Verdict.BEYOND
    assert of(unfair, Rate.TRUE_POSITIVE) is Verdict.BEYOND
    assert of(unfair, Rate.FALSE_POSITIVE) is Verdict.WITHIN


def test_a_tiny_group_neither_convicts_nor_acquits() -> None:
    for seed in range(3):
        same = {"x": (0.8, 0.2), "y": (0.8, 0.2), "z": (0.8, 0.2)}
        report = drawn({"x": 1200, "y": 1200, "z": 6}, same, seed)
        assert report.verdict is Verdict.UNDECIDED
        assert {name for found in report.disparities for name in found.short} == {"z"}
        assert of(drawn({"x": 1200, "y": 1200}, same, seed), Rate.SELECTION) is Verdict.WITHIN


def test_of_many_equal_groups_hardly_any_is_convicted_by_chance() -> None:
    names = [f"g{number}" for number in range(8)]
    convicted = sum(
        drawn(dict.fromkeys(names, 40), dict.fromkeys(names, (0.7, 0.3)), seed).verdict is Verdict.BEYOND
        for seed in range(10)
    )
    assert convicted <= 1
    widest = [
        max(
            found.difference
            for found in drawn(dict.fromkeys(names, 40), dict.fromkeys(names, (0.7, 0.3)), seed).disparities
        )
        for seed in range(3)
    ]
    # Taken at their word, differences would have convicted every time.
    assert min(widest) > 0.2


def test_a_group_without_a_positive_row_is_not_taken_for_one_that_is_always_wrong() -> None:
    truth = ["yes", "no"] * 600 + ["no"] * 600
    answered = list(truth)
    groups = ["x", "x", "y", "y"] * 300 + ["z"] * 600
    (report,) = bias_test(truth, answered, {"g": groups}, BiasPolicy(equalized_odds=0.1))
    found = next(one for one in report.disparities if one.rate is Rate.TRUE_POSITIVE)
    assert set(found.groups) == {"x", "y"}
    assert found.difference == 0
    assert (found.verdict, found.short) == (Verdict.UNDECIDED, ("z",))
    assert of(report, Rate.FALSE_POSITIVE) is Verdict.WITHIN
    assert of(report, Rate.SELECTION) is None
    assert report.verdict is Verdict.UNDECIDED


def test_each_of_several_labels_is_judged_or_those_that_matter() -> None:
    truth = ["a", "b", "c"] * 40
    groups = ["x", "y"] * 60
    (all_,) = bias_test(truth, truth, {"g": groups}, BiasPolicy())
    assert {found.label for found in all_.disparities} == {"a", "b", "c"}
    (one,) = bias_test(truth, truth, {"g": groups}, BiasPolicy(positive=("c",)))
    assert {found.label for found in one.disparities} == {"c"}


def test_what_cannot_be_compared_is_told() -> None:
    with pytest.raises(DataError, match="column 'g' tells no groups apart: all rows have the value 'x'"):
        bias_test(["a", "b"], ["a", "b"], {"g": ["x", "x"]}, BiasPolicy())
    with pytest.raises(DataError, match="label 'z' does not occur; there are: a, b"):
        bias_test(["a", "b"], ["a", "b"], {"g": ["x", "y"]}, BiasPolicy(positive=("z",)))
    with pytest.raises(DataError, match="column 'g' has 1 values for 2 labels and 2 answers"):
        bias_test(["a", "b"], ["a", "b"], {"g": ["x"]}, BiasPolicy())


def test_intervals_are_those_of_the_papers() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80, and 0/10 against 0/10.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert newcombe((56, 70), (48, 80), 0.95) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert newcombe((10, 10), (0, 20), 0.95) == pytest.approx((0.6791, 1.0), abs=1e-4)
    assert wilson(0, 0, 0.95) == (0, 1)
    assert newcombe((0, 0), (3, 4), 0.95) == (-1, 1)
    assert apart(-0.3, 0.1) == (0, 0.3)
    assert apart(-0.3, -0.1) == (0.1, 0.3)
