"""Drift: an index that can be worked out by hand, and signals that chance does not raise."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.clocks import START
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.drift_plot import draw_drift, drift_lines
from watchkeeper.tools.predictors.intervals import wilson
from watchkeeper.tools.predictors.psi import ColumnReference, Reference, chance_limit, psi
from watchkeeper.tools.predictors.recording import Predictions, Recorded
from watchkeeper.tools.predictors.watching import (
    LEAST_ROWS,
    changes,
    live_quality,
    look,
    outcome_of,
    parted,
    watch,
)


@pytest.mark.parametrize(
    ("expected", "found", "index"),
    [
        ([1, 1], [1, 1], 0.0),
        ([50, 50], [500, 500], 0.0),
        # (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
        ([50, 50], [60, 40], 0.1 * math.log(1.2) - 0.1 * math.log(0.8)),
        # (0.75 - 0.25) ln 3 + (0.25 - 0.75) ln (1 / 3) = ln 3
        ([1, 3], [3, 1], math.log(3)),
        # An empty bin counts as 0.0001: (1 - 0.5) ln 2 + (0.0001 - 0.5) ln(0.0001 / 0.5)
        ([5, 5], [10, 0], 0.5 * math.log(2) - 0.4999 * math.log(0.0002)),
        ([5, 5, 0], [5, 5, 0], 0.0),
    ],
)
def test_the_index_is_what_it_is_by_hand(
    expected: Sequence[float], found: Sequence[float], index: float
) -> None:
    assert psi(expected, found) == pytest.approx(index)


@pytest.mark.parametrize(("expected", "found"), [([1], [1, 2]), ([0, 0], [1, 1]), ([1, 1], [0, 0])])
def test_what_cannot_be_compared_is_refused(expected: list[int], found: list[int]) -> None:
    with pytest.raises(ValueError, match=r"bins are expected|nothing to compare"):
        psi(expected, found)


@pytest.mark.parametrize(
    ("bins", "confidence", "quantile"), [(2, 0.95, 3.841), (10, 0.95, 16.919), (10, 0.999, 27.877)]
)
def test_the_limit_of_chance_is_the_tabulated_quantile(bins: int, confidence: float, quantile: float) -> None:
    assert chance_limit(bins, 1000, 500, confidence=confidence) == pytest.approx(quantile * 0.003, rel=0.03)


def test_chance_exceeds_its_limit_about_as_often_as_it_says() -> None:
    draw = random.Random(1)
    beyond = 0
    for _ in range(200):
        e, f = ([draw.gauss(0, 1) for _ in range(size)] for size in (400, 300))
        reference = ColumnReference.of(list(e))
        beyond += psi(reference.counts, reference.count(f)) > chance_limit(10, 400, 300, confidence=0.95)
    # 10 are expected.
    assert 2 <= beyond <= 25


def test_numbers_fall_into_tenths_and_missing_ones_apart() -> None:
    reference = ColumnReference.of([*range(100), None])
    assert reference.edges == tuple(range(10, 100, 10))
    assert reference.counts == (10,) * 10 + (1,)
    assert reference.count([-5, 9, 10, 1000, None, "x"]) == (2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2)


def test_values_have_bins_of_their_own_and_new_ones_share_one() -> None:
    reference = ColumnReference.of(["web", "db", "web", True, None])
    assert reference.values == ("True", "db", "web")
    assert reference.counts == (1, 1, 2, 0, 1)
    assert reference.count(["web", "cache", "queue"]) == (0, 0, 1, 2, 0)


def test_texts_that_hardly_repeat_are_compared_by_length() -> None:
    reference = ColumnReference.of(["x" * number for number in range(1, 101)])
    assert reference.kind == "length"
    assert sum(reference.count(["y" * 5])) == 1


def test_numbers_that_repeat_are_values_of_their_own() -> None:
    reference = Reference.of([{"load": 3, "code": 200 + number % 2} for number in range(200)])
    same = reference.compare([{"load": 3.0, "code": 200}, {"load": 3, "code": 201}] * 100)
    other = reference.compare([{"load": 7, "code": 200}, {"load": 7, "code": 500}] * 100)
    assert {name: found.psi for name, found in same.items()} == {"load": 0, "code": 0}
    assert all(found.shifted for found in other.values())


def rows(count: int, *, mean: float = 0.0, seed: int = 1) -> list[dict[str, float]]:
    draw = random.Random(seed)
    return [{"load": draw.gauss(mean, 1), "disk": draw.random()} for _ in range(count)]


def test_a_shifted_column_is_told_and_the_others_are_not() -> None:
    drift = Reference.of(rows(1000)).compare(rows(500, mean=1.0, seed=2))
    assert {name for name, found in drift.items() if found.shifted} == {"load"}


def test_the_same_distribution_is_hardly_ever_told() -> None:
    told = 0
    for seed in range(60):
        drift = Reference.of(rows(300, seed=seed)).compare(rows(200, seed=1000 + seed))
        told += any(found.shifted for found in drift.values())
    assert told <= 1


def test_few_rows_make_a_large_index_and_no_signal() -> None:
    drift = Reference.of(rows(300)).compare(rows(25, seed=9))["load"]
    assert drift.psi > 0.2
    assert not drift.shifted


def predictions(
    count: int, *, shift_at: int = 10**9, wrong_from: int = 10**9, labelled: bool = True
) -> list[Recorded]:
    draw = random.Random(7)
    found = []
    for number in range(count):
        load = draw.gauss(2.0 if number >= shift_at else 0.0, 1)
        answer = {"busy": load > 0.5}
        right = draw.random() < (0.5 if number >= wrong_from else 0.95)
        found.append(
            Recorded(
                "busy",
                str(number),
                1,
                "champion",
                START + timedelta(minutes=number),
                {"load": load},
                answer,
                (answer["busy"] if right else not answer["busy"]) if labelled else None,
            )
        )
    return found


def test_a_report_tells_shifted_rows_answers_and_quality() -> None:
    report = watch("busy", 1, predictions(1000, shift_at=500, wrong_from=300), held_out=0.95)
    assert report.signals == ("rows:load", "answers:busy", "quality")
    assert report.quality is not None
    assert report.quality.labels == 1000
    assert (report.since, report.until) == (START, START + timedelta(minutes=999))


def test_a_report_on_stationary_predictions_tells_nothing() -> None:
    report = watch("busy", 1, predictions(1000), held_out=0.95)
    assert report.signals == ()
    assert report.reference_rows == 500


def test_of_few_predictions_nothing_is_said() -> None:
    report = watch("busy", 1, predictions(80, shift_at=40))
    assert (report.signals, report.columns, report.reference_rows) == ((), {}, 0)


def test_rows_are_compared_with_a_reference_that_is_given() -> None:
    draw = random.Random(8)
    reference = [{"load": draw.gauss(0, 1)} for _ in range(500)]
    assert watch("busy", 1, predictions(400), reference=reference).signals == ()
    assert "rows:load" in watch("busy", 1, predictions(400, shift_at=0), reference=reference).signals


def test_what_is_new_is_compared_with_the_first_answers_of_all(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    everything = predictions(1000, shift_at=600)
    kept.record(everything)
    version = SimpleNamespace(
        name="busy",
        number=1,
        promised=None,
        promised_low=lambda _: None,
        record=SimpleNamespace(notes=SimpleNamespace(label_column="")),
    )
    # All that is looked at came after the shift, and it is told all the same.
    report = look(kept, version, last=300)  # type: ignore[arg-type]
    assert report.signals == ("rows:load", "answers:busy")
    assert (report.rows, report.reference_rows, report.since) == (300, 500, everything[700].at)
    assert look(kept, version, last=LEAST_ROWS - 1).signals == ()  # type: ignore[arg-type]


def test_of_few_predictions_the_first_half_is_the_reference() -> None:
    found = predictions(1200)
    assert [len(part) for part in parted([], found[:80])] == [40, 40]
    assert [len(part) for part in parted([], found)] == [500, 700]
    assert [len(part) for part in parted(found[:300], found[300:])] == [500, 700]
    assert [len(part) for part in parted(found[:500], found[1100:])] == [500, 100]


def test_labels_of_answers_with_several_columns_need_the_name_of_one() -> None:
    one = Recorded("busy", "a", 1, "champion", START, {}, {"busy": True, "score": 0.31}, True)
    with pytest.raises(DataError, match="have the columns busy, score: say with --column which one"):
        live_quality([one])
    with pytest.raises(DataError, match="have no column 'x'; there are: busy, score"):
        live_quality([one], column="x")
    found = live_quality([one], column="busy")
    assert found is not None
    assert found.share == 1.0


@pytest.mark.parametrize(
    ("answer", "label", "tolerance", "share"),
    [
        (0.31, 0.3, 0.0, 0.0),
        (0.31, 0.3, 0.05, 1.0),
        (True, 1, 0.0, 1.0),
        ("web", "db", 9.0, 0.0),
        # Classes are texts, and what a file of labels holds may look like numbers.
        ("1", 1, 0.0, 1.0),
        ("1", 0, 0.0, 0.0),
        ("1", 1.0, 0.0, 1.0),
        (0.31, "0.3", 0.05, 1.0),
        ("web", 1, 0.0, 0.0),
        (True, "true", 0.0, 1.0),
        ("True", True, 0.0, 1.0),
        ("True", False, 0.0, 0.0),
        ("1", True, 0.0, 0.0),
        ("[1, 2]", [1, 2], 0.0, 1.0),
        ("1", [1], 0.0, 0.0),
    ],
)
def test_an_answer_agrees_with_a_label_that_says_the_same(
    answer: object, label: object, tolerance: float, share: float
) -> None:
    one = Recorded("busy", "a", 1, "champion", START, {}, {"x": answer}, label)  # type: ignore[dict-item, arg-type]
    found = live_quality([one], tolerance=tolerance)
    assert found is not None
    assert found.share == share


def outcomes(*parts: tuple[int, float], seed: int = 5) -> list[Recorded]:
    """Make labelled answers: so many, of which such a share is right."""
    draw = random.Random(seed)
    shares = [share for count, share in parts for _ in range(count)]
    return [
        Recorded("busy", str(number), 1, "champion", START + timedelta(minutes=number), {}, {"x": "1"}, label)
        for number, label in enumerate(int(draw.random() < share) for share in shares)
    ]


def test_labels_that_begin_to_disagree_are_a_signal_while_all_together_still_do() -> None:
    found = outcomes((3000, 0.95), (200, 0.6))
    report = watch("busy", 1, found, held_out=0.9, streams=True)
    assert report.signals == ("stream:quality",)
    assert report.quality is not None
    assert not report.quality.worse
    fall = report.fall
    assert fall is not None
    assert START + timedelta(minutes=2900) < fall.at < START + timedelta(minutes=3100)
    assert (fall.before, fall.share) == (pytest.approx(0.95, abs=0.02), pytest.approx(0.6, abs=0.1))
    assert watch("busy", 1, found, held_out=0.9).signals == ()
    # What is looked at lies behind the change, and it is not forgotten.
    assert "stream:quality" in watch("busy", 1, found[-150:], first=found[:500], streams=True).signals


@pytest.mark.parametrize(
    "parts",
    [
        [(3000, 0.9)],
        [(1500, 0.6), (1500, 0.95)],
        [(1500, 0.9), (300, 0.5), (1500, 0.9)],
        [(4000, 0.99), (4000, 0.96)],
        [(10, 0.9), (10, 0.0)],
    ],
)
def test_labels_that_agree_as_before_or_again_are_no_signal(parts: list[tuple[int, float]]) -> None:
    assert watch("busy", 1, outcomes(*parts), streams=True).fall is None


class Counts:
    """Tells a change at every third value."""

    def __init__(self) -> None:
        self.seen = 0

    def update(self, value: float) -> bool:
        self.seen += 1
        return self.seen % 3 == 0


def test_numbers_that_no_float_can_hold_end_no_watch() -> None:
    huge = 10**400
    asked = [{"x": number / 200, "n": huge if number % 50 == 0 else number} for number in range(400)]
    reference = Reference.of(asked)
    assert reference.compare(asked)["n"].psi == 0
    one = Recorded("busy", "a", 1, "champion", START, {"n": huge}, {"label": 0.5, "score": huge}, label=huge)
    assert outcome_of(one, column="label") == 0.0
    assert {found.stream for found in changes([one] * 3, Counts)} == {"answers:label", "quality"}


def test_every_stream_has_a_detector_of_its_own() -> None:
    found = changes(predictions(4), Counts)
    assert [(one.stream, one.prediction) for one in found] == [("answers:busy", 2), ("quality", 2)]
    assert found[0].at == START + timedelta(minutes=2)


def test_a_picture_shows_the_index_of_every_column_over_time() -> None:
    lines = drift_lines(predictions(600, shift_at=400), reference=200, window=100)
    assert [line.name for line in lines] == ["rows:load", "answers:busy"]
    assert [psi > limit for psi, limit in zip(lines[0].psi, lines[0].limit, strict=True)] == [
        False,
        False,
        True,
        True,
    ]
    assert draw_drift("busy", lines).startswith(b"\x89PNG")


def test_few_held_out_rows_promise_little() -> None:
    found = outcomes((300, 0.9))
    exact = watch("busy", 1, found, held_out=0.97).quality
    assert exact is not None
    assert exact.worse
    unsure = watch("busy", 1, found, held_out=0.97, held_out_low=0.83).quality
    assert unsure is not None
    assert not unsure.worse
    fallen = watch("busy", 1, outcomes((300, 0.6)), held_out=0.97, held_out_low=0.83).quality
    assert fallen is not None
    assert fallen.worse


def test_an_unchanged_predictor_is_seldom_called_worse() -> None:
    draw = random.Random(3)
    worse = 0
    for number in range(200):
        right = sum(draw.random() < 0.9 for _ in range(40))
        low, _ = wilson(right, 40, 0.95)
        found = live_quality(outcomes((400, 0.9), seed=number), held_out=right / 40, held_out_low=low)
        worse += found is not None and found.worse
    assert worse <= 14  # 2.5 % are 5; more than 14 of 200 come by chance once in 2,000 times
