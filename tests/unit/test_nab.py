"""The benchmark's score, against cases that were computed by hand from its description.

The worth of a position is 2 / (1 + e^(5y)) - 1, for y from -1 (first row of a window) over 0 (behind its
last) to 3; of a window of ten rows the first is worth 1, the sixth 0.8482/0.9866, the last 0.2449/0.9866.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from watchkeeper.tools.predictors.nab import (
    STANDARD,
    Profile,
    Scored,
    Window,
    best_threshold,
    normalized,
    probation,
    scaled_sigmoid,
    score_at,
    windows_of,
    worths,
)

ROWS = 100  # the first 15 are probation
ONE = (Window(40, 49),)
TWO = (Window(40, 49), Window(70, 79))


def detections(*rows: int, windows: tuple[Window, ...] = ONE, rows_in_all: int = ROWS) -> Scored:
    scores = np.zeros(rows_in_all)
    scores[list(rows)] = 1.0
    return Scored("cpu", scores, windows)


@pytest.mark.parametrize(
    ("position", "worth"), [(-1.0, 0.98661), (-0.5, 0.84828), (0.0, 0.0), (0.5, -0.84828), (3.1, -1.0)]
)
def test_the_worth_of_a_position(position: float, worth: float) -> None:
    assert scaled_sigmoid(position) == pytest.approx(worth, abs=1e-5)


@pytest.mark.parametrize(
    ("what", "rows", "raw"),
    [
        ("at once", [40], 1.0),
        ("in the middle", [45], 0.84828 / 0.98661),
        ("at the last moment", [49], 0.24492 / 0.98661),
        ("not at all", [], -1.0),
        ("twice, of which the earlier one counts", [45, 48], 0.84828 / 0.98661),
        ("in every row", list(range(40, 50)), 1.0),
        ("before any window, which costs in full", [20], -1.0 - 0.11),
        ("right after the window, which costs little", [50], -1.0 - 0.11 * 0.27034),
        ("half a width later", [45, 54], 0.84828 / 0.98661 - 0.11 * 0.88294),
        ("more than three widths later, which costs in full", [40, 99], 1.0 - 0.11),
    ],
)
def test_one_window_is_detected(what: str, rows: list[int], raw: float) -> None:
    assert score_at(detections(*rows), 0.5).raw == pytest.approx(raw, abs=1e-4)


def test_the_distance_is_taken_from_the_window_before() -> None:
    # Row 69 is next to the second window, and 20 rows (2.2 widths) after the first: it costs nearly in full.
    assert score_at(detections(69, windows=TWO), 0.5).raw == pytest.approx(-2.0 - 0.11 * 0.99997, abs=1e-4)


def test_windows_are_counted_one_by_one() -> None:
    tally = score_at(detections(40, 79, 60, windows=TWO), 0.5)
    assert (tally.windows, tally.found, tally.false, tally.rows) == (2, 2, 1, 85)
    late, false = 0.24492 / 0.98661, 0.11 * scaled_sigmoid(11 / 9)
    assert tally.raw == pytest.approx(1.0 + late + false, abs=1e-4)


def test_detections_of_the_probation_count_for_nothing() -> None:
    assert probation(ROWS) == 15
    assert probation(20_000) == 750
    assert score_at(detections(*range(15)), 0.5).raw == -1.0
    assert score_at(detections(*range(16)), 0.5).raw == pytest.approx(-1.11)


def test_a_row_at_the_threshold_is_detected() -> None:
    scored = Scored("cpu", np.where(np.arange(ROWS) == 40, 0.5, 0.0), ONE)
    assert score_at(scored, 0.5).found == 1
    assert score_at(scored, math.nextafter(0.5, 1)).found == 0


def test_the_score_is_0_for_nothing_and_100_for_all_at_once() -> None:
    assert normalized(score_at(detections(windows=TWO), 0.5)) == 0.0
    assert normalized(score_at(detections(40, 70, windows=TWO), 0.5)) == pytest.approx(100.0)
    assert normalized(score_at(detections(40, windows=TWO), 0.5)) == pytest.approx(50.0)
    assert normalized(score_at(detections(16, 17, windows=TWO), 0.5)) == pytest.approx(-5.5)
    with pytest.raises(ValueError, match="without any window"):
        normalized(score_at(detections(windows=()), 0.5))


def test_a_profile_that_hates_misses_takes_twice_for_one() -> None:
    careful = Profile(miss=2.0)
    assert score_at(detections(), 0.5, careful).raw == -2.0
    assert normalized(score_at(detections(40), 0.5, careful), careful) == pytest.approx(100.0)


def test_one_threshold_is_chosen_for_all_series_together() -> None:
    # Alone the first would take 0.3 and the second 0.9; together 0.3 costs 20 false rows for one window.
    first, second = np.zeros(ROWS), np.zeros(ROWS)
    first[40] = 0.3
    second[70] = 0.9
    second[16:36] = 0.5
    corpus = [Scored("a", first, ONE), Scored("b", second, (Window(70, 79),))]
    threshold, tally = best_threshold(corpus)
    assert (threshold, tally.found, tally.false) == (0.9, 1, 0)
    assert tally.raw == pytest.approx(0.0)
    assert best_threshold(corpus[:1])[0] == 0.3


def test_the_search_of_the_threshold_is_exact() -> None:
    drawn = np.random.default_rng(5)
    for _ in range(20):
        corpus = [Scored("x", drawn.integers(0, 12, ROWS) / 11, TWO), Scored("y", drawn.random(ROWS), ONE)]
        threshold, tally = best_threshold(corpus)
        tried = {*corpus[0].scores.tolist(), *corpus[1].scores.tolist(), 2.0}
        every = [sum(score_at(s, t).raw for s in corpus) for t in tried]
        assert tally.raw == pytest.approx(max(every))
        assert sum(score_at(s, threshold).raw for s in corpus) == pytest.approx(tally.raw)


def test_where_nothing_is_worth_telling_nothing_is_told() -> None:
    threshold, tally = best_threshold([Scored("a", np.full(ROWS, 0.5), ())])
    assert threshold > 0.5
    assert (tally.raw, tally.false) == (0.0, 0)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="cpu: a score is no finite number"):
        score_at(Scored("cpu", np.full(ROWS, np.nan), ()), 0.5)


def test_spans_of_time_become_windows_of_rows() -> None:
    times = [0.0, 10.0, 20.0, 20.0, 30.0]
    assert windows_of(times, [(25, 30), (10, 20)]) == (Window(1, 3), Window(4, 4))
    with pytest.raises(ValueError, match="no row lies between 11 and 12"):
        windows_of(times, [(11, 12)])
    with pytest.raises(ValueError, match="overlaps"):
        windows_of(times, [(0, 10), (10, 20)])


def test_worths_are_those_of_the_published_profile() -> None:
    assert Profile(hit=1.0, miss=1.0, false=0.11) == STANDARD
    assert worths(5, (Window(1, 2),))[:3].tolist() == pytest.approx([-0.11, 1.0, 0.84828 / 0.98661], abs=1e-4)
