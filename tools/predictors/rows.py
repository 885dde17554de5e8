"""Rows of CSV and JSON Lines files, read one after the other and written back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.interface import Row

FORMATS = (".csv", ".jsonl")
_BLOCK = 1 << 20
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class RowsFile:
    """A file of rows, looked through once.

    Attributes:
        path: The file.
        sha256: Of its content.
        rows: How many it holds.
        columns: Columns of a CSV file, in order; none of JSON Lines.
        numeric: Those of them that hold numbers only.
    """

    path: Path
    sha256: str
    rows: int
    columns: tuple[str, ...] = ()
    numeric: frozenset[str] = frozenset()

    @classmethod
    def inspect(cls, path: Path, *, text: Sequence[str] = ()) -> RowsFile:
        """Look a file through.

        A column of a CSV file whose cells are all numbers (or empty) holds numbers; every other holds texts.

        Args:
            path: A ``.csv`` file with a header, or a ``.jsonl`` file with an object a line.
            text: Columns that hold texts whatever they look like.

        Raises:
            DataError: Naming the place, if it cannot be read.
        """
        format_of(path)
        digest = hashlib.sha256()
        try:
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        rows = 0
        columns = _header(path) if format_of(path) == ".csv" else ()
        numeric = set(columns) - set(text)
        for row in _records(path):
            rows += 1
            numeric -= {name for name in numeric if row[name] != "" and number_of(row[name]) is None}
        return cls(path, digest.hexdigest(), rows, columns, frozenset(numeric))

    def read(self, start: int = 0) -> Iterator[Row]:
        """Return the rows from a number on (0 is the first).

        Raises:
            DataError: Naming the place, if it cannot be read.
        """
        for number, row in enumerate(_records(self.path)):
            if number >= start:
                yield {name: self._cell(name, value) for name, value in row.items()}

    def _cell(self, name: str, value: Any) -> JsonValue:
        if name not in self.numeric:
            found: JsonValue = value
            return found
        return None if value == "" else _as_written(value)


class _Int(int):
    """A whole number of a file, with how it is written there."""

    text: str


class _Float(float):
    """A number of a file, with how it is written there."""

    text: str


def _as_written(text: str) -> int | float | None:
    """Return the number that a text writes: answers stand beside ``0042`` and ``1.10``, not 42 and 1.1."""
    number = number_of(text)
    if number is None:
        return None
    found = _Int(number) if isinstance(number, int) else _Float(number)
    found.text = text
    return found


def format_of(path: Path) -> str:
    """Return the format of a file by its name.

    Raises:
        DataError: If it is none that is known.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{str(path)!r} is no {' or '.join(FORMATS)} file: give it the name that it has")
    return suffix


class RowsWriter:
    """Writes answers beside what was asked, as CSV or JSON Lines.

    Args:
        suffix: Of the file.
        columns: Columns of a CSV file.
    """

    def __init__(self, suffix: str, columns: Sequence[str]) -> None:
        self._suffix = suffix
        self._columns = tuple(columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a CSV file."""
        return self._columns

    def header(self) -> bytes:
        """Return what stands before all rows."""
        return b"" if self._suffix == ".jsonl" else self._line(self._columns)

    def rows(self, rows: Sequence[Mapping[str, JsonValue]]) -> bytes:
        """Write rows.

        Raises:
            DataError: If a row holds a column that the file has no place for, or no JSON.
        """
        if self._suffix == ".jsonl":
            try:
                return b"".join(json.dumps(dict(row), allow_nan=False).encode() + b"\n" for row in rows)
            except ValueError as error:
                raise DataError(f"an answer is no JSON: {error}") from error
        for row in rows:
            if extra := [name for name in row if name not in self._columns]:
                raise DataError(
                    f"an answer has a column {extra[0]!r} that the first one had not: write a .jsonl file"
                )
        return b"".join(self._line([_cell(row.get(name)) for name in self._columns]) for row in rows)

    def _line(self, cells: Sequence[str]) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(cells)
        return buffer.getvalue().encode()


def _header(path: Path) -> tuple[str, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return tuple(next(csv.reader(stream, strict=True), ()))
    except (OSError, UnicodeDecodeError, csv.Error):
        # Whoever reads the records says what is wrong, and where.
        return ()


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _csv(path, stream) if format_of(path) == ".csv" else _jsonl(path, stream)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8: {error.reason} at byte {error.start}") from error


def _csv(path: Path, stream: io.TextIOBase) -> Iterator[dict[str, Any]]:
    reader = csv.reader(stream, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(f"{str(path)!r} is empty: its first line must name its columns")
        if len(set(header)) != len(header) or not all(header):
            raise DataError(f"{str(path)!r} line 1: every column needs a name of its own")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{str(path)!r} line {reader.line_num}: {len(cells)} cells for {len(header)} columns"
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{str(path)!r} line {reader.line_num}: {error}") from error


def _jsonl(path: Path, stream: io.TextIOBase) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{str(path)!r} line {number} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{str(path)!r} line {number} is no object: {line.strip():.{_SHOWN}}")
        yield found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def finite(value: object) -> float | None:
    """Return a number as a float; None for what is no number, infinite, or more than a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def number_of(text: str) -> int | float | None:
    """Return the finite number that a text writes, or None."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, _Int | _Float):
        return value.text
    return value if isinstance(value, str) else json.dumps(value)
