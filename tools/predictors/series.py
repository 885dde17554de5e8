"""Series of a metric: CSV files with a time, a value, and perhaps columns that tell series apart."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.training.interface import Parameters

Numbers = NDArray[np.float64]

LARGEST_FILE = 512 * 1024 * 1024  # bytes
_MOST_SECONDS = 1e11  # since 1970: beyond are milliseconds, or what no calendar has


@dataclass(frozen=True, slots=True)
class Series:
    """One series, in the order of time.

    Attributes:
        name: The file, relative to what was read, and the values of the group columns, if there are any.
        times: Seconds since 1970, rising.
        values: What was measured; finite numbers.
        groups: Values of the group columns by their names.
    """

    name: str
    times: Numbers
    values: Numbers
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """The usual time between two points."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0


class SeriesFormat(Parameters):
    """What the columns are called, and what is refused.

    Attributes:
        time_column: ISO 8601 (UTC where no zone is given), or seconds since 1970.
        value_column: The measured value.
        group_columns: Columns whose values tell series of one file apart.
        least_rows: A series with fewer is refused.
        repeated_times: Whether a time may stand twice in a row, as clocks that are set back leave it.
        constant: Whether a series may hold one value alone.
    """

    time_column: str = "timestamp"
    value_column: str = "value"
    group_columns: tuple[str, ...] = ()
    least_rows: int = Field(default=100, ge=2)
    repeated_times: Literal["refuse", "keep"] = "refuse"
    constant: Literal["refuse", "keep"] = "refuse"


def series_files(data: Path) -> list[Path]:
    """Return the CSV files of a folder, in the order of their names, or the one file that is named.

    Raises:
        DataError: If there is none.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise DataError(f"{data} does not exist; name a CSV file, or a folder that holds some")
    found = sorted(path for path in data.rglob("*.csv") if path.is_file())
    if not found:
        raise DataError(f"{data} holds no file that ends in .csv; put the series there")
    return found


def digest_of(data: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files, in the order of their names."""
    digest = hashlib.sha256()
    for path in series_files(data):
        name = path.name if path == data else path.relative_to(data).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_folder(data: Path, form: SeriesFormat) -> list[Series]:
    """Read all series of a file or a folder.

    Raises:
        DataError: With file, line and value, and what to do, at the first thing that is wrong.
    """
    return [series for path in series_files(data) for series in read_file(path, form, root=data)]


