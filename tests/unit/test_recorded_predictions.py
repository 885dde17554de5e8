"""Predictions that wait for their labels: kept once, labelled by id, bounded."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.clocks import START
from watchkeeper.tools.errors import RecordingError
from watchkeeper.tools.predictors.recording import Predictions, Recorded, Tally, Which


def prediction(
    id_: str, *, name: str = "busy", version: int = 1, role: str = "champion", days: float = 0
) -> Recorded:
    return Recorded(name, id_, version, role, START + timedelta(days=days), {"load": 1.5}, {"busy": True})


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    kept.record([prediction("a"), prediction("b")])
    assert kept.list("busy") == (prediction("a"), prediction("b"))
    assert kept.list("busy", last=1) == (prediction("b"),)
    assert kept.list("lazy") == ()


def test_the_same_prediction_is_kept_once_and_roles_apart(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    kept.record([prediction("a"), prediction("a", role="shadow")])
    kept.record([prediction("a")])
    assert kept.count("busy") == 2
    assert kept.list("busy", roles=("shadow",)) == (prediction("a", role="shadow"),)


def test_ids_that_are_kept_for_another_row_are_named(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    other = replace(prediction("a"), asked={"load": 2})
    assert kept.record([prediction("a"), prediction("b")]) == frozenset()
    assert kept.record([prediction("a"), prediction("c")]) == frozenset()
    assert kept.record([other, prediction("d")]) == {"a"}
    # What is right is said by id alone, so it makes no difference who answered.
    assert kept.record([replace(other, role="shadow")]) == {"a"}
    assert kept.record([prediction("e"), replace(prediction("e"), asked={"load": 3})]) == {"e"}
    assert [one.id for one in kept.list("busy", roles=("champion",))] == ["a", "b", "c", "d"]


def test_what_is_listed_can_be_counted_from_a_time_on(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    kept.record([prediction(str(day), version=1 + day // 3, days=day) for day in range(5)])
    kept.label("busy", {"1": "web", "3": "web", "4": "web"}, START)
    wanted_ids: tuple[tuple[Which, str], ...] = (
        ({}, "01234"),
        ({"version": 2}, "34"),
        ({"labelled": True}, "134"),
        ({"labelled": True, "since": START + timedelta(days=3)}, "34"),
        ({"since": START + timedelta(days=3, seconds=1), "roles": ("champion",)}, "4"),
        ({"roles": ("shadow",)}, ""),
    )
    for wanted, ids in wanted_ids:
        assert [one.id for one in kept.list("busy", **wanted)] == list(ids)
        assert kept.count("busy", **wanted) == len(ids)


def test_a_label_of_nothing_is_none_also_in_a_file_of_an_earlier_release(tmp_path: Path) -> None:
    path = tmp_path / "state" / "p.db"
    kept = Predictions(path)
    kept.record([prediction("a"), prediction("b")])
    kept.label("busy", {"a": "web", "b": "web"}, START)
    kept.label("busy", {"a": None}, START)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE predictions SET label = 'null' WHERE id = 'b'")
        connection.commit()
    assert kept.list("busy", labelled=True) == ()
    assert kept.count("busy", labelled=True) == 0


def test_labels_arrive_for_all_who_answered(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    kept.record([prediction("a"), prediction("a", role="shadow"), prediction("b")])
    assert kept.label("busy", {"a": "web", "z": 1}, START) == ("z",)
    assert [(one.role, one.label) for one in kept.list("busy", labelled=True)] == [
        ("champion", "web"),
        ("shadow", "web"),
    ]


def test_rows_are_counted_by_version_role_and_minute(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db", keep_days=10)
    kept.record([prediction("a"), prediction("b"), prediction("c", role="shadow")])
    kept.record_failure("busy", 1, "champion", 3, START)
    kept.record_failure("busy", 1, "champion", 1, START + timedelta(minutes=5))
    kept.record_failure("busy", 2, "champion", 9, START)

    def tally(*roles: str, minutes: float = 0) -> Tally:
        return kept.tally("busy", version=1, roles=roles, since=START + timedelta(minutes=minutes))

    assert tally("champion") == Tally(answered=2, failed=4)
    assert tally("champion", "shadow").rows == 7
    assert tally("champion", minutes=1) == Tally(answered=0, failed=1)
    assert kept.minutes("busy", version=1, roles=("champion", "shadow"), last=9) == (
        (START, Tally(answered=3, failed=3)),
        (START + timedelta(minutes=5), Tally(answered=0, failed=1)),
    )
    (newest,) = kept.minutes("busy", version=1, roles=("champion",), last=1)
    assert newest[0] == START + timedelta(minutes=5)
    until = START + timedelta(minutes=5, seconds=30)
    assert kept.tally("busy", version=1, roles=("champion",), until=until) == Tally(answered=2, failed=3)
    kept.prune(START + timedelta(days=10, minutes=3))
    assert tally("champion") == Tally(answered=0, failed=1)


def test_counts_stay_while_the_first_answers_of_their_time_do(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db", keep_rows=100, keep_days=10, keep_first=2)
    for day in range(0, 21, 5):
        kept.record([prediction(f"{day}", days=day)])
        kept.record_failure("busy", 1, "champion", 1, START + timedelta(days=day))
        kept.record_failure("busy", 2, "champion", 1, START + timedelta(days=day))

    def days(version: int) -> list[int]:
        found = kept.minutes("busy", version=version, roles=("champion",), last=9)
        return [(at - START).days for at, _ in found]

    kept.prune(START + timedelta(days=21))
    assert days(1) == [0, 5, 15, 20]
    assert days(2) == [15, 20]
    # Once it answers no more, its first answers go, and so do their counts.
    kept.prune(START + timedelta(days=31))
    assert days(1) == []


def test_a_file_of_an_earlier_release_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "state" / "p.db"
    kept = Predictions(path)
    kept.record([prediction("a")])
    kept.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE predictions DROP COLUMN seconds")
        connection.execute("DROP TABLE row_counts")
        connection.commit()
    kept = Predictions(path)
    later = replace(prediction("b"), seconds=0.25)
    kept.record([later])
    assert Predictions(path).list("busy") == (prediction("a"), later)
    assert kept.tally("busy", version=1, roles=("champion",)) == Tally(answered=1, failed=0)


def test_the_newest_are_kept_and_the_old_forgotten(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db", keep_rows=3, keep_days=10, keep_first=0)
    kept.record([prediction(f"{number}", days=number) for number in range(6)])
    kept.record([prediction("other", name="lazy", days=5)])
    kept.prune(START + timedelta(days=5))
    assert [one.id for one in kept.list("busy")] == ["3", "4", "5"]
    kept.prune(START + timedelta(days=14.5))
    assert [one.id for one in kept.list("busy")] == ["5"]
    assert kept.count("lazy") == 1


def test_the_first_answers_of_a_version_are_kept_while_it_answers(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db", keep_rows=3, keep_days=10, keep_first=2)
    kept.record([prediction("s", role="shadow")])
    kept.record([prediction(f"{number}", days=number) for number in range(6)])
    kept.record([prediction("other", version=2, days=5)])
    kept.prune(START + timedelta(days=5))
    assert [one.id for one in kept.list("busy")] == ["0", "1", "4", "5", "other"]
    kept.prune(START + timedelta(days=14.5))
    assert [one.id for one in kept.list("busy")] == ["0", "1", "5", "other"]
    kept.record([prediction("later", version=2, days=15.2)])
    kept.prune(START + timedelta(days=15.3))
    assert [one.id for one in kept.list("busy")] == ["other", "later"]


def test_the_first_and_the_newest_of_a_version_come_apart(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    kept.record([prediction("other", version=2), prediction("s", role="shadow")])
    kept.record([prediction(f"{number}") for number in range(6)])

    def ids(first: int, last: int) -> list[list[str]]:
        return [[one.id for one in part] for part in kept.ends("busy", 1, first=first, last=last)]

    assert ids(2, 3) == [["0", "1"], ["3", "4", "5"]]
    assert ids(4, 3) == [["0", "1", "2"], ["3", "4", "5"]]
    assert ids(4, 9) == [[], ["0", "1", "2", "3", "4", "5"]]
    assert kept.ends("lazy", 1, last=3) == ((), ())


def test_recording_prunes_by_itself(tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db", keep_rows=100, keep_first=0)
    for number in range(500):
        kept.record([prediction(f"{number}")])
    assert 100 <= kept.count("busy") <= 106


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "p.db").write_text("nonsense " * 200)
    with pytest.raises(RecordingError, match=r"p\.db' cannot be read or written: file is not a database"):
        Predictions(tmp_path / "state" / "p.db")
