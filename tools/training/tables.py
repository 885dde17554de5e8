"""Rows of CSV, JSON-lines and log files, each with its place, for messages that name file, line and value."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.text import visible

SHOWN = 60  # characters of a value that a message quotes
_CELL_LIMIT = 1_000_000
_TABLES = (".csv", ".jsonl", ".ndjson")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, and its values by column."""

    file: Path
    line: int
    values: dict[str, str]

    @property
    def place(self) -> str:
        """The file and the line, as messages name them."""
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a file or a folder.

    Attributes:
        rows: The rows, in the order of the files' names.
        sha256: Digest of the files.
    """

    rows: tuple[Row, ...]
    sha256: str


def quoted(value: str) -> str:
    """Show a value in a message: short, and on one line."""
    return repr(visible(value, SHOWN))


def read_rows(data: Path, *, needed: tuple[str, ...], pattern: str | None = None) -> Rows:
    """Read a file or all files of a folder.

    Args:
        data: A file, or a folder of such files: ``.csv`` with a header, ``.jsonl``, or a log of any other
            ending, each line of which ``pattern`` takes apart.
        needed: Columns that every file must have.
        pattern: A regular expression with named groups, which are the columns of a log.

    Raises:
        DataError: With file, line, value and what to do, if there is something that cannot be read.
    """
    digest = hashlib.sha256()
    rows: list[Row] = []
    for file in _files(data):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        digest.update(hashlib.sha256(content).digest())
        text = _decoded(file, content)
        if file.suffix == ".csv":
            rows += _csv(file, text, needed)
        elif file.suffix in _TABLES:
            rows += _json_lines(file, text, needed)
        else:
            rows += _log(file, text, needed, pattern)
    if not rows:
        raise DataError(f"{data} holds no row below its header: add examples")
    return Rows(tuple(rows), digest.hexdigest())


def _files(data: Path) -> list[Path]:
    if data.is_dir():
        found = sorted(path for path in data.iterdir() if path.is_file() and not path.name.startswith("."))
        if not found:
            raise DataError(f"folder {data} holds no file: put a .csv, .jsonl or log file there")
        return found
    if not data.exists():
        raise DataError(f"{data} does not exist: name a file or a folder")
    return [data]


def _decoded(file: Path, content: bytes) -> str:
    if not content.strip():
        raise DataError(f"{file} is empty: it must hold a header and rows")
    if content.startswith(_UTF16):
        raise DataError(f"{file}, line 1: is UTF-16: save it as UTF-8, e.g. with iconv -f utf-16 -t utf-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {line}: byte 0x{content[error.start]:02x} is no UTF-8: save the file as UTF-8, "
            "e.g. with iconv -f latin1 -t utf-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file}, line {line}: holds a NUL character, so it is no text: check the file")
    return text


def _csv(file: Path, text: str, needed: tuple[str, ...]) -> Iterator[Row]:
    before = csv.field_size_limit(_CELL_LIMIT)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(file, header, needed)
        start = reader.line_num
        for cells in reader:
            line, start = start + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{file}, line {line}: has {len(cells)} cells where the header has {len(header)}: quote "
                    f"cells that hold commas (it begins with {quoted(cells[0])})"
                )
            yield Row(file, line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: is no CSV: {error}: mend the quotes") from error
    finally:
        csv.field_size_limit(before)


def _check_header(file: Path, header: list[str], needed: tuple[str, ...]) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}, line 1: column {quoted(twice)} is there twice: rename one of them")
    for name in needed:
        if name in header:
            continue
        other = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
        if other is not None:
            raise DataError(f"{file}, line 1: cells are separated by {other!r}: save it with commas")
        raise DataError(
            f"{file}, line 1: there is no column {quoted(name)} (there are: "
            f"{visible(', '.join(header), 200)}): rename a column, or name another one in the parameters"
        )


def _json_lines(file: Path, text: str, needed: tuple[str, ...]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: is no JSON: {error}: {quoted(line)}") from None
        if not isinstance(record, dict):
            raise DataError(f"{file}, line {number}: is no JSON object: {quoted(line)}")
        values: dict[str, str] = {}
        for name, value in record.items():
            if value is None or isinstance(value, str | int | float):
                values[str(name)] = "" if value is None else str(value)
        for name in needed:
            if name not in values:
                raise DataError(
                    f"{file}, line {number}: has no text or number {quoted(name)} (it has: "
                    f"{visible(', '.join(values), 200)}): add it, or name another one in the parameters"
                )
        yield Row(file, number, values)


def _log(file: Path, text: str, needed: tuple[str, ...], pattern: str | None) -> Iterator[Row]:
    if pattern is None:
        raise DataError(
            f"{file}: a file that is no .csv or .jsonl needs a pattern that takes its lines apart: give the "
            "parameter pattern, with the groups (?P<label>...) and (?P<message>...)"
        )
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"pattern {quoted(pattern)} is no regular expression: {error}") from None
    for name in needed:
        if name not in compiled.groupindex:
            raise DataError(f"pattern {quoted(pattern)} has no group (?P<{name}>...): add it")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = compiled.search(line.rstrip("\r"))
        if match is None:
            raise DataError(
                f"{file}, line {number}: does not match the pattern: {quoted(line)}: change the pattern, or "
                "take the line out"
            )
        yield Row(file, number, {name: value or "" for name, value in match.groupdict().items()})
