"""A challenger beside a champion: a verdict only where the examples bear it."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

import pytest

from tests.threshold import ThresholdParameters, ThresholdTrainer, make
from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors import read_manifest, write_manifest
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions.bootstrap import binomial_tail, interval_of_mean, sign_test
from watchkeeper.tools.versions.compare import Verdict, compare, compare_on, score


def evaluation(outcomes: list[float]) -> Evaluation:
    mean = sum(outcomes) / len(outcomes) if outcomes else 0.0
    return Evaluation(
        primary="accuracy", metrics={"accuracy": mean}, rows=len(outcomes), outcomes=tuple(outcomes)
    )


def test_a_challenger_that_mends_many_errors_is_better_and_the_other_way_round_worse() -> None:
    champion = evaluation([1.0] * 70 + [0.0] * 30)
    challenger = evaluation([1.0] * 90 + [0.0] * 10)
    found = compare(champion, challenger)
    assert found.verdict is Verdict.BETTER
    assert found.difference == pytest.approx(0.2)
    assert found.low is not None
    assert found.low > 0.1
    assert (found.wins, found.losses) == (20, 0)
    assert compare(challenger, champion).verdict is Verdict.WORSE


def test_more_right_answers_are_no_gain_where_the_primary_metric_falls() -> None:
    """Alarms are rare: who never raises one is right more often, and of no use."""
    silent = evaluation([1.0] * 960 + [0.0] * 40)
    watchful = evaluation([1.0] * 850 + [0.0] * 110 + [1.0] * 40)
    silent = silent.model_copy(update={"primary": "f1", "metrics": {"f1": 0.0}})
    watchful = watchful.model_copy(update={"primary": "f1", "metrics": {"f1": 0.42}})
    for champion, challenger in ((silent, watchful), (watchful, silent)):
        found = compare(champion, challenger)
        assert found.verdict is Verdict.UNDECIDED
        assert "and the other one is right more often" in found.reason


def test_three_wins_of_three_prove_nothing() -> None:
    found = compare(evaluation([0.0] * 3), evaluation([1.0] * 3))
    assert found.verdict is Verdict.UNDECIDED
    assert "too few examples are answered differently (3 examples better, 0 worse, p = 0.25)" in found.reason


def test_as_many_wins_as_losses_are_undecided() -> None:
    found = compare(evaluation([1.0, 0.0] * 50), evaluation([0.0, 1.0] * 50))
    assert found.verdict is Verdict.UNDECIDED
    assert found.difference == 0
    assert "around zero" in found.reason


def test_equal_answers_are_undecided() -> None:
    found = compare(evaluation([1.0, 0.0]), evaluation([1.0, 0.0]))
    assert (found.verdict, found.p_value) == (Verdict.UNDECIDED, 1.0)


def test_without_outcomes_there_is_no_verdict() -> None:
    found = compare(evaluation([]), evaluation([]))
    assert (found.verdict, found.difference) == (Verdict.UNDECIDED, None)


def test_evaluations_on_other_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"scored on 2 rows \(2 outcomes\), the challenger on 3 \(3\)"):
        compare(evaluation([1.0] * 2), evaluation([1.0] * 3))


def test_evaluations_on_as_many_rows_of_other_data_are_refused() -> None:
    may, june = evaluation([1.0, 0.0]), evaluation([1.0, 1.0])
    with pytest.raises(DataError, match="scored on other data"):
        compare(may.model_copy(update={"data_sha256": "a"}), june.model_copy(update={"data_sha256": "b"}))
    compare(may, june.model_copy(update={"data_sha256": "b"}))  # what an earlier release kept


@pytest.mark.parametrize(
    ("right", "number", "share", "expected"),
    [(0, 1, 0.9, 0.1), (1, 2, 0.5, 0.75), (3, 10, 0.5, 176 / 1024), (5, 5, 0.3, 1.0), (0, 4, 1.0, 0.0)],
)
def test_the_chance_of_so_few_right_answers_is_exact(
    right: int, number: int, share: float, expected: float
) -> None:
    assert binomial_tail(right, number, share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(0, 0, 1.0), (3, 0, 0.25), (5, 5, 1.0), (9, 1, 22 / 1024), (10, 0, 2 / 1024), (1, 9, 22 / 1024)],
)
def test_the_sign_test_is_exact(wins: int, losses: int, expected: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(expected)


def test_the_sign_test_holds_for_many_examples() -> None:
    assert 0 < sign_test(50_600, 49_400) < 0.001
    assert sign_test(60_000, 0) == 0.0


def test_an_interval_of_right_and_wrong_is_that_of_a_share() -> None:
    low, high = interval_of_mean([1.0] * 300 + [0.0] * 100)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_an_interval_of_many_different_values_is_that_of_a_mean() -> None:
    draw = random.Random(4)
    values = [draw.gauss(2, 1) for _ in range(500)]
    mean = sum(values) / 500
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 499)
    half = 1.96 * deviation / math.sqrt(500)
    found = interval_of_mean(values, resamples=4000)
    assert found == pytest.approx((mean - half, mean + half), abs=0.01)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = random.Random(5)
    held = 0
    for seed in range(200):
        low, high = interval_of_mean(
            [float(draw.random() < 0.6) for _ in range(150)], resamples=1000, seed=seed
        )
        held += low <= 0.6 <= high
    # 190 are expected; fewer than 178 or more than 199 have a chance below one in a thousand.
    assert 178 <= held <= 199


def data(folder: Path) -> Path:
    path = folder / "held-out.csv"
    draw = random.Random(1)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["load", "busy"])
        for _ in range(200):
            load = draw.random()
            writer.writerow([load, "yes" if load > 0.6 else "no"])
    return path


def test_two_predictors_are_scored_on_the_same_data(tmp_path: Path) -> None:
    champion, challenger = make(tmp_path / "a", 0.4), make(tmp_path / "b", 0.6)
    found = compare_on(data(tmp_path), champion, challenger, find=lambda _: ThresholdTrainer())
    assert found.verdict is Verdict.BETTER
    assert found.challenger["accuracy"] == 1.0
    assert found.rows == 200


def test_a_metric_that_is_no_number_is_refused_when_it_is_scored(tmp_path: Path) -> None:
    class Undefined(ThresholdTrainer):
        def evaluate(self, predictor: Path, data: Path, parameters: ThresholdParameters) -> Evaluation:
            found = super().evaluate(predictor, data, parameters)
            return Evaluation.model_validate(found.model_dump() | {"metrics": {"accuracy": math.nan}})

    with pytest.raises(DataError, match=r"its evaluation has metrics\.accuracy = nan"):
        score(make(tmp_path / "a", 0.4), data(tmp_path), lambda _: Undefined())


def test_predictors_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    champion, challenger = make(tmp_path / "a", 0.4), make(tmp_path / "b", 0.6)
    write_manifest(challenger, read_manifest(challenger).model_copy(update={"kind": "other"}))
    with pytest.raises(ArtefactError, match="of kind 'tests-threshold', the challenger of kind 'other'"):
        compare_on(data(tmp_path), champion, challenger, find=lambda _: ThresholdTrainer())


def test_data_that_one_learned_from_are_refused(tmp_path: Path) -> None:
    champion, challenger = make(tmp_path / "a", 0.4), make(tmp_path / "b", 0.6)
    held_out = data(tmp_path)
    trainer = ThresholdTrainer()
    seen = trainer.inspect(held_out, trainer.parse_parameters({})).sha256
    write_manifest(challenger, read_manifest(challenger).model_copy(update={"data_sha256": seen}))
    with pytest.raises(DataError, match="learned from: compare on data that neither has seen"):
        compare_on(held_out, champion, challenger, find=lambda _: ThresholdTrainer())
