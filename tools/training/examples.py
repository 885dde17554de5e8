"""Labelled examples: read from rows, and searched for what spoils a predictor or its score."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.loglines import parse_time
from watchkeeper.tools.training.tables import Row, quoted, read_rows

LEAST_OF_CLASS = 2
MANY_CLASSES = 10  # that nobody would call a label of few rows
ENOUGH_TO_JUDGE = 20  # rows from which a pattern over all of them is no accident
_TELLS_CLASS = 0.95  # share of a class's rows that say its name
_TELLS_OTHERS = 0.01  # share of other rows that say it nevertheless
_MISSING = frozenset({"nan", "null", "<na>"})
_WORD = re.compile(r"\w+")
_A_YEAR = datetime(1970, 12, 31, tzinfo=UTC).timestamp()  # times without a year begin in this one
_YEAR = 365 * 86400.0
_MONTHS = _YEAR / 2


@dataclass(frozen=True, slots=True)
class Example:
    """A text, its label, and where it stands.

    Attributes:
        text: The text.
        label: Its class.
        place: File and line.
        fields: Further columns that the predictor reads, in their order.
        groups: Values of the columns by which it is scored apart.
        time: When it was written (seconds since 1970), if a column says so.
        dated: Whether that names a year; the times of those that do not are in order, and no more.
    """

    text: str
    label: str
    place: str
    fields: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    time: float | None = None
    dated: bool = True


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what."""

    text: str
    label: str
    fields: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    time: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """All of them."""
        return (self.text, self.label, *self.fields, *self.groups, *((self.time,) if self.time else ()))


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a file or a folder.

    Attributes:
        all: The examples, in the order of the rows.
        sha256: Digest of the files.
    """

    all: tuple[Example, ...]
    sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that there are, in order."""
        return tuple(sorted({example.label for example in self.all}))


def read_examples(
    data: Path,
    columns: Columns,
    *,
    pattern: str | None = None,
    label_of: Callable[[str], str] = str,
) -> Examples:
    """Read labelled examples.

    Args:
        data: See `read_rows`.
        columns: Which columns hold what.
        pattern: See `read_rows`.
        label_of: Makes the label of what stands in its column.

    Raises:
        DataError: With file, line, value and what to do, if a row cannot be used.
    """
    if columns.label in (columns.text, *columns.fields):
        raise DataError(
            f"column {quoted(columns.label)} is the label and to be learned from at once, which gives the "
            "answer away: name another one"
        )
    read = read_rows(data, needed=columns.needed, pattern=pattern)
    return Examples(_in_years(_example(row, columns, label_of) for row in read.rows), read.sha256)


def screen(
    examples: Examples,
    columns: Columns,
    *,
    first_words: bool,
    leaks: bool = False,
    contradictions: bool = False,
) -> list[str]:
    """Refuse examples from which nothing can be learned, or whose label is given away.

    Args:
        examples: What was read.
        columns: Which columns hold what.
        first_words: Whether to look for a first or last word that tells the label; of no use for lines that
            programs wrote, which begin alike.
        leaks: Whether a label that is given away is accepted.
        contradictions: Whether equal texts with different labels are accepted.

    Returns:
        What is worth knowing.

    Raises:
        DataError: With file, line, value and what to do.
    """
    counts = Counter(example.label for example in examples.all)
    first = {example.label: example for example in reversed(examples.all)}
    if len(counts) == 1:
        raise DataError(
            f"{examples.all[0].place}: all {len(examples.all)} rows have the label "
            f"{quoted(examples.all[0].label)}: examples of at least two classes are needed"
        )
    if len(counts) > max(MANY_CLASSES, len(examples.all) / 2):
        raise DataError(
            f"column {quoted(columns.label)} has {len(counts)} values in {len(examples.all)} rows "
            f"({examples.all[0].place}: {quoted(examples.all[0].label)}): is it the label?"
        )
    for label, count in counts.items():
        if count < LEAST_OF_CLASS:
            raise DataError(
                f"{first[label].place}: label {quoted(label)} is there only once: add examples, or take it "
                "out"
            )
    twice = _check_twins(examples, contradictions=contradictions)
    if not leaks:
        _check_names(examples, counts)
        if first_words:
            _check_ends(examples)
        _check_columns(examples, columns)
    notes = [f"{len(counts)} classes: " + ", ".join(f"{label} {n}" for label, n in sorted(counts.items()))]
    if twice:
        notes.append(f"{twice} rows repeat the text of an earlier one")
    return notes


