"""Batch inference: resumed after a kill at any line, no row twice and none lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import JsonValue

from tests.clocks import START
from tests.killing import killed_at
from tests.threshold import Threshold
from watchkeeper.tools.predictors import batch
from watchkeeper.tools.predictors.batch import predict_file
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.recording import Predictions, Recorded

ROWS = 25


def rows(folder: Path) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"n": n, "load": n / ROWS}) + "\n" for n in range(ROWS)))
    return path


def run(folder: Path) -> batch.BatchDone:
    return predict_file(
        Threshold(0.5),
        folder / "in.jsonl",
        folder / "out.jsonl",
        version="busy version 1",
        digest="d",
        part_rows=10,
    )


def test_a_batch_that_is_killed_at_any_line_is_whole_after_the_next_run(tmp_path: Path) -> None:
    rows(tmp_path)
    run(tmp_path)
    expected = (tmp_path / "out.jsonl").read_bytes()
    assert len(expected.splitlines()) == ROWS
    line, died, resumed = 1, True, set()
    while died:
        folder = tmp_path / str(line)
        folder.mkdir()
        rows(folder)
        died = killed_at(line, frozenset({str(batch.__file__)}), lambda folder=folder: run(folder))
        whole = folder / "out.jsonl"
        assert not whole.exists() or whole.read_bytes() == expected
        resumed.add(run(folder).resumed)
        assert whole.read_bytes() == expected
        assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]
        line += 2
    assert line > 50
    assert resumed == {0, 10, 20, 25}


def test_predictions_that_were_recorded_survive_a_kill(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        kept = Predictions(tmp_path / "state" / "p.db")
        kept.record([Recorded("busy", "a", 1, "champion", START, {"load": 1}, {"busy": True})])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert Predictions(tmp_path / "state" / "p.db").count("busy") == 1


def test_two_runs_into_one_output_do_not_mix(tmp_path: Path) -> None:
    rows(tmp_path)
    inner: list[str] = []

    def progress(done: int, total: int) -> None:
        if done == 10:
            try:
                run(tmp_path)
            except batch.DataError as error:
                inner.append(str(error))

    predict_file(
        Threshold(0.5),
        tmp_path / "in.jsonl",
        tmp_path / "out.jsonl",
        version="busy version 1",
        digest="d",
        part_rows=10,
        progress=progress,
    )
    assert len(inner) == 1
    assert "another run writes into" in inner[0]


@pytest.mark.parametrize("part_rows", [1, 7, 25, 1000])
def test_parts_of_any_size_give_the_same_output(tmp_path: Path, part_rows: int) -> None:
    done = predict_file(
        Threshold(0.5), rows(tmp_path), tmp_path / "out.jsonl", version="1", digest="d", part_rows=part_rows
    )
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert done.rows == ROWS
    assert [answer["n"] for answer in answers] == list(range(ROWS))
    assert [answer["busy"] for answer in answers] == [n / ROWS > 0.5 for n in range(ROWS)]


class Spoken(Threshold):
    """Reads texts, and says what it read."""

    columns: ClassVar[dict[str, str]] = {"code": "a text"}
    reads_texts: ClassVar[bool] = True

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        return [{"read": json.dumps(row["code"])} for row in rows]


def test_texts_that_look_like_numbers_are_read_as_they_were_in_training(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("code\n0012\n7\n")
    predict_file(Spoken(0.5), source, tmp_path / "out.jsonl", version="1", digest="d")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["read"] for answer in answers] == ['"0012"', '"7"']


def test_what_is_asked_is_not_overwritten_by_the_answers(tmp_path: Path) -> None:
    source = rows(tmp_path)
    before = source.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(batch.DataError, match="name another file for the answers"):
        predict_file(Threshold(0.5), source, tmp_path / "link.jsonl", version="1", digest="d")
    assert source.read_bytes() == before
