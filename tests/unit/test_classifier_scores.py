"""Scores of classifiers against what is right by hand, and features against what they must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.tools.predictors.bag import positions, softmax
from watchkeeper.tools.predictors.features import line_features, text_features
from watchkeeper.tools.predictors.masks import without_header
from watchkeeper.tools.training.bag import temperature_of
from watchkeeper.tools.training.scores import Answers, evaluation_of


def answers(truth: list[int], sure: list[list[float]], **groups: list[str]) -> Answers:
    classes = tuple("abc"[: len(sure[0])])
    return Answers(classes, np.array(truth), np.array(sure), groups)


SOME = answers(
    [0, 0, 0, 1, 1, 2],
    [[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.6, 0.3, 0.1], [0.3, 0.3, 0.4]],
    team=["x", "x", "y", "y", "y", "x"],
)


def test_scores_are_those_computed_by_hand() -> None:
    scored = evaluation_of(SOME)
    assert SOME.confusion().tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert scored.outcomes == (1, 1, 0, 1, 0, 1)
    assert scored.metrics["accuracy"] == pytest.approx(4 / 6)
    assert scored.metrics["precision of a"] == pytest.approx(2 / 3)
    assert scored.metrics["recall of b"] == pytest.approx(1 / 2)
    assert scored.metrics["f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scored.metrics["log_loss"] == pytest.approx(
        -sum(math.log(p) for p in (0.8, 0.5, 0.2, 0.9, 0.3, 0.4)) / 6
    )
    assert scored.groups["team"]["x"] == {"accuracy": 1.0, "f1": 1.0, "rows": 3.0}
    assert scored.groups["team"]["y"]["accuracy"] == pytest.approx(1 / 3)
    assert evaluation_of(SOME, positive="b").metrics["f1"] == pytest.approx(1 / 2)


def test_a_group_without_the_positive_class_has_no_f1() -> None:
    assert "f1" not in evaluation_of(SOME, positive="c").groups["team"]["y"]


def test_confidence_that_keeps_its_word_has_no_calibration_error() -> None:
    kept = answers([0] * 8 + [1] * 2, [[0.8, 0.2]] * 10)
    assert evaluation_of(kept).metrics["ece"] == pytest.approx(0)
    broken = answers([0] * 4 + [1] * 6, [[0.8, 0.2]] * 10)
    assert evaluation_of(broken).metrics["ece"] == pytest.approx(0.4)
    assert broken.reliability() == [(pytest.approx(0.8), pytest.approx(0.4), 10)]


def test_a_temperature_calms_scores_that_are_too_sure() -> None:
    chance = np.random.default_rng(1)
    truth = chance.integers(0, 2, 4000)
    # The logarithm of the odds is 1 in truth, and 3 is claimed.
    seen = np.where(chance.random(4000) < 1 / (1 + math.exp(-1)), truth, 1 - truth)
    scores = np.stack([np.where(seen == 0, 3.0, 0.0), np.where(seen == 1, 3.0, 0.0)], axis=1)
    assert temperature_of(scores, truth) == pytest.approx(3, rel=0.1)
    assert temperature_of(scores[:5], truth[:5]) == 1.0


TEXTS = ["Guten Tag", "很好,谢谢", "שלום עולם", "naïve café", "ﬁne", "a", "", "x" * 9000, "🙂 ok", "\ud800"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_of_any_script_has_features_of_length_one(text: str) -> None:
    made = text_features(text, 2**18)
    assert made == text_features(text, 2**18)
    buckets = [bucket for bucket, _ in made]
    assert buckets == sorted(set(buckets))
    assert not made or sum(weight**2 for _, weight in made) == pytest.approx(1)
    assert bool(made) == bool(text.strip())


def test_case_and_width_do_not_count_and_words_do() -> None:
    assert text_features("\uff26\uff35\uff2c\uff2c Disk", 2**18) == text_features("full disk", 2**18)
    assert text_features("disk full", 2**18) != text_features("full disk", 2**18)
    assert text_features("好", 2**18) != text_features("坏", 2**18)


def test_similar_words_share_features() -> None:
    def shared(first: str, second: str) -> float:
        one, two = dict(text_features(first, 2**20)), dict(text_features(second, 2**20))
        return sum(weight * two.get(bucket, 0.0) for bucket, weight in one.items())

    assert shared("Speicherfehler", "Speicherfehlern") > 0.7
    assert shared("Speicherfehler", "thunderstorm") < 0.2


def test_masked_words_have_no_pieces_and_fields_count() -> None:
    plain = line_features(("took", "<n>"), (), 2**18)
    assert line_features(("took", "<n>"), [("level", "error")], 2**18) != plain
    assert len(line_features(("<n>",), (), 2**18)) == 1


def test_unknown_buckets_are_looked_past() -> None:
    known = np.array([3, 7, 9])
    rows, weights = positions(known, ((1, 0.5), (7, 0.25), (9, 0.75), (12, 0.1)))
    assert rows.tolist() == [1, 2]
    assert weights.tolist() == [0.25, 0.75]
    assert positions(known, ())[0].tolist() == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_probabilities_add_up_to_one(scores: list[float]) -> None:
    found = softmax(np.array(scores))
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == np.array(scores).argmax() or max(found) == pytest.approx(
        found[np.argmax(scores)]
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Jun 14 15:16:01 box sshd(pam_unix)[19939]: check pass", "check pass"),
        ("<13>Jun  4 15:16:01 box su: done", "done"),
        ("2030-01-02T03:04:05.678+01:00 box app[7]: up", "up"),
        ("2030-01-02 03:04:05,678 ERROR app: down", "ERROR app: down"),
        ("[Sun Dec 04 04:47:44 2005] [error] child 6", "[error] child 6"),
        ("no time here: 7", "no time here: 7"),
    ],
)
def test_the_time_and_the_sender_of_a_line_are_left_out(line: str, said: str) -> None:
    assert without_header(line) == said