def normal_form(text: str) -> str:
    """Return a text as comparisons see it: compatibility forms, case and spaces do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _example(row: Row, columns: Columns, label_of: Callable[[str], str]) -> Example:
    text, label = row.values[columns.text], row.values[columns.label].strip()
    for name, value in ((columns.text, text), (columns.label, label)):
        if not any(letter.isprintable() and not letter.isspace() for letter in value):
            raise DataError(f"{row.place}: {name} is empty: fill it in, or take the row out")
        if value.strip().casefold() in _MISSING:
            raise DataError(f"{row.place}: {name} is {quoted(value)}: fill it in, or take the row out")
    return Example(
        text=text,
        label=label_of(label),
        place=row.place,
        fields=tuple(row.values[name].strip() for name in columns.fields),
        groups=tuple(row.values[name].strip() for name in columns.groups),
        time=None if columns.time is None else _time(row, columns.time),
        dated=columns.time is None or _names_a_year(row.values[columns.time].strip()),
    )


def _in_years(examples: Iterable[Example]) -> tuple[Example, ...]:
    """Let times that name no year go on in the next one where they leap back by months, row by row."""
    found: list[Example] = []
    years, last = 0.0, -math.inf
    for example in examples:
        if example.dated or example.time is None:
            found.append(example)
            continue
        if example.time + years < last - _MONTHS:
            years += _YEAR
        last = example.time + years
        found.append(replace(example, time=last))
    return tuple(found)


def _names_a_year(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return parse_time(value, now=_A_YEAR, utc_offset=0.0) == parse_time(
            value, now=_A_YEAR + 2 * _YEAR, utc_offset=0.0
        )


def _time(row: Row, name: str) -> float:
    value = row.values[name].strip()
    try:
        found: float | None = float(value)
    except ValueError:
        found = parse_time(value, now=_A_YEAR, utc_offset=0.0)
    if found is None or not abs(found) < 1e13:
        raise DataError(
            f"{row.place}: {name} is {quoted(value)}, which is no time: write seconds since 1970 or ISO 8601"
        )
    return found


def _check_twins(examples: Examples, *, contradictions: bool) -> int:
    """Refuse equal texts with different labels; return how many texts are there more than once."""
    seen: dict[tuple[str, tuple[str, ...]], Example] = {}
    twice = 0
    for example in examples.all:
        key = (normal_form(example.text), example.fields)
        other = seen.setdefault(key, example)
        if other is example:
            continue
        twice += 1
        if other.label != example.label and not contradictions:
            raise DataError(
                f"{example.place}: {quoted(example.text)} has the label {quoted(example.label)}, and "
                f"{quoted(other.label)} in {other.place}: decide on one "
                "of them (contradictions: true accepts both)"
            )
    return twice


def _check_names(examples: Examples, counts: Counter[str]) -> None:
    """Refuse texts that say the name of their class."""
    padded = [f" {' '.join(_WORD.findall(normal_form(example.text)))} " for example in examples.all]
    for label, count in counts.items():
        words = _WORD.findall(normal_form(label))
        if not words or len(examples.all) < ENOUGH_TO_JUDGE:
            continue
        name = f" {' '.join(words)} "
        says = [name in text for text in padded]
        within = [example for example, said in zip(examples.all, says, strict=True) if said]
        inside = sum(example.label == label for example in within)
        outside = len(within) - inside
        others = len(examples.all) - count
        if inside >= _TELLS_CLASS * count and outside <= _TELLS_OTHERS * others:
            raise DataError(
                f"{within[0].place}: the text says its own label {quoted(label)}, as do {inside} of {count} "
                f"texts of this class and {outside} of {others} others, which gives the answer away: take it "
                "out of the texts (leaks: true accepts it)"
            )


def _check_ends(examples: Examples) -> None:
    """Refuse texts whose first or last word tells the class."""
    split = [normal_form(example.text).split() for example in examples.all]
    for position, what in ((0, "first"), (-1, "last")):
        words = [parts[position] for parts in split]
        if all(len(parts) > 1 for parts in split) and _tells(words, examples.all):
            raise DataError(
                f"{examples.all[0].place}: the {what} word {quoted(words[0])} tells the label "
                f"{quoted(examples.all[0].label)}, as the {what} word of every text does, which gives the "
                "answer away: take it out of the texts (leaks: true accepts it)"
            )


def _check_columns(examples: Examples, columns: Columns) -> None:
    """Refuse columns, to be learned from or to be scored by, that tell the class."""
    for names, values_of in ((columns.fields, "fields"), (columns.groups, "groups")):
        for index, name in enumerate(names):
            values = [getattr(example, values_of)[index] for example in examples.all]
            if _tells(values, examples.all):
                raise DataError(
                    f"{examples.all[0].place}: column {quoted(name)} ({quoted(values[0])}) tells the label "
                    f"{quoted(examples.all[0].label)}, as it does in every row, which gives the answer away: "
                    f"leave it out of {values_of} (leaks: true accepts it)"
                )


def _tells(values: Sequence[str], examples: Sequence[Example]) -> bool:
    """Tell whether each of few values stands beside one label alone."""
    if len(examples) < ENOUGH_TO_JUDGE:
        return False
    labels: dict[str, set[str]] = defaultdict(set)
    for value, example in zip(values, examples, strict=True):
        labels[value].add(example.label)
    classes = {example.label for example in examples}
    return 1 < len(labels) <= 2 * len(classes) and all(len(found) == 1 for found in labels.values())
