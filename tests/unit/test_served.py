"""How a version is served: slower answers and more failures than at first are signs, single ones are not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.clocks import START
from watchkeeper.tools.predictors.drift_plot import draw_drift, served_lines
from watchkeeper.tools.predictors.recording import Predictions, Recorded, Tally
from watchkeeper.tools.predictors.served import LEAST_ASKED, Failures, failures_of
from watchkeeper.tools.predictors.watching import watch


def timed(*parts: tuple[int, float], rows: int = 1, seed: int = 3) -> list[Recorded]:
    """Make answers to requests: so many, of so many rows, that took up to such a time."""
    draw = random.Random(seed)
    seconds = [draw.uniform(0.5, 1) * most for count, most in parts for _ in range(count)]
    return [
        Recorded(
            "busy", f"{number}:{row}", 1, "champion", START + timedelta(minutes=number), {}, {}, seconds=took
        )
        for number, took in enumerate(seconds)
        for row in range(rows)
    ]


def signals(found: Sequence[Recorded], failures: Failures | None = None) -> tuple[str, ...]:
    return watch("busy", 1, found, failures=failures).signals


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([(500, 0.1), (1000, 0.1), (200, 0.5)], ("latency",)),
        ([(500, 0.1), (1000, 0.1), (30, 0.5)], ("latency",)),
        ([(20, 0.1), (20, 0.5)], ("latency",)),
        # It became slow, and is as fast as before.
        ([(500, 0.1), (1000, 0.5), (200, 0.1)], ()),
        ([(500, 0.1), (1000, 0.15)], ()),
        # What is fast anyway is not slow.
        ([(500, 0.001), (500, 0.04)], ()),
        # A few slow answers are no change, and one of few is not even much.
        ([(500, 0.1), (500, 0.1), (5, 9.0), (100, 0.1)], ()),
        ([(10, 0.1), (9, 0.1), (1, 9.0)], ()),
        ([(9, 0.1), (9, 9.0)], ()),
    ],
)
def test_answers_that_take_much_longer_than_at_first_are_a_signal(
    parts: list[tuple[int, float]], told: tuple[str, ...]
) -> None:
    found = timed(*parts)
    assert signals(found) == told
    unmeasured = [replace(one, seconds=None) for one in found]
    assert watch("busy", 1, unmeasured).latency is None


def test_steady_times_with_a_long_tail_are_hardly_ever_told() -> None:
    told = 0
    for seed in range(100):
        draw = random.Random(seed)
        found = [replace(one, seconds=draw.lognormvariate(-2, 0.7)) for one in timed((600, 1.0))]
        told += bool(signals(found))
    assert told <= 1


def test_what_is_computed_together_is_one_slow_answer() -> None:
    found = timed((600, 0.1))
    slow = [replace(one, id=f"s{one.id}", at=found[-1].at + timedelta(seconds=1)) for one in found[:100]]
    stalled = [replace(one, seconds=3.0 + number / 1000) for number, one in enumerate(slow)]
    assert signals([*found, *stalled]) == ()
    alone = [replace(one, at=one.at + timedelta(seconds=number)) for number, one in enumerate(stalled)]
    assert signals([*found, *alone]) == ("latency",)


def test_who_asks_more_rows_at_once_waits_longer_and_nothing_is_slower() -> None:
    first = timed((600, 0.1))
    at = first[-1].at
    large = [
        replace(one, id=f"l{one.id}", at=one.at + (at - START) + timedelta(minutes=1))
        for one in timed((60, 2.0), rows=40)
    ]
    report = watch("busy", 1, [*first, *large])
    assert report.signals == ()
    assert report.latency is not None
    assert report.latency.now > 10 * report.latency.before


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (Failures(rows=200, failed=12, first_rows=500), ("errors",)),
        (Failures(rows=200, failed=4, first_rows=500), ()),
        # One in ten clients was wrong from the beginning, and is.
        (Failures(rows=200, failed=24, first_rows=500, first_failed=50), ()),
        (Failures(rows=200, failed=50, first_rows=500, first_failed=50), ("errors",)),
        # So many are too many, however it was before.
        (Failures(rows=200, failed=120, first_rows=500, first_failed=300), ("errors",)),
        (Failures(rows=LEAST_ASKED, failed=LEAST_ASKED), ("errors",)),
        (Failures(rows=LEAST_ASKED, failed=6), ()),
        (Failures(rows=LEAST_ASKED - 1, failed=LEAST_ASKED - 1, first_rows=500), ()),
    ],
)
def test_rows_at_which_it_fails_more_often_are_a_signal(failures: Failures, told: tuple[str, ...]) -> None:
    assert signals([], failures) == told


def answer(kept: Predictions, count: int, *, minute: float, step: float = 0.1) -> list[Recorded]:
    found = [
        Recorded("busy", f"{minute}-{n}", 1, "champion", START + timedelta(minutes=minute + n * step), {}, {})
        for n in range(count)
    ]
    kept.record(found)
    return found


def fail(kept: Predictions, rows: int, *, minute: float, role: str = "champion") -> None:
    kept.record_failure("busy", 1, role, rows, START + timedelta(minutes=minute))


def test_failures_are_those_of_the_newest_rows_and_of_the_time_of_the_first_answers(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    first = answer(kept, 500, minute=0)
    fail(kept, 7, minute=20)
    answer(kept, 400, minute=60)
    assert failures_of(kept, "busy", 1, first) == Failures(rows=200, first_rows=507, first_failed=7)
    fail(kept, 60, minute=100, role="canary")
    fail(kept, 99, minute=100, role="shadow")
    found = failures_of(kept, "busy", 1, first)
    assert found == Failures(rows=200, failed=60, first_rows=507, first_failed=7)
    assert found.many
    answer(kept, 200, minute=110)
    assert failures_of(kept, "busy", 1, first).failed == 0


def test_no_row_is_both_among_the_first_and_the_newest(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    first = answer(kept, 60, minute=0, step=0.001)
    fail(kept, 60, minute=0)
    # All was asked within a minute, so it is not known how it was at first; that is too much all the same.
    found = failures_of(kept, "busy", 1, first)
    assert found == Failures(rows=120, failed=60)
    assert found.many
    assert failures_of(kept, "lazy", 1) == Failures()


def test_a_version_that_answers_nothing_is_told_too(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    fail(kept, 60, minute=0)
    assert failures_of(kept, "busy", 1).many


def test_a_picture_shows_times_and_failures() -> None:
    found = timed((200, 0.1), (200, 0.5))
    counts = [
        (START + timedelta(minutes=minute), tally)
        for minute, tally in enumerate([Tally(40, 0), Tally(10, 10), Tally(10, 10)])
    ]
    lines = served_lines(found, counts, window=40)
    assert [line.name for line in lines] == ["seconds", "errors"]
    assert [value > 0.2 for value in lines[0].values] == [False] * 5 + [True] * 5
    assert lines[1].values == (0.0, 0.5)
    assert [line.name for line in served_lines(found, counts[:1], window=40)] == ["seconds"]
    assert served_lines([], [], window=40) == ()
    assert draw_drift("busy", [], lines).startswith(b"\x89PNG")