def read_file(path: Path, form: SeriesFormat, *, root: Path | None = None) -> list[Series]:
    """Read the series of one file, in the order in which they begin.

    Args:
        path: The file.
        form: What its columns are called, and what is refused.
        root: A folder; names of series are relative to it.

    Raises:
        DataError: With file, line and value, and what to do, at the first thing that is wrong.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path} is larger than {LARGEST_FILE} bytes; split it")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    name = path.name if root is None or path == root else path.relative_to(root).as_posix()
    return parse(raw, form, path=path, name=name)


def parse(raw: bytes, form: SeriesFormat, *, path: Path, name: str) -> list[Series]:
    """Read the series of a file's bytes, in the order in which they begin.

    Args:
        raw: The bytes.
        form: What the columns are called, and what is refused.
        path: The file, for messages.
        name: What its series are called.

    Raises:
        DataError: With file, line and value, and what to do, at the first thing that is wrong.
    """
    reader = csv.reader(io.StringIO(_text(path, raw), newline=""), strict=True)
    rows = _rows(path, reader)
    _, header = next(rows, (0, None))
    if header is None:
        raise DataError(f"{path} is empty; its first line must name columns: {_wanted(form)}")
    column = _columns(path, header, form)
    found: dict[tuple[str, ...], _Reading] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}:{line}: {len(row)} columns where the header has {len(header)}; mend the line"
            )
        key = tuple(row[column[group]] for group in form.group_columns)
        if key not in found:
            found[key] = _Reading(path, form)
        found[key].add(line, row[column[form.time_column]], row[column[form.value_column]])
    if not found:
        raise DataError(f"{path} holds a header and no rows; at least {form.least_rows} are needed")
    return [reading.finish(name, key) for key, reading in found.items()]


class _Reading:
    """A series that is being read."""

    def __init__(self, path: Path, form: SeriesFormat) -> None:
        self._path, self._form = path, form
        self._times: list[float] = []
        self._values: list[float] = []

    def add(self, line: int, time: str, value: str) -> None:
        """Take one row."""
        at, number = _time(self._path, line, time, self._form), _value(self._path, line, value, self._form)
        if self._times and at < self._times[-1]:
            before = datetime.fromtimestamp(self._times[-1], UTC).isoformat()
            raise DataError(
                f"{self._path}:{line}: time {time!r} is before that of the row above ({before}); "
                "sort the rows by time, or name the columns that tell series apart"
            )
        if self._times and at == self._times[-1] and self._form.repeated_times == "refuse":
            raise DataError(
                f"{self._path}:{line}: time {time!r} stands there a second time; remove one of the rows, "
                "name the columns that tell series apart, or set repeated_times to keep"
            )
        self._times.append(at)
        self._values.append(number)

    def finish(self, name: str, key: tuple[str, ...]) -> Series:
        """Look the whole series over."""
        form = self._form
        groups = dict(zip(form.group_columns, key, strict=True))
        which = str(self._path) + "".join(f", {column} {value!r}" for column, value in groups.items())
        if len(self._values) < form.least_rows:
            raise DataError(
                f"{which}: {len(self._values)} rows, and at least {form.least_rows} are needed; "
                "measure longer"
            )
        values = np.array(self._values)
        if form.constant == "refuse" and values.min() == values.max():
            raise DataError(
                f"{which}: every {form.value_column!r} is {self._values[0]!r}, which nothing can be learned "
                "from; leave the series out"
            )
        full = " ".join((name, *(f"{column}={value}" for column, value in groups.items())))
        return Series(name=full, times=np.array(self._times), values=values, groups=groups)


def _text(path: Path, raw: bytes) -> str:
    """Read bytes as UTF-8, with or without a byte order mark."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A byte order mark of three bytes is not counted in the error's place.
        start = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{raw[start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: a null byte; save the file as UTF-8 text")
    return text


def _rows(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with their line numbers; empty lines are left out."""
    try:
        for row in reader:
            if row:
                yield reader.line_num, row  # type: ignore[attr-defined]
    except csv.Error as error:
        line = reader.line_num  # type: ignore[attr-defined]
        raise DataError(f"{path}:{line}: not CSV ({error}); mend the line") from error


def _wanted(form: SeriesFormat) -> str:
    return ", ".join((form.time_column, form.value_column, *form.group_columns))


def _columns(path: Path, header: list[str], form: SeriesFormat) -> dict[str, int]:
    """Find the columns that are needed."""
    names = [name.strip() for name in header]
    for wanted in (form.time_column, form.value_column, *form.group_columns):
        if wanted not in names:
            has = ", ".join(repr(name) for name in names)
            raise DataError(
                f"{path}:1: column {wanted!r} is missing (there are: {has}); rename a column, or say which "
                "one it is"
            )
        if names.count(wanted) > 1:
            raise DataError(f"{path}:1: column {wanted!r} is there twice; rename one of them")
    return {name: place for place, name in enumerate(names)}


def _time(path: Path, line: int, text: str, form: SeriesFormat) -> float:
    """Read a time: ISO 8601, or seconds since 1970."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text)
        except ValueError:
            raise DataError(
                f"{path}:{line}: {form.time_column!r} {text!r} is no time; write it like "
                "2026-01-31 13:45:00, or in seconds since 1970"
            ) from None
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if _MOST_SECONDS < abs(seconds) < math.inf:
        raise DataError(
            f"{path}:{line}: {form.time_column!r} {text!r} is no time in seconds since 1970 (are these "
            "milliseconds? divide them by 1000)"
        )
    if not math.isfinite(seconds):
        raise DataError(f"{path}:{line}: {form.time_column!r} {text!r} is no time; mend or remove the line")
    return seconds


def _value(path: Path, line: int, text: str, form: SeriesFormat) -> float:
    """Read a value: a finite number."""
    try:
        number = float(text)
    except ValueError:
        raise DataError(
            f"{path}:{line}: {form.value_column!r} {text!r} is no number; mend or remove the line"
        ) from None
    if not math.isfinite(number):
        raise DataError(
            f"{path}:{line}: {form.value_column!r} {text!r} is no finite number; mend or remove the line"
        )
    return number
