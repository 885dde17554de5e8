"""Batch inference: a file of rows in, a file of answers out, resumed where it was cut off."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from watchkeeper.tools.durable import sync_folder, write_durably
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.interface import Predictor, Row
from watchkeeper.tools.predictors.rows import RowsFile, RowsWriter, format_of

_PLAN = "plan.json"
_BLOCK = 1 << 20

Progress = Callable[[int, int], object]
"""Told how many rows are done, and how many there are."""


class BatchPlan(BaseModel):
    """What one batch is: two that differ in anything are not the same, and are not mixed.

    Attributes:
        input_sha256: Of the file of rows.
        rows: How many it holds.
        version: The version that answers, in words.
        digest: Of its files.
        part_rows: Rows of a part.
        columns: Columns of the output, where it is a CSV file.
        text: Columns that hold texts whatever they look like.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_sha256: str
    rows: int
    version: str
    digest: str
    part_rows: int
    columns: tuple[str, ...]
    text: tuple[str, ...] = ()


class BatchDone(BaseModel):
    """What came of a batch: rows in all, and rows that an earlier run had answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str
    rows: int
    resumed: int


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    version: str,
    digest: str,
    part_rows: int = 1000,
    text: Sequence[str] = (),
    restart: bool = False,
    progress: Progress = lambda _done, _all: None,
) -> BatchDone:
    """Answer all rows of a file.

    Answers are written part by part into a folder beside the output, each part whole or not there. A run
    that was killed goes on after its last part; the output is put together at the end and replaces what was
    there in one step. So no row is answered twice in it, and none is lost.

    Args:
        predictor: What answers.
        source: A ``.csv`` or ``.jsonl`` file.
        target: A ``.csv`` or ``.jsonl`` file; the answers stand beside the columns of the rows.
        version: What answers, in words.
        digest: Of its files.
        part_rows: Rows of a part.
        text: Columns of a CSV file that hold texts whatever they look like, besides those that the predictor
            reads as such.
        restart: Forget what an earlier run has done.
        progress: Told how far it is.

    Raises:
        DataError: Naming the place, if a row cannot be answered (what was answered is kept), or if an earlier
            run over other data or of another version was cut off.
        OSError: If it cannot be written.
    """
    format_of(target)
    if source.resolve() == target.resolve():
        raise DataError(f"{str(target)!r} is what is to be answered: name another file for the answers")
    if predictor.reads_texts:
        text = tuple(dict.fromkeys((*text, *predictor.columns)))
    rows = RowsFile.inspect(source, text=text)
    folder = target.with_name(f".{target.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if restart:
            _clear(folder)
        plan, writer = _agreed(folder, predictor, rows, target, version, digest, part_rows, text)
        resumed = min(_parts_done(folder) * plan.part_rows, rows.rows)
        progress(resumed, rows.rows)
        for number, chunk in _chunks(rows, resumed, plan.part_rows):
            answers = _answers(predictor, chunk, number)
            part = [_beside(row, answer) for row, answer in zip(chunk, answers, strict=True)]
            write_durably(_part(folder, number // plan.part_rows), writer.rows(part))
            progress(number + len(chunk), rows.rows)
        _join(folder, target, writer.header(), -(-rows.rows // plan.part_rows))
    return BatchDone(output=str(target), rows=rows.rows, resumed=resumed)


def _agreed(
    folder: Path,
    predictor: Predictor,
    rows: RowsFile,
    target: Path,
    version: str,
    digest: str,
    part_rows: int,
    text: Sequence[str],
) -> tuple[BatchPlan, RowsWriter]:
    """Return the plan of this batch: that of the run before, where it is the same batch."""
    path = folder / _PLAN
    wanted: dict[str, Any] = {
        "input_sha256": rows.sha256,
        "rows": rows.rows,
        "version": version,
        "digest": digest,
        "text": tuple(text),
    }
    try:
        plan = BatchPlan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        # Parts without a plan are what is left of a batch that was put together.
        _clear(folder)
        plan = BatchPlan(part_rows=part_rows, columns=_columns(predictor, rows), **wanted)
        write_durably(path, plan.model_dump_json().encode())
    except ValidationError as error:
        raise DataError(f"{str(path)!r} is damaged: begin anew with --restart") from error
    for name, value in wanted.items():
        if getattr(plan, name) != value:
            raise DataError(
                f"an earlier run into {str(target)!r} was cut off, and its {name.replace('_', ' ')} was "
                f"{getattr(plan, name)!r:.80}, not {value!r:.80}: begin anew with --restart, or name another "
                "output"
            )
    return plan, RowsWriter(format_of(target), plan.columns)


def _columns(predictor: Predictor, rows: RowsFile) -> tuple[str, ...]:
    """Return the columns of a CSV file: those of the rows, and those that the first answer has."""
    first = list(itertools.islice(rows.read(), 1))
    if not first:
        return rows.columns
    answer = _answers(predictor, first, 0)[0]
    return tuple(_beside(first[0], answer))


def _answers(predictor: Predictor, chunk: Sequence[Row], number: int) -> list[dict[str, JsonValue]]:
    try:
        answers = predictor.predict(chunk)
    except DataError as error:
        said = f"rows {number + 1} to {number + len(chunk)} of the input (row 0 is row {number + 1}): {error}"
        raise DataError(said) from error
    if len(answers) != len(chunk):
        raise DataError(f"{len(chunk)} rows were asked and {len(answers)} answered: the predictor is broken")
    return answers


def _beside(row: Row, answer: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Put an answer beside its row; where both have a column of a name the answer's is ``predicted_NAME``."""
    return {**row, **{f"predicted_{name}" if name in row else name: value for name, value in answer.items()}}


def _chunks(rows: RowsFile, start: int, size: int) -> Iterator[tuple[int, list[Row]]]:
    reading = rows.read(start)
    number = start
    while chunk := list(itertools.islice(reading, size)):
        yield number, chunk
        number += len(chunk)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:08}"


def _parts_done(folder: Path) -> int:
    number = 0
    while _part(folder, number).exists():
        number += 1
    return number


def _join(folder: Path, target: Path, header: bytes, parts: int) -> None:
    """Put the output together and remove the parts, the plan first: without it they are never used again."""
    whole = folder / "whole"
    with whole.open("wb") as stream:
        stream.write(header)
        for number in range(parts):
            with _part(folder, number).open("rb") as part:
                shutil.copyfileobj(part, stream, _BLOCK)
        stream.flush()
        os.fsync(stream.fileno())
    whole.replace(target)
    sync_folder(target.parent)
    (folder / _PLAN).unlink()
    shutil.rmtree(folder)


def _clear(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        path.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another run writes into {str(folder)!r} now: wait for its end") from None
    finally:
        os.close(handle)
